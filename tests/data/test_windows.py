"""Windows: the right frames, repeated where an episode ends, in one gather."""

from __future__ import annotations

import json
import pickle

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from menura.data import Episode, Windows, build_store, collate, compute_statistics, windows
from menura.errors import DataError


def numbered(make_reader, lengths, **options):
    """A reader whose action and state in row r of the dataset are r."""
    reader = make_reader(lengths, state_dim=1, action_dim=1, **options)
    starts = np.concatenate([[0], np.cumsum(lengths)])
    plain = reader.episode

    def episode(index):
        rows = np.arange(starts[index], starts[index + 1], dtype=np.float32)[:, None]
        return type(plain(index))(state=rows, action=rows, images=plain(index).images, task=f"task {index}", fps=10.0)

    reader.episode = episode
    return reader


# Episodes 0 1 2 | 3 4; observations at -1, 0; actions at 0, 1, 2.
TABLE = [
    # item, state rows, observation_is_pad, action rows, is_pad, task, timestep
    (0, [0, 0], [True, False], [0, 1, 2], [False, False, False], "task 0", 0),
    (1, [0, 1], [False, False], [1, 2, 2], [False, False, True], "task 0", 1),
    (2, [1, 2], [False, False], [2, 2, 2], [False, True, True], "task 0", 2),
    (3, [3, 3], [True, False], [3, 4, 4], [False, False, True], "task 1", 0),
    (4, [3, 4], [False, False], [4, 4, 4], [False, True, True], "task 1", 1),
]


@pytest.mark.parametrize("row", TABLE, ids=[f"item {row[0]}" for row in TABLE])
def test_hand_written_table(make_reader, tmp_path, row):
    index, state, observation_is_pad, actions, is_pad, task, timestep = row
    data = windows(numbered(make_reader, [3, 2]), (-1, 0), (0, 1, 2), cache_dir=tmp_path, progress=False)
    item = data[index]
    assert item["state"].ravel().tolist() == state
    assert item["observation_is_pad"].tolist() == observation_is_pad
    assert item["actions"].ravel().tolist() == actions
    assert item["is_pad"].tolist() == is_pad
    assert item["task"] == task
    assert item["timestep"] == timestep
    assert item["dataset_id"] == 0


def test_one_observation_offset_has_no_time_axis(make_reader, tmp_path):
    data = windows(numbered(make_reader, [3, 2]), (1,), (-1, 5), cache_dir=tmp_path, progress=False)
    batch = data.__getitems__([0, 2, 3])
    assert batch["state"].tolist() == [[1], [2], [4]]
    assert batch["actions"][..., 0].tolist() == [[0, 2], [1, 2], [3, 4]]
    assert batch["is_pad"].tolist() == [[True, True], [False, True], [True, True]]
    assert "observation_is_pad" not in batch


def test_no_action_offsets_give_one_action_without_a_time_axis(make_reader, tmp_path):
    data = windows(numbered(make_reader, [3, 2]), (0,), None, cache_dir=tmp_path, progress=False)
    batch = data.__getitems__([4, 0])
    assert batch["actions"].tolist() == [[4], [0]]
    assert batch["is_pad"].tolist() == [False, False]
    assert data[1]["is_pad"].shape == ()


offset_lists = st.lists(st.integers(-6, 12), min_size=1, max_size=6)


@settings(max_examples=40, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 9), min_size=1, max_size=5),
    observations=offset_lists,
    actions=offset_lists,
    data=st.data(),
)
def test_a_batch_equals_items_sliced_one_by_one(make_reader, tmp_path_factory, lengths, observations, actions, data):
    reader = make_reader(lengths, cameras={"top": (2, 3), "side": (2, 3)})
    store = build_store(reader, cache_dir=tmp_path_factory.getbasetemp() / "property", progress=False, num_workers=0)
    view = Windows(store, observations, actions)
    indices = data.draw(st.lists(st.integers(0, sum(lengths) - 1), min_size=1, max_size=8))
    batch = view.__getitems__(indices)
    owners = [(episode, step) for episode, length in enumerate(lengths) for step in range(length)]
    for row, index in enumerate(indices):
        number, step = owners[index]
        episode, last = reader.episode(number), lengths[number] - 1
        observed = [min(max(step + offset, 0), last) for offset in observations]
        acted = [min(max(step + offset, 0), last) for offset in actions]
        state = episode.state[observed]
        image = np.stack([episode.images["top"][observed], episode.images["side"][observed]], axis=1)
        if len(observations) == 1:
            state, image = state[0], image[0]
        else:
            inside = [0 <= step + offset <= last for offset in observations]
            np.testing.assert_array_equal(batch["observation_is_pad"][row], np.logical_not(inside))
        np.testing.assert_array_equal(batch["state"][row], state)
        np.testing.assert_array_equal(batch["image"][row], image)
        np.testing.assert_array_equal(batch["actions"][row], episode.action[acted])
        np.testing.assert_array_equal(batch["is_pad"][row], [not 0 <= step + offset <= last for offset in actions])
        assert batch["task"][row] == episode.task
        assert batch["timestep"][row] == step
        assert view.episode_of(index) == number


