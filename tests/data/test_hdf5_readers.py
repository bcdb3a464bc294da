"""What all HDF5 readers share: order, keys, laziness, pickling and forking, damage, selection, fingerprints."""

from __future__ import annotations

import multiprocessing
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from menura.data import open_dataset, windows
from menura.data.readers import hdf5 as hdf5_module
from menura.data.readers.hdf5 import OpenFiles, gather, hdf5_files, hdf5_format, natural_key
from menura.data.readers.hdf5_frames import Hdf5Frames
from menura.errors import DataError

Make = Callable[..., list[dict[str, Any]]]


@pytest.fixture
def aloha(tmp_path: Path, make_aloha: Make) -> Path:
    make_aloha(tmp_path / "aloha", [4] * 12)
    return tmp_path / "aloha"


def test_natural_order() -> None:
    names = ["demo_10", "demo_2", "demo_1b", "demo_1", "a", "demo_02"]
    assert sorted(names, key=natural_key) == ["a", "demo_1", "demo_1b", "demo_2", "demo_02", "demo_10"]


def test_files_in_natural_order_without_unfinished_ones(aloha: Path) -> None:
    (aloha / ".tmp-x-episode_3.hdf5").write_bytes(b"half")
    assert [file.stem for file in hdf5_files(aloha)] == [f"episode_{i}" for i in range(12)]
    assert open_dataset(aloha).lengths().tolist() == [4] * 12


def test_no_files(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"expected HDF5 files \(\.hdf5, \.h5\), found none"):
        hdf5_files(tmp_path)


@pytest.mark.parametrize("kind", ["aloha", "robomimic", "libero", "minari"])
def test_recognised(tmp_path: Path, request: pytest.FixtureRequest, kind: str) -> None:
    path = tmp_path / ("data" if kind in ("aloha", "minari") else "data.hdf5")
    request.getfixturevalue(f"make_{kind}")(path)
    assert hdf5_format(hdf5_files(path)[0]) == kind


def test_not_recognised(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "x.hdf5", "w") as file:
        file["numbers"] = np.zeros(3)
    assert hdf5_format(tmp_path / "x.hdf5") is None
    with pytest.raises(DataError, match="expected files of one of"):
        open_dataset(tmp_path / "x.hdf5")


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    numbers=st.lists(st.integers(0, 29), max_size=40),
    chunk=st.sampled_from([None, 1, 4, 30]),
)
def test_gather_is_indexing(tmp_path_factory: pytest.TempPathFactory, numbers: list[int], chunk: int | None) -> None:
    path = tmp_path_factory.mktemp("gather") / "x.hdf5"
    rows = np.arange(60).reshape(30, 2)
    with h5py.File(path, "w") as file:
        dataset = file.create_dataset("x", data=rows, chunks=chunk and (chunk, 2))
        got = gather(dataset, np.array(numbers, np.int64))
    np.testing.assert_array_equal(got, rows[numbers] if numbers else rows[:0])


def test_frames_act_like_an_array(tmp_path: Path, make_aloha: Make) -> None:
    (wrote,) = make_aloha(tmp_path / "a", [9])
    frames, pixels = open_dataset(tmp_path / "a").episode(0).images["cam_high"], wrote["frames"]["cam_high"]
    assert isinstance(frames, Hdf5Frames)
    assert frames.shape == pixels.shape
    for index in (3, -1, slice(2, 7, 2), [5, 0, 5, 8], np.array([True, False] * 4 + [True])):
        np.testing.assert_array_equal(frames[index], pixels[index])
    np.testing.assert_array_equal(np.stack(list(frames)), pixels)
    np.testing.assert_array_equal(np.asarray(frames), pixels)


