"""Filters: which episodes and frames of a dataset are used."""

from __future__ import annotations

import pickle
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from menura.config import load_task
from menura.data import Episode, EpochSampler, Mixture, compute_statistics, open_dataset, windows
from menura.data.motion import Motion
from menura.data.selection import Filter, require_names
from menura.errors import ConfigError, DataError
from menura.features import Features, VectorFeature

LENGTHS = [10, 60, 30, 80, 55, 5]


class Recorded:
    """Six episodes: facts of their own, a state that counts, an unknown success where asked for."""

    name = "recorded"
    features = Features(VectorFeature(("x", "left arm")), VectorFeature(("push",)), fps=10)

    def __init__(self, unknown=()):
        self.unknown = unknown

    def __len__(self):
        return len(LENGTHS)

    def episode(self, index):
        steps = np.arange(LENGTHS[index], dtype=np.float32)
        return Episode(
            np.stack([steps, 0 * steps + index], axis=1),
            100 * index + steps[:, None],
            task="pick" if index % 2 else "place",
            fps=10,
            success=None if index in self.unknown else index != 3,
            seed=index + 7,
            extra={"operator": "ann" if index < 3 else "bob"} | ({"rating": 5} if index == 1 else {}),
        )


@pytest.fixture(scope="module")
def filtered(tmp_path_factory):
    cache = tmp_path_factory.mktemp("selection")

    def make(filter, dataset=None, **options):
        return windows(dataset or Recorded(), filter=filter, cache_dir=cache, progress=False, num_workers=0, **options)

    return make


@pytest.mark.parametrize(
    ("filter", "episodes"),
    [
        ({}, [0, 1, 2, 3, 4, 5]),
        ({"episodes": [4, 1]}, [1, 4]),
        ({"episodes": "length > 50 and task == 'pick'"}, [1, 3]),
        ({"episodes": "operator == 'ann' or seed == 12"}, [0, 1, 2, 5]),
        ({"episodes": "rating == 5"}, [1]),
        ({"episodes": "index % 2 == 0", "first": 2}, [0, 2]),
        ({"success": True}, [0, 1, 2, 4, 5]),
        ({"episodes": "length > 50", "success": True, "first": 9}, [1, 4]),
        ({"episodes": "success", "first": 4}, [0, 1, 2, 4]),
    ],
)
def test_episodes(filtered, filter, episodes):
    items = filtered(filter)
    assert items.episodes.tolist() == episodes
    assert items.lengths.tolist() == [LENGTHS[episode] for episode in episodes]
    assert len(items) == sum(LENGTHS[episode] for episode in episodes)


def test_a_success_nobody_knows_is_asked_for(filtered):
    unknown = Recorded(unknown=(2, 4))
    with pytest.raises(DataError, match=r"filter.success of 'recorded': .* got 2 of 6 that do not, the first is 2"):
        filtered({"success": True}, unknown)
    assert filtered({"success": True, "episodes": [0, 1]}, unknown).episodes.tolist() == [0, 1]
    with pytest.raises(DataError, match=r"episode 2: 'success and length > 3': .*success = None"):
        filtered({"episodes": "success and length > 3"}, unknown)


def test_frames_begin_windows_and_the_chunk_stays_the_true_future(filtered):
    items = filtered({"frames": "timestep % 2 == 1 and state.x < 8"}, action_offsets=range(4))
    assert items.lengths.tolist() == [4, 4, 4, 4, 4, 2]
    batch = items.__getitems__(range(len(items)))
    assert batch["timestep"].tolist() == [1, 3, 5, 7] * 5 + [1, 3]
    np.testing.assert_array_equal(batch["actions"][4, :, 0], [101, 102, 103, 104])
    assert batch["is_pad"][3].tolist() == [False, False, False, True]  # frame 7 of an episode of 10
    assert [items.episode_of(index) for index in (0, 4, 21)] == [0, 1, 5]
    assert batch["task"][4] == "pick"


@pytest.mark.parametrize(
    ("expression", "count"),
    [
        ("time >= 5", 10 + 30 + 5),
        ("timestep == length - 1", 6),
        ("speed > 9.99 and speed < 10.01", sum(LENGTHS)),
        ('state["left arm"] == 3', 80),
        ("action.push > 500", 4),
        ("task == 'pick' and timestep == 0", 3),
        ("index == 2", 30),
    ],
)
def test_columns_of_frames(filtered, expression, count):
    assert len(filtered({"frames": expression})) == count


def test_episodes_without_a_frame_are_left_out(filtered):
    items = filtered({"frames": "timestep > 50"})
    assert items.episodes.tolist() == [1, 3, 4]
    assert items.lengths.tolist() == [9, 29, 4]