def test_items_equal_rows_of_the_batch(make_reader, tmp_path):
    data = windows(make_reader([4, 6], cameras={"top": (2, 3)}), (-2, 0), range(3), cache_dir=tmp_path, progress=False)
    batch = data.__getitems__(list(range(len(data))))
    for index in range(len(data)):
        for key, value in data[index].items():
            np.testing.assert_array_equal(value, batch[key][index])


def test_a_users_own_class(tmp_path):
    class MyData:
        def __len__(self):
            return 2

        def episode(self, index):
            rows = np.arange(3, dtype=np.float32)[:, None] + 10 * index
            images = {"top": np.full((3, 4, 4, 3), index, np.uint8)}
            return Episode(state=rows, action=rows, images=images, task="lift", fps=10.0)

    data = windows(MyData(), action_offsets=range(2), cache_dir=tmp_path, progress=False)
    batch = data.__getitems__([1, 5])
    assert batch["actions"].tolist() == [[[1], [2]], [[12], [12]]]
    assert batch["image"].shape == (2, 1, 4, 4, 3)
    assert batch["image"][1].max() == 1
    assert data.fps == 10


def test_cameras_of_different_sizes_come_as_a_dict(make_reader, tmp_path):
    reader = make_reader([3, 4], cameras={"top": (4, 6), "wrist": (2, 2)})
    data = windows(reader, (-1, 0), cache_dir=tmp_path, progress=False, num_workers=0)
    image = data.__getitems__([0, 3, 6])["image"]
    assert {camera: frames.shape for camera, frames in image.items()} == {
        "top": (3, 2, 4, 6, 3),
        "wrist": (3, 2, 2, 2, 3),
    }
    np.testing.assert_array_equal(image["wrist"][2], reader.episode(1).images["wrist"][2:4])
    resized = windows(reader, image_size=(4, 6), cache_dir=tmp_path, progress=False, num_workers=0)
    assert resized.__getitems__([0])["image"].shape == (1, 2, 4, 6, 3)
    assert resized.features.cameras["wrist"].height == 4


def test_no_state_and_no_cameras_give_no_such_keys(make_reader, tmp_path):
    data = windows(make_reader([3], state_dim=0), cache_dir=tmp_path, progress=False)
    assert set(data[0]) == {"actions", "is_pad", "task", "timestep", "dataset_id"}
    assert set(data.statistics()) == {"action"}


@pytest.mark.parametrize("name", ["lerobot_v3_video", "lerobot_v3_image", "lerobot_v3_many_files"])
def test_lerobots_own_samples(fixtures, golden, tmp_path, name):
    expected = golden(name)
    data = windows(fixtures / name, (-1, 0), range(8), cache_dir=tmp_path, progress=False)
    indices = expected["indices"].tolist()
    batch = data.__getitems__(indices)
    cameras = list(data.features.cameras)
    for row, index in enumerate(indices):
        of = {key.removeprefix(f"{index}/"): value for key, value in expected.items() if key.startswith(f"{index}/")}
        np.testing.assert_array_equal(batch["state"][row], of["observation.state"])
        np.testing.assert_array_equal(batch["observation_is_pad"][row], of["observation.state_is_pad"])
        np.testing.assert_array_equal(batch["actions"][row], of["action"])
        np.testing.assert_array_equal(batch["is_pad"][row], of["action_is_pad"])
        assert batch["task"][row] == str(of["task"])
        assert batch["timestep"][row] == of["frame_index"]
        for number, camera in enumerate(cameras):
            image = batch["image"]
            frames = image[camera][row] if isinstance(image, dict) else image[row][:, number]
            theirs = of[f"observation.images.{camera}"].transpose(0, 2, 3, 1)
            assert np.abs(frames.astype(int) - theirs.astype(int)).mean() <= 2


