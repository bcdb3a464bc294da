"""Several datasets as one, each with its share."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from menura.data import EpochSampler, Mixture, collate, compute_statistics, windows
from menura.errors import DataError, FeatureMismatch


@pytest.fixture(scope="module")
def part(make_reader, tmp_path_factory):
    cache = tmp_path_factory.mktemp("mixture")

    def make(size, name=None, observation_offsets=(0,), action_offsets=(0,), **options):
        reader = make_reader([size], name=name or f"part {size}", **options)
        return windows(reader, observation_offsets, action_offsets, cache_dir=cache, progress=False, num_workers=0)

    return make


@pytest.fixture(scope="module")
def many(make_reader, tmp_path_factory):
    cache = tmp_path_factory.mktemp("many")
    return windows(make_reader(range(3, 23)), cache_dir=cache, progress=False, num_workers=0)


def test_without_weights_every_item_comes_once(part):
    mixture = Mixture([part(3), part(7), part(5)])
    assert len(mixture) == 15
    numbers, items = mixture.draw(range(15))
    drawn = sorted(zip(numbers.tolist(), items.tolist(), strict=True))
    assert drawn == [(number, item) for number, size in enumerate((3, 7, 5)) for item in range(size)]
    assert mixture.shares == [0.2, 7 / 15, 1 / 3]


@settings(deadline=None, max_examples=50)
@given(weights=st.lists(st.floats(0.2, 20), min_size=3, max_size=3))
def test_shares_are_the_weights(part, weights):
    mixture = Mixture([part(30), part(70), part(50)], weights)
    numbers, _ = mixture.draw(np.arange(len(mixture)))
    counts = np.bincount(numbers, minlength=3)
    assert counts.sum() == len(mixture) == 150
    assert (np.abs(counts - 150 * np.array(weights) / sum(weights)) <= 1).all()


def test_sizes_do_not_change_the_shares(part):
    """A dataset of 1000 and one of 10 samples at 3:1, over many epochs, and no item before all others were drawn."""
    mixture = Mixture([part(1000), part(10)], [3, 1])
    numbers, items = mixture.draw(np.arange(4 * len(mixture)))
    assert np.isclose((numbers == 0).mean(), 0.75, atol=0.001)
    for number, size in enumerate((1000, 10)):
        counts = np.bincount(items[numbers == number], minlength=size)
        assert counts.max() - counts.min() <= 1


def test_draws_are_a_pure_function_of_the_seed(part):
    parts = [part(30), part(70)]
    first, second, other = Mixture(parts, [1, 1], 5), Mixture(parts, [1, 1], 5), Mixture(parts, [1, 1], 6)
    assert first.draw(range(250))[1].tolist() == second.draw(range(250))[1].tolist()
    assert first.draw(range(250))[1].tolist() != other.draw(range(250))[1].tolist()
    one_by_one = [int(first.draw([index])[1][0]) for index in range(250)]
    assert one_by_one == first.draw(range(250))[1].tolist()


def test_batches_hold_the_parts_items(part):
    parts = [part(5, cameras={"top": (2, 2)}), part(9, cameras={"top": (2, 2)})]
    mixture = Mixture(parts, seed=1)
    indices = [13, 0, 7, 7, 2]
    batch = mixture.__getitems__(indices)
    numbers, items = mixture.draw(indices)
    assert batch["dataset_id"].tolist() == numbers.tolist() == [1, 0, 1, 1, 0]
    for row, (number, item) in enumerate(zip(numbers, items, strict=True)):
        for key, value in parts[number][int(item)].items():
            if key != "dataset_id":
                np.testing.assert_array_equal(batch[key][row], value)
                np.testing.assert_array_equal(mixture[indices[row]][key], value)
    assert mixture[13]["dataset_id"] == 1


def test_images_of_different_sizes(part):
    cameras = {"top": (2, 2), "wrist": (3, 4)}
    mixture = Mixture([part(5, cameras=cameras), part(9, cameras=cameras)])
    batch = mixture.__getitems__(list(range(14)))
    assert {camera: frames.shape for camera, frames in batch["image"].items()} == {
        "top": (14, 2, 2, 3),
        "wrist": (14, 3, 4, 3),
    }
    assert collate(batch)["image"]["wrist"].shape == (14, 3, 4, 3)


def test_each_part_keeps_its_statistics(part):
    mixture = Mixture([part(5), part(9)])
    statistics = mixture.statistics()
    assert list(statistics) == ["part 5", "part 9"]
    expected = compute_statistics(np.asarray(mixture.parts[1].store.action))
    np.testing.assert_allclose(statistics["part 9"]["action"].mean, expected.mean)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"state_dim": 4}, "expected state width 3 of part 'other' as of 'part 5', got 4"),
        ({"action_dim": 1}, "expected action width 2 of part 'other' as of 'part 5', got 1"),
        (
            {"cameras": {"top": (2, 2)}},
            r"expected cameras \[\] of part 'other' as of 'part 5', got \[\('top', 2, 2\)\]",
        ),
        ({"action_offsets": (0, 1)}, r"expected action_offsets \[0\] of part 'other' as of 'part 5', got \[0, 1\]"),
        ({"observation_offsets": (-1, 0)}, r"expected observation_offsets \[0\] of part 'other'"),
    ],
)
def test_parts_must_deliver_equal_shapes(part, options, message):
    with pytest.raises(FeatureMismatch, match=message):
        Mixture([part(5), part(9, "other", **options)])


def test_camera_order_counts(part):
    with pytest.raises(FeatureMismatch, match="expected cameras"):
        Mixture(
            [
                part(5, cameras={"top": (2, 2), "wrist": (2, 2)}),
                part(9, cameras={"wrist": (2, 2), "top": (2, 2)}),
            ]
        )


@pytest.mark.parametrize(
    ("names", "weights", "message"),
    [
        (["a", "a"], None, "expected a name for each part, got 'a' twice"),
        (["a", "b"], [1], r"Mixture\.weights: expected 2 numbers > 0, one a part, got \[1\]"),
        (["a", "b"], [1, 0], "expected 2 numbers > 0"),
        (["a", "b"], [1, float("nan")], "expected 2 numbers > 0"),
        (["a", "b"], [1, 0.001], r"share of 'b' that gives it one of 10 draws, got 0\.001\. Raise its weight"),
        ([], None, "expected one or more windows, got none"),
    ],
)
def test_wrong_arguments(part, names, weights, message):
    with pytest.raises(DataError, match=message):
        Mixture([part(5, name) for name in names], weights)


def test_negative_index(part):
    with pytest.raises(IndexError, match="expected indices ≥ 0, got -1"):
        Mixture([part(5)]).__getitems__([0, -1])


def test_dataloader_and_pickle(part):
    mixture = Mixture([part(5), part(9)], [1, 1])
    assert len(pickle.dumps(mixture)) < 5000
    batches = list(DataLoader(mixture, batch_size=4, shuffle=True, num_workers=1, collate_fn=collate))
    ids = np.concatenate([batch["dataset_id"] for batch in batches])
    assert np.bincount(ids).tolist() == [7, 7]


@settings(deadline=None, max_examples=25)
@given(
    weights=st.lists(st.floats(0.2, 20), min_size=2, max_size=3),
    world=st.integers(1, 4),
    epoch=st.integers(0, 3),
    start=st.integers(0, 40),
    seed=st.integers(0, 2**31),
)
def test_ranks_draw_their_shares_and_resume_exactly(part, weights, world, epoch, start, seed):
    sizes = (30, 70, 50)[: len(weights)]
    mixture = Mixture([part(size) for size in sizes], weights, seed)
    drawn = []
    for rank in range(world):
        sampler = EpochSampler(mixture, seed=seed, rank=rank, world_size=world, drop_last=False)
        sampler.set_epoch(epoch)
        indices = list(sampler)
        resumed = EpochSampler(Mixture(mixture.parts, weights, seed), seed=seed, rank=rank, world_size=world)
        resumed.load_state_dict({"epoch": epoch, "start_index": start})
        assert list(resumed) == indices[: len(resumed)][start:]
        drawn += indices
    assert len(set(drawn)) == len(drawn) == len(mixture)  # no draw twice, none forgotten
    numbers, items = mixture.draw(drawn)
    counts = np.bincount(numbers, minlength=len(weights))
    assert (np.abs(counts / len(mixture) - np.array(weights) / sum(weights)) <= 1 / len(mixture)).all()
    for number, size in enumerate(sizes):  # without replacement, as far as it goes
        often = np.bincount(items[numbers == number], minlength=size)
        assert often.max() <= -(-counts[number] // size) + 1


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 2**31), weight=st.floats(0.5, 5))
def test_any_stretch_of_a_training_has_the_shares_within_sampling_error(part, seed, weight):
    mixture = Mixture([part(3000), part(500)], [weight, 1], seed)
    order = np.array(list(EpochSampler(mixture, seed=seed)))
    share = weight / (weight + 1)
    for stretch in (order[:1000], order[1000:2000]):
        got = float((mixture.draw(stretch)[0] == 0).mean())
        assert abs(got - share) < 5 * np.sqrt(share * (1 - share) / 1000)


@settings(deadline=None, max_examples=25)
@given(share=st.floats(0.1, 0.9), seed=st.integers(0, 2**31))
def test_validation_is_of_whole_episodes_and_the_same_each_time(many, share, seed):
    first, again = many.split(share, seed), many.split(share, seed)
    assert [part.episodes.tolist() for part in first] == [part.episodes.tolist() for part in again]
    training, validation = (set(part.episodes.tolist()) for part in first)
    assert not training & validation
    assert training | validation == set(many.episodes.tolist())
    assert len(validation) == round(share * 20)