def test_a_filter_shares_the_store_and_tells_trainings_apart(filtered):
    everything, some, others = filtered({}), filtered({"first": 3}), filtered({"frames": "timestep > 1"})
    assert everything.store.directory == some.store.directory == others.store.directory
    assert everything.fingerprint == everything.store.fingerprint
    assert len({everything.fingerprint, some.fingerprint, others.fingerprint}) == 3
    assert some.fingerprint == filtered({"first": 3}).fingerprint
    assert some.split([0])[0].fingerprint == some.fingerprint
    assert everything.rows is None
    assert some.rows is None


def test_statistics_are_those_of_what_is_trained(filtered):
    items = filtered({"episodes": "length > 20", "frames": "timestep < 5"})
    states = items.__getitems__(range(len(items)))["state"]
    np.testing.assert_allclose(items.statistics()["state"].mean, compute_statistics(states).mean)
    np.testing.assert_allclose(items.statistics()["state"].max, [4, 4])
    assert items.statistics()["state"].count == 20


def test_split_and_pickle_keep_the_filter(filtered):
    items = filtered({"frames": "timestep % 3 == 0"}, action_offsets=range(3))
    training, validation = items.split(0.5, seed=1)
    assert sorted([*training.episodes, *validation.episodes]) == list(range(6))
    assert len(training) + len(validation) == len(items)
    for part in (training, validation, pickle.loads(pickle.dumps(validation))):
        batch = part.__getitems__(range(len(part)))
        assert set(batch["timestep"] % 3) == {0}
        assert {int(value) for value in batch["state"][:, 1]} == set(part.episodes.tolist())


def test_ranks_share_the_frames_that_are_left(filtered):
    """Alone and in a mixture: no frame of one twice, none that was filtered out."""

    class Others(Recorded):
        name = "others"

    some = filtered({"frames": "timestep % 3 == 1"})
    others = filtered({"episodes": [0, 1], "frames": "timestep > 3"}, Others())
    alone = [list(EpochSampler(some, seed=2, rank=rank, world_size=3, drop_last=False)) for rank in range(3)]
    assert sorted(item for items in alone for item in items) == list(range(len(some)))
    batch = some.__getitems__([item for items in alone for item in items])
    assert set(batch["timestep"] % 3) == {1}
    mixture = Mixture([some, others], [2, 1])
    ranks = [list(EpochSampler(mixture, seed=2, rank=rank, world_size=3, drop_last=False)) for rank in range(3)]
    drawn = [index for indices in ranks for index in indices]
    assert sorted(drawn) == list(range(len(mixture)))
    batch = mixture.__getitems__(drawn)
    first = batch["dataset_id"] == 0
    assert abs(int(first.sum()) - 2 * len(mixture) / 3) <= 1
    assert set(batch["timestep"][first] % 3) == {1}
    assert batch["timestep"][~first].min() == 4


@pytest.mark.parametrize(
    ("filter", "message"),
    [
        (
            {"episodes": "length > 50", "success": True, "frames": "timestep > 60"},
            r"6 episodes, 3 after episodes 'length > 50', 2 after success, 0 frames after frames 'timestep",
        ),
        ({"episodes": "length > 500"}, r"6 episodes, 0 after episodes 'length > 500'"),
        ({"episodes": [3, 6]}, r"filter.episodes of 'recorded': expected numbers of its episodes, 0 … 5, got 6"),
        ({"episodes": "lenght > 5"}, r"no such name: 'lenght'; did you mean length\?$"),
        ({"episodes": "colour == 3"}, r"no such name: 'colour'. Known are .*operator"),
        ({"frames": "state.y > 5"}, r"no such name: 'state.y'; did you mean state.x"),
        ({"frames": "speed"}, r"episode 0: 'speed': expected true or false, got a column of 10"),
    ],
)
def test_what_cannot_be_is_told(filtered, filter, message):
    with pytest.raises(DataError, match=message):
        filtered(filter)


def test_names_are_looked_up_in_one_episode_and_in_all_before_one_is_unknown(make_reader):
    read = []
    reader = make_reader([10, 12, 9], hook=read.append)
    require_names(reader, Filter(episodes="length > 5 and seed != 3", frames="state.s_0 > 0 and timestep > 2"))
    assert set(read) == {0}
    with pytest.raises(DataError, match=r"^filter.frames of 'arrays': .*no such name: 'state.s_9'; did you mean state"):
        require_names(reader, Filter(frames="state.s_9 > 0"))
    reader.metadata = lambda index: {"operator": "ada"} if index == 2 else {}
    require_names(reader, Filter(episodes="operator == 'ada'"))