@pytest.mark.parametrize("index", [-1, 5, 100])
def test_index_out_of_range(make_reader, tmp_path, index):
    data = windows(make_reader([3, 2]), cache_dir=tmp_path, progress=False)
    with pytest.raises(IndexError, match=r"expected indices 0 … 4"):
        data.__getitems__([0, index])


@pytest.mark.parametrize("offsets", [(), (0.5,), ("a",), 3])
def test_offsets_must_be_whole_frames(make_reader, tmp_path, offsets):
    with pytest.raises(DataError, match="observation_offsets: expected one or more whole numbers of frames"):
        windows(make_reader([3]), offsets, cache_dir=tmp_path, progress=False)


def test_split_by_episodes(make_reader, tmp_path):
    data = windows(make_reader([3, 4, 5, 6]), cache_dir=tmp_path, progress=False)
    training, validation = data.split(0.25, seed=3)
    assert sorted([*training.episodes, *validation.episodes]) == [0, 1, 2, 3]
    assert len(validation.episodes) == 1
    assert len(training) + len(validation) == len(data)
    assert data.split(0.25, seed=3)[1].episodes.tolist() == validation.episodes.tolist()
    training, validation = data.split([1, 2])
    assert validation.episodes.tolist() == [1, 2]
    assert validation.lengths.tolist() == [4, 5]
    np.testing.assert_array_equal(validation[4]["actions"], data[7]["actions"])
    assert validation.episode_of(4) == 2
    with pytest.raises(DataError, match=r"expected a share that leaves episodes on both sides of 4, got 0\.01"):
        data.split(0.01)
    with pytest.raises(DataError, match=r"episodes: expected one or more different numbers 0 … 3, got \[4\]"):
        data.split([4])


def test_statistics_are_exact_and_kept_in_the_store(make_reader, tmp_path):
    data = windows(make_reader([30, 20, 10]), (-1, 0), range(8), cache_dir=tmp_path, progress=False)
    rows = np.concatenate([np.asarray(data.store.action[0:30]), np.asarray(data.store.action[50:60])])
    part = data.split([1])[0]
    for _ in range(2):  # computed, then read back
        statistics, expected = part.statistics()["action"], compute_statistics(rows)
        for name in ("mean", "std", "min", "max", "q01", "q99"):
            np.testing.assert_allclose(getattr(statistics, name), getattr(expected, name), rtol=1e-12)
        assert statistics.count == 40
    kept = sorted(data.store.directory.glob("statistics.*.json"))
    assert len(kept) == 2
    changed = json.loads(kept[0].read_text())
    kept[0].write_text(json.dumps({**changed, "count": 7}))
    assert part.statistics()["action"].count == 7
    assert data.statistics()["action"].count == 60


def test_pickled_windows_are_small_and_mapped(make_reader, tmp_path):
    data = windows(make_reader([500] * 4, cameras={"top": (8, 8)}), range(-3, 1), cache_dir=tmp_path, progress=False)
    sent = pickle.dumps(data.split([1, 2])[1])
    assert len(sent) < 2000
    again = pickle.loads(sent)
    assert isinstance(again.store.state, np.memmap)
    assert isinstance(again.store.stacked, np.memmap)
    assert again.episodes.tolist() == [1, 2]
    np.testing.assert_array_equal(again[999]["image"], data[1499]["image"])


@pytest.mark.parametrize("context", ["fork", "spawn"])
def test_dataloader_workers(make_reader, tmp_path, context):
    data = windows(make_reader([9, 8], cameras={"top": (4, 4)}), cache_dir=tmp_path, progress=False, num_workers=0)
    loader = DataLoader(data, batch_size=5, num_workers=1, collate_fn=collate, multiprocessing_context=context)
    batches = list(loader)
    assert [len(batch["task"]) for batch in batches] == [5, 5, 5, 2]
    expected = data.__getitems__(list(range(17)))
    for key in ("state", "image", "actions"):
        np.testing.assert_array_equal(torch.cat([batch[key] for batch in batches]), expected[key])


def test_batches_are_fresh_and_writable(make_reader, tmp_path):
    data = windows(make_reader([9], cameras={"top": (4, 4)}), cache_dir=tmp_path, progress=False, num_workers=0)
    first = data.__getitems__([0, 1])
    kept = first["image"].copy()
    first["image"][:] = 0
    np.testing.assert_array_equal(data.__getitems__([0, 1])["image"], kept)