def test_one_by_one_reads_whole_chunks(tmp_path: Path, make_robomimic: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    wrote = make_robomimic(tmp_path / "x.hdf5", [40], cameras=["agentview"], chunks=True)
    frames = open_dataset(tmp_path / "x.hdf5").episode(0).images["agentview"]
    reads = []
    read = Hdf5Frames.read
    monkeypatch.setattr(Hdf5Frames, "read", lambda self, numbers: reads.append(len(numbers)) or read(self, numbers))
    np.testing.assert_array_equal(np.stack(list(frames)), wrote[0]["agentview_image"])  # type: ignore[call-overload]
    assert reads == [40]


def test_nothing_is_read_before_it_is_asked_for(aloha: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Hdf5Frames, "read", lambda *_: pytest.fail("a frame was read"))
    reader = open_dataset(aloha)
    assert len(reader) == 12
    assert reader.lengths().sum() == 48
    assert reader.fingerprint()
    assert reader.episode(3).images["cam_high"].shape == (4, 24, 32, 3)


def test_images_and_tasks_alone(tmp_path: Path, make_libero: Make) -> None:
    wrote = make_libero(tmp_path / "x.hdf5", [3, 2])
    reader = open_dataset(tmp_path / "x.hdf5")
    assert reader.tasks() == ["put the bowl on the plate"] * 2
    np.testing.assert_array_equal(reader.images(1)["agentview"][:], wrote[1]["agentview_rgb"])
    with pytest.raises(IndexError):
        reader.images(2)


def test_an_episode_of_no_steps(tmp_path: Path, make_aloha: Make) -> None:
    make_aloha(tmp_path, [4, 4])
    with h5py.File(tmp_path / "episode_1.hdf5", "a") as file:
        del file["action"]
        file["action"] = np.zeros((0, 14))
    reader = open_dataset(tmp_path)
    with pytest.raises(DataError, match=r"episode_1\.hdf5:/action: expected at least 1 step, got none"):
        reader.episode(1)
    with pytest.raises(DataError, match=r"episode_1\.hdf5:/action: expected at least 1 step"):
        reader.lengths()


def test_a_depth_map_is_no_camera(aloha: Path) -> None:
    with h5py.File(aloha / "episode_0.hdf5", "a") as file:
        file["observations/images/cam_depth"] = np.zeros((4, 24, 32), np.uint16)
    assert list(open_dataset(aloha).features.cameras) == ["cam_high"]


def test_only_the_first_file_is_opened_to_open_a_directory(aloha: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = []
    real = h5py.File
    monkeypatch.setattr(
        hdf5_module.h5py, "File", lambda path, *a, **k: opened.append(Path(path).stem) or real(path, *a, **k)
    )
    open_dataset(aloha)
    assert set(opened) == {"episode_0"}


def test_few_files_stay_open(tmp_path: Path, make_aloha: Make) -> None:
    make_aloha(tmp_path / "a", [2] * 20)
    reader: Any = open_dataset(tmp_path / "a")
    for index in range(20):
        reader.episode(index)
    assert len(reader._files._files) == 16
    assert reader.episode(0).images["cam_high"][1].shape == (24, 32, 3)  # closed long since, and opened again


def test_pickled(aloha: Path) -> None:
    reader = open_dataset(aloha)
    frames = reader.episode(1).images["cam_high"]
    copies = pickle.loads(pickle.dumps((reader, frames)))
    np.testing.assert_array_equal(copies[0].episode(1).state, reader.episode(1).state)
    np.testing.assert_array_equal(copies[1][2], frames[2])
    assert copies[0].fingerprint() == reader.fingerprint()


def _state(reader: Any, index: int) -> Any:
    return reader.episode(index).state, np.asarray(reader.episode(index).images["cam_high"]), os.getpid()


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_other_processes(aloha: Path, method: str) -> None:
    reader = open_dataset(aloha)
    here = _state(reader, 2)
    with multiprocessing.get_context(method).Pool(1) as pool:
        there = pool.apply(_state, (reader, 2))
    np.testing.assert_array_equal(there[0], here[0])
    np.testing.assert_array_equal(there[1], here[1])
    assert there[2] != here[2]


def test_a_fork_opens_files_of_its_own(aloha: Path) -> None:
    files = OpenFiles()
    with files.reading(hdf5_files(aloha)[0]):
        before = dict(files._files)
    files._process = -1
    with files.reading(hdf5_files(aloha)[0]) as file:
        assert file is not before[hdf5_files(aloha)[0]]


def test_frames_reach_the_windows(tmp_path: Path, make_libero: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MENURA_CACHE", str(tmp_path / "cache"))
    wrote = make_libero(tmp_path / "libero/a.hdf5", [5, 4])
    images = windows(open_dataset(tmp_path / "libero"), num_workers=0, progress=False).__getitems__([8, 0])["image"]
    for row, (episode, frame) in enumerate([(1, 3), (0, 0)]):
        for camera, key in enumerate(("agentview_rgb", "eye_in_hand_rgb")):
            np.testing.assert_array_equal(images[row, camera], wrote[episode][key][frame])


# Selection and fingerprint


def test_episodes_are_selected(aloha: Path) -> None:
    whole, some = open_dataset(aloha), open_dataset(aloha, episodes=[10, 2])
    assert len(some) == 2
    np.testing.assert_array_equal(some.episode(0).state, whole.episode(10).state)
    np.testing.assert_array_equal(some.episode(1).action, whole.episode(2).action)
    with pytest.raises(IndexError, match=r"expected an episode in 0 … 1, got 2"):
        some.episode(2)


@pytest.mark.parametrize("episodes", [[12], [-1], []])
def test_episodes_that_are_not_there(aloha: Path, episodes: list[int]) -> None:
    with pytest.raises(DataError, match=r"episodes: expected some of 0 … 11"):
        open_dataset(aloha, episodes=episodes)


def test_fingerprint_changes_with_content_and_selection(aloha: Path) -> None:
    def fingerprint(**arguments: Any) -> str:
        return open_dataset(aloha, **arguments).fingerprint()

    first = fingerprint()
    assert fingerprint() == first
    others = [
        fingerprint(episodes=[0, 1]),
        fingerprint(episodes=[1, 0]),
        fingerprint(keys={"state": ["qpos", "qvel"]}),
        fingerprint(keys={"images": {"front": "cam_high"}}),
        fingerprint(fps=25.0),
        fingerprint(colour="bgr"),
    ]
    with h5py.File(aloha / "episode_3.hdf5", "a") as file:
        file["action"][0] = 7
    others.append(fingerprint())
    assert len({first, *others}) == 1 + len(others)


# Keys


def test_keys_pick_join_and_rename(tmp_path: Path, make_aloha: Make) -> None:
    wrote = make_aloha(tmp_path / "a", cameras={"cam_high": (24, 32), "cam_low": (16, 20)})
    reader = open_dataset(
        tmp_path / "a",
        keys={"state": ["qvel", "/observations/qpos", "base_action"], "images": {"front": "cam_low"}},
    )
    episode = reader.episode(0)
    np.testing.assert_array_equal(episode.state[:, :28], np.hstack([wrote[0]["qvel"], wrote[0]["qpos"]]))
    assert reader.features.state is not None
    assert reader.features.state.names[:2] == ("left_waist_velocity", "left_shoulder_velocity")
    assert reader.features.state.names[-2:] == ("base_action_0", "base_action_1")
    assert list(episode.images) == ["front"]
    assert reader.features.cameras["front"].height == 16
    np.testing.assert_array_equal(np.asarray(episode.images["front"]), wrote[0]["frames"]["cam_low"])


def test_no_state_and_no_cameras(aloha: Path) -> None:
    reader = open_dataset(aloha, keys={"state": [], "images": []})
    assert reader.features.state is None
    assert reader.episode(0).state.shape == (4, 0)
    assert reader.episode(0).images == {}


def test_a_list_of_cameras_keeps_their_names(tmp_path: Path, make_robomimic: Make) -> None:
    make_robomimic(tmp_path / "x.hdf5")
    reader = open_dataset(tmp_path / "x.hdf5", keys={"images": ["robot0_eye_in_hand", "agentview"]})
    assert list(reader.features.cameras) == ["robot0_eye_in_hand", "agentview"]


def test_a_task_from_a_key(aloha: Path) -> None:
    for index in range(12):
        with h5py.File(aloha / f"episode_{index}.hdf5", "a") as file:
            file["language_raw"] = np.array([f"fold towel {index}".encode()])
    reader = open_dataset(aloha, keys={"task": "language_raw"})
    assert reader.features.language
    assert reader.episode(11).task == "fold towel 11"
    assert not open_dataset(aloha).features.language


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"state": "qpso"}, r"episode_0\.hdf5:/: expected a dataset 'qpso' for keys\.state.*did you mean qpos\?"),
        ({"images": {"a": "cam_hihg"}}, r"'cam_hihg' for keys\.images.*did you mean cam_high\?"),
        ({"action": "acton"}, r"'acton' for keys\.action.*did you mean action\?"),
        ({"task": "language"}, r"'language' for keys\.task"),
        ({"task": "qpos"}, r"/observations/qpos: keys\.task: expected text, got float32"),
        ({"state": ["qpos", "observations/qpos"]}, r"qpos: keys\.state: expected each key once"),
        ({"action": []}, r"expected an action, got none. Say which: keys\.action"),
        (
            {"state": "cam_high"},
            r"keys\.state: expected numbers \(T,\) or \(T, n\), got uint8 of shape \(4, 24, 32, 3\)",
        ),
        ({"images": {"a": "qpos"}}, r"expected frames \(T, H, W, 3\) uint8 or pictures as bytes, got float32"),
    ],
)
def test_keys_that_are_wrong(aloha: Path, keys: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        open_dataset(aloha, keys=keys)


# Damage


def test_no_hdf5_file(tmp_path: Path) -> None:
    (tmp_path / "x.hdf5").write_bytes(b"no HDF5 at all")
    with pytest.raises(DataError, match=r"x\.hdf5: expected an HDF5 file, got a damaged or cut off one"):
        open_dataset(tmp_path / "x.hdf5")


def test_a_file_that_is_cut_off(aloha: Path) -> None:
    reader = open_dataset(aloha)
    path = aloha / "episode_7.hdf5"
    os.truncate(path, path.stat().st_size - 3000)
    with pytest.raises(DataError, match=r"episode_7\.hdf5: .*damaged or cut off.*truncated"):
        reader.episode(7)
    with pytest.raises(DataError, match=r"episode_7\.hdf5"):
        reader.lengths()


def test_a_file_that_is_gone(aloha: Path) -> None:
    reader = open_dataset(aloha)
    (aloha / "episode_7.hdf5").unlink()
    with pytest.raises(DataError, match=r"episode_7\.hdf5: expected an HDF5 file, found nothing"):
        reader.episode(7)


def test_a_key_that_one_episode_lacks(aloha: Path) -> None:
    with h5py.File(aloha / "episode_7.hdf5", "a") as file:
        file.move("observations/qpos", "observations/qpos_")
    with pytest.raises(
        DataError, match=r"episode_7\.hdf5:/: expected a dataset 'observations/qpos' as the first episode has.*qpos_\?"
    ):
        open_dataset(aloha).episode(7)


@pytest.mark.parametrize(
    ("key", "shape", "message"),
    [
        ("observations/qpos", (3, 14), r"/observations/qpos: expected 4 rows as the action has, got 3"),
        (
            "observations/qpos",
            (4, 7),
            r"/observations/qpos: expected 14 numbers a step as the first episode has, got 7",
        ),
        ("observations/images/cam_high", (5, 24, 32, 3), r"cam_high: expected 4 rows as the action has, got 5"),
    ],
)
def test_an_episode_of_another_shape(aloha: Path, key: str, shape: tuple[int, ...], message: str) -> None:
    with h5py.File(aloha / "episode_7.hdf5", "a") as file:
        dtype = file[key].dtype
        del file[key]
        file[key] = np.zeros(shape, dtype)
    with pytest.raises(DataError, match=message):
        open_dataset(aloha).episode(7)


def test_frames_of_another_size(aloha: Path) -> None:
    with h5py.File(aloha / "episode_7.hdf5", "a") as file:
        del file["observations/images/cam_high"]
        file["observations/images/cam_high"] = np.zeros((4, 12, 12, 3), np.uint8)
    frames = open_dataset(aloha).episode(7).images["cam_high"]
    with pytest.raises(
        DataError, match=r"expected uint8 frames of shape \(24, 32, 3\) as the dataset has, got .*\(12, 12, 3\)"
    ):
        frames[0]


def test_a_damaged_chunk(tmp_path: Path, make_robomimic: Make) -> None:
    path = tmp_path / "x.hdf5"
    make_robomimic(path, [40], cameras=["agentview"], chunks=True)
    with h5py.File(path) as file:
        chunk = file["data/demo_0/obs/agentview_image"].id.get_chunk_info(0)
    with open(path, "r+b") as raw:
        raw.seek(chunk.byte_offset + chunk.size // 2)
        raw.write(b"\xa5" * 64)
    reader = open_dataset(path)
    with pytest.raises(DataError, match=r"x\.hdf5: .*damaged or cut off"):
        np.asarray(reader.episode(0).images["agentview"])
