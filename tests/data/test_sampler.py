"""The order of samples is a pure function of seed, epoch and rank."""

from __future__ import annotations

import time
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from menura.data import EpochSampler, Mixture, collate, windows
from menura.errors import DataError


def ranks(size, world, **options):
    return [EpochSampler(range(size), seed=1, rank=rank, world_size=world, **options) for rank in range(world)]


@settings(deadline=None)
@given(size=st.integers(1, 300), world=st.integers(1, 5), seed=st.integers(0, 2**40), epoch=st.integers(0, 50))
def test_ranks_share_every_item_once(size, world, seed, epoch):
    if size < world:
        return
    parts = []
    for rank in range(world):
        sampler = EpochSampler(range(size), seed=seed, rank=rank, world_size=world, drop_last=False)
        sampler.set_epoch(epoch)
        parts.append(list(sampler))
        assert len(sampler) == len(parts[-1])
    assert sorted(index for part in parts for index in part) == list(range(size))


@settings(deadline=None)
@given(size=st.integers(5, 300), world=st.integers(1, 5))
def test_drop_last_gives_every_rank_as_many(size, world):
    parts = [list(sampler) for sampler in ranks(size, world)]
    assert {len(part) for part in parts} == {size // world}
    assert len({index for part in parts for index in part}) == world * (size // world)


def test_order_depends_on_seed_and_epoch_alone():
    first, second = EpochSampler(range(100), seed=1), EpochSampler(range(100), seed=1)
    assert list(first) == list(first) == list(second)
    second.set_epoch(1)
    assert list(first) != list(second)
    second.set_epoch(0)
    assert list(first) == list(second)
    assert list(first) != list(EpochSampler(range(100), seed=2))
    assert list(first) != list(range(100))


@settings(deadline=None)
@given(size=st.integers(2, 9000), start=st.integers(0, 9000), epoch=st.integers(0, 3))
def test_resume_goes_on_where_it_was(size, start, epoch):
    whole = EpochSampler(range(size), seed=3, world_size=2, rank=1)
    whole.set_epoch(epoch)
    resumed = EpochSampler(range(size), seed=3, world_size=2, rank=1)
    resumed.load_state_dict({"epoch": epoch, "start_index": start})
    assert resumed.state_dict() == {"epoch": epoch, "start_index": start}
    assert list(resumed) == list(whole)[start:]
    assert len(resumed) == len(whole)
    resumed.set_epoch(epoch)  # what a training loop calls when it goes on
    assert list(resumed) == list(whole)[start:]
    resumed.set_epoch(epoch + 1)
    whole.set_epoch(epoch + 1)
    assert list(resumed) == list(whole)


def test_memory_and_start_do_not_depend_on_the_size():
    sampler = EpochSampler(range(10**12), seed=0)
    sampler.load_state_dict({"epoch": 2, "start_index": 10**11})
    tracemalloc.start()
    start = time.process_time()
    indices = iter(sampler)
    assert all(0 <= next(indices) < 10**12 for _ in range(1000))
    assert tracemalloc.get_traced_memory()[1] < 2e6
    assert time.process_time() - start < 5
    tracemalloc.stop()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rank": 2, "world_size": 2}, r"EpochSampler\.rank: expected 0 … 1, got 2"),
        ({"world_size": 4}, "expected at least 4 items, one a rank, got 3"),
        ({"seed": -1}, r"EpochSampler\.seed: expected a whole number ≥ 0, got -1"),
    ],
)
def test_wrong_arguments(options, message):
    with pytest.raises(DataError, match=message):
        EpochSampler(range(3), **{"seed": 0, **options})


def test_a_mixture_goes_on_in_the_next_epoch(make_reader, tmp_path):
    parts = [windows(make_reader([size], name=f"part {size}"), cache_dir=tmp_path, progress=False) for size in (10, 30)]
    mixture = Mixture(parts, [1, 1])
    sampler = EpochSampler(mixture, seed=0)
    seen = []
    for epoch in range(3):
        sampler.set_epoch(epoch)
        indices = list(sampler)
        assert sorted(indices) == list(range(40 * epoch, 40 * epoch + 40))
        seen += [(int(part), int(item)) for part, item in zip(*mixture.draw(indices), strict=True)]
    assert sorted(seen) == sorted([(0, item) for item in range(10)] * 6 + [(1, item) for item in range(30)] * 2)


def test_dataloader(make_reader, tmp_path):
    data = windows(make_reader([9, 8]), cache_dir=tmp_path, progress=False)
    sampler = EpochSampler(data, seed=0)
    loader = DataLoader(data, batch_size=4, sampler=sampler, collate_fn=collate, num_workers=1)
    frames = [
        (task, int(step)) for batch in loader for task, step in zip(batch["task"], batch["timestep"], strict=True)
    ]
    order = [data[index] for index in sampler]
    assert frames == [(item["task"], int(item["timestep"])) for item in order]