def test_wrong_filters_are_refused_before_a_store_is_built(tmp_path):
    for filter, message in (({"frame": "x > 1"}, "did you mean frames"), ({"frames": "x >"}, "filter.frames")):
        with pytest.raises(ConfigError, match=message):
            windows(Recorded(), filter=filter, cache_dir=tmp_path)
    assert not (tmp_path / "store").exists()


def test_expressions_are_checked_with_the_configuration(tmp_path):
    task = tmp_path / "configs" / "task" / "t.yaml"
    task.parent.mkdir(parents=True)
    (tmp_path / "data").mkdir()
    task.write_text(
        "policy: {class: MLPPolicy}\n"
        "datasets:\n"
        "  - path: data\n"
        "    format: menura\n"
        "    filter:\n"
        "      episodes: length > \n"
        "      frames: open('x') == 1\n"
    )
    with pytest.raises(ConfigError) as error:
        load_task(task)
    assert "datasets.0.filter.episodes: expected an expression" in str(error.value)
    assert "(configs/task/t.yaml:6)" in str(error.value)
    assert "datasets.0.filter.frames: no such function: open" in str(error.value)


def test_a_spec_brings_its_filter(tmp_path):
    (tmp_path / "ten.py").write_text(
        "import numpy as np\nfrom menura.data import Episode\n\n"
        "class Ten:\n"
        "    def __len__(self):\n        return 10\n"
        "    def episode(self, index):\n        return Episode(np.ones((5, 2)), np.ones((5, 2)), fps=10)\n"
    )
    spec = {"class": f"{tmp_path}/ten.py:Ten", "filter": {"first": 4}}
    assert len(windows(spec, cache_dir=tmp_path, progress=False)) == 20


# --- idle


def test_idle_heads_and_tails_are_left_out(filtered):
    rng = np.random.default_rng(0)

    class Resting:
        """Rests for 5 + index frames, moves for 20, rests for 7; with the noise of an encoder and a quick gripper."""

        def __len__(self):
            return 4

        def episode(self, index):
            if index == 3:  # never moves: who could say what of it is idle?
                still = np.zeros((12, 3), np.float32)
                return Episode(still, still[:, :2], fps=10)
            head, steps = 5 + index, np.linspace(0, 2, 20)
            x = np.concatenate([np.zeros(head), steps, np.full(7, 2.0)])
            gripper = (x > 1).astype(np.float64)
            noisy = x + rng.normal(0, 1e-4, len(x))
            return Episode(np.stack([noisy, 0 * x, gripper], axis=1), np.stack([x, gripper], axis=1), fps=10)

    items = filtered({"idle": True}, Resting())
    assert items.episodes.tolist() == [0, 1, 2, 3]
    batch = items.__getitems__(range(len(items)))
    starts = np.cumsum([0, *items.lengths])[:-1]
    assert batch["timestep"][starts].tolist() == [5, 6, 7, 0]  # the last frame at rest is the one that sets out
    assert items.lengths.tolist() == [20, 20, 20, 12]


@settings(max_examples=50)
@given(head=st.integers(0, 10), body=st.integers(2, 20), tail=st.integers(0, 10), scale=st.floats(1e-3, 1e3))
def test_idle_does_not_depend_on_units(head, body, tail, scale):
    x = np.concatenate([np.zeros(head), np.arange(body), np.full(tail, body - 1.0)])[:, None].astype(np.float32) * scale
    episode = Episode(x, x, fps=10)
    assert Motion.measured([episode]).span(episode) == (head, head + body)


def test_filters_are_equal_by_what_they_say():
    assert Filter.of({"episodes": [1, 2]}) == Filter(episodes=(1, 2))
    assert Filter.of(None).identity == ""
    assert Filter.of({"idle": False}).identity == ""
    assert replace(Filter(), first=3).identity != replace(Filter(), first=4).identity != ""


def test_a_reader_is_opened_with_its_episodes_filtered(tmp_path):
    (tmp_path / "dataset").mkdir()
    (tmp_path / "dataset" / "ten.py").write_text(
        "import numpy as np\nfrom menura.data import Episode\n\n"
        "class Ten:\n"
        "    def __len__(self):\n        return 10\n"
        "    def episode(self, index):\n"
        "        return Episode(np.ones((5 + index, 2)), np.ones((5 + index, 2)), fps=10, success=index > 2)\n"
    )
    spec = {"class": "Ten", "filter": {"episodes": "length < 12", "success": True, "first": 3}}
    reader = open_dataset(spec, project=tmp_path)
    assert reader.lengths().tolist() == [8, 9, 10]
    assert reader.fingerprint() != open_dataset({"class": "Ten"}, project=tmp_path).fingerprint()
    with pytest.raises(ConfigError, match=r"filter.idle: .* the wrapper Trim"):
        open_dataset({"class": "Ten", "filter": {"idle": True}}, project=tmp_path)
