"""Our own HDF5: what is written is read back whole, and a kill at any moment costs only the episode under way."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import textwrap
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from menura.data import Episode, Hdf5Writer, Recorder, open_dataset
from menura.data.readers.menura_hdf5 import MenuraHdf5Reader
from menura.errors import DataError, FeatureMismatch
from menura.features import CameraFeature, Features, Rotation, VectorFeature

FEATURES = Features(
    state=VectorFeature(
        ("x", "y", "z", "qw", "qx", "qy", "qz", "cube"),
        units=("m", "m", "m", "1", "1", "1", "1", "m"),
        object_names=("cube",),
        rotations=(Rotation(("qw", "qx", "qy", "qz"), "quat_wxyz"),),
    ),
    action=VectorFeature(("dx", "dy", "gripper"), grippers={"gripper": (0.0, 1.0)}),
    cameras={"top": CameraFeature(32, 48, "fast"), "wrist.left": CameraFeature(40, 40)},
    fps=20.0,
    language=True,
    control_space="ee",
    control_type="delta",
    robot="sim",
)


def make_episode(index: int, length: int = 5, features: Features = FEATURES) -> Episode:
    rng = np.random.default_rng(index)
    images = {}
    for name, camera in features.cameras.items():
        y, x = np.mgrid[: camera.height, : camera.width]
        shade = (x * 3 + y * 2)[None] + np.arange(length)[:, None, None] * 5 + index
        images[name] = np.stack([shade, shade + 40, 255 - shade], axis=-1).clip(0, 255).astype(np.uint8)
    return Episode(
        state=rng.normal(size=(length, features.state_dim)),
        action=rng.normal(size=(length, features.action_dim)),
        images=images,
        task=("push", "lift")[index % 2],
        fps=features.fps,
        timestamps=np.arange(length) / features.fps + rng.uniform(0, 0.01, length),
        success=(True, False, None)[index % 3],
        seed=None if index % 2 else 1000 + index,
        extra={"operator": "né", "steps": [index]},
    )


def write(root: Path, lengths: list[int], **arguments: Any) -> None:
    with Hdf5Writer(root, FEATURES, **arguments) as writer:
        for index, length in enumerate(lengths):
            writer.add_episode(make_episode(index, length))


def assert_equal(got: Episode, wrote: Episode, worst_mean: float = 0) -> None:
    for array in ("state", "action", "timestamps"):
        np.testing.assert_array_equal(getattr(got, array), getattr(wrote, array))
    for fact in ("task", "success", "seed", "extra", "fps"):
        assert getattr(got, fact) == getattr(wrote, fact)
    assert list(got.images) == list(wrote.images)
    for name, frames in wrote.images.items():
        assert np.abs(np.asarray(got.images[name]).astype(int) - np.asarray(frames)).mean() <= worst_mean


@pytest.mark.parametrize(("images", "worst"), [("jpeg", 2), ("png", 0), ("raw", 0)])
def test_round_trip(tmp_path: Path, images: str, worst: float) -> None:
    write(tmp_path / "data", [6, 3, 9], images=images)
    reader = open_dataset(tmp_path / "data")
    assert isinstance(reader, MenuraHdf5Reader)
    assert reader.features == FEATURES
    assert (reader.name, reader.lengths().tolist()) == ("data", [6, 3, 9])
    for index, length in enumerate([6, 3, 9]):
        assert_equal(reader.episode(index), make_episode(index, length), worst)


def test_one_file_alone(tmp_path: Path) -> None:
    write(tmp_path, [6, 3], images="png")
    reader = open_dataset(tmp_path / "episode_000001.hdf5")
    assert reader.features == FEATURES
    assert_equal(reader.episode(0), make_episode(1, 3))
    assert reader.metadata(0) == {"success": False, "extra": {"operator": "né", "steps": [1]}}


def test_without_state_cameras_or_language(tmp_path: Path) -> None:
    features = Features(state=None, action=VectorFeature(("a",)), fps=12.5)
    with Hdf5Writer(tmp_path, features, robot="arm") as writer:
        writer.add_episode(Episode(state=None, action=[[1.0], [2.0]], fps=12.5))  # type: ignore[arg-type]
    reader = open_dataset(tmp_path)
    assert reader.features == replace(features, robot="arm")
    assert reader.episode(0).action.tolist() == [[1.0], [2.0]]
    assert reader.episode(0).state.shape == (2, 0)


def test_keys(tmp_path: Path) -> None:
    write(tmp_path, [6], images="png")
    features = open_dataset(tmp_path, keys={"images": {"front": "top"}}).features
    assert features.cameras == {"front": FEATURES.cameras["top"]}
    assert features.state == FEATURES.state
    swapped = open_dataset(tmp_path, keys={"action": "state", "state": []})
    assert swapped.features.control_space is None
    with pytest.raises(DataError, match=r"'tpo' for keys\.images.*did you mean"):
        open_dataset(tmp_path, keys={"images": ["tpo"]})


def test_the_layout(tmp_path: Path) -> None:
    """What docs/formats.md specifies."""
    write(tmp_path, [6, 3], images="raw")
    names = sorted(path.name for path in tmp_path.iterdir() if not path.name.startswith("."))
    assert names == ["episode_000000.hdf5", "episode_000001.hdf5", "episodes.jsonl", "menura.json"]
    manifest = json.loads((tmp_path / "menura.json").read_text())
    assert manifest == {"format": "menura", "version": 1, "images": "raw", "features": FEATURES.to_dict()}
    rows = [json.loads(line) for line in (tmp_path / "episodes.jsonl").read_text().splitlines()]
    assert rows[0] == {
        "file": "episode_000000.hdf5",
        "bytes": (tmp_path / "episode_000000.hdf5").stat().st_size,
        "length": 6,
        "task": "push",
        "success": True,
        "seed": 1000,
        "extra": {"operator": "né", "steps": [0]},
    }
    with h5py.File(tmp_path / "episode_000001.hdf5") as file:
        assert (file.attrs["format"], file.attrs["version"]) == ("menura", 1)
        assert Features.from_dict(json.loads(file.attrs["features"])) == FEATURES
        assert json.loads(file.attrs["episode"])["task"] == "lift"
        assert (file["state"].dtype, file["action"].dtype, file["timestamps"].dtype) == ("f4", "f4", "f8")
        assert (file["images/top"].shape, file["images/top"].attrs["coding"]) == ((3, 32, 48, 3), "raw")


def test_large_facts(tmp_path: Path) -> None:
    """More than the 64 kB that an attribute of an older HDF5 file may hold."""
    with Hdf5Writer(tmp_path, FEATURES) as writer:
        writer.add_episode(replace(make_episode(0), extra={"note": "x" * 100_000}))
    assert len(open_dataset(tmp_path / "episode_000000.hdf5").episode(0).extra["note"]) == 100_000


def test_opening_needs_one_episode_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, [3] * 5)
    opened = []
    real = h5py.File
    monkeypatch.setattr(h5py, "File", lambda path, *a, **k: opened.append(Path(path).name) or real(path, *a, **k))
    reader = open_dataset(tmp_path)
    assert reader.lengths().tolist() == [3] * 5
    assert [reader.metadata(index).get("success") for index in range(3)] == [True, False, None]
    assert reader.tasks() == ["push", "lift", "push", "lift", "push"]
    assert set(opened) == {"episode_000000.hdf5"}


# Refused


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"state": np.zeros((5, 2))}, "Episode 0: state width: expected 8 as the dataset has, got 2"),
        ({"action": np.zeros((5, 2))}, "Episode 0: action width: expected 3"),
        ({"fps": 30.0}, "Episode 0: fps: expected 20"),
        ({"images": {}}, "Episode 0: cameras: expected"),
        (
            {"images": {name: np.zeros((5, 8, 8, 3), np.uint8) for name in FEATURES.cameras}},
            r"camera 'top': expected \(32, 48\)",
        ),
    ],
)
def test_another_shape_is_refused(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    with Hdf5Writer(tmp_path, FEATURES) as writer, pytest.raises(FeatureMismatch, match=message):
        writer.add_episode(replace(make_episode(0), **change))
    assert not list(tmp_path.glob("episode_*"))


@pytest.mark.parametrize("part", ["state", "action", "timestamps"])
def test_nan_is_refused(tmp_path: Path, part: str) -> None:
    episode = make_episode(0)
    getattr(episode, part)[3] = np.nan
    with Hdf5Writer(tmp_path, FEATURES) as writer, pytest.raises(DataError, match=rf"{part}: .*infinity at step 3"):
        writer.add_episode(episode)


@pytest.mark.parametrize("extra", [{"a": np.zeros(2)}, {"a": float("nan")}])
def test_facts_that_json_cannot_hold(tmp_path: Path, extra: Any) -> None:
    with (
        Hdf5Writer(tmp_path, FEATURES) as writer,
        pytest.raises(DataError, match="extra: expected facts that JSON can hold"),
    ):
        writer.add_episode(replace(make_episode(0), extra=extra))


@pytest.mark.parametrize("images", ["jpeg", "png", "raw"])
def test_frame_by_frame_at_measured_times(tmp_path: Path, images: Any) -> None:
    episode, times = make_episode(0, 600), np.cumsum(np.linspace(0.01, 0.09, 600))
    with Hdf5Writer(tmp_path, FEATURES, images=images) as writer:
        with writer.begin(task="lift", seed=3) as recorder:
            for row, time_s in enumerate(times):
                seen = {name: frames[row] for name, frames in episode.images.items()}
                recorder.append(state=episode.state[row], action=episode.action[row], images=seen, timestamp=time_s)
            recorder.save(success=True, extra={"operator": "ada"})
        assert len(writer) == 1
        with writer.begin() as recorder:
            record(recorder, episode, 3)  # no times: they are frame / fps
        with writer.begin() as recorder:
            record(recorder, episode, 3)
            recorder.discard()
    found = open_dataset(tmp_path)
    assert found.lengths().tolist() == [600, 3]
    first, second = found.episode(0), found.episode(1)
    assert (first.task, first.seed, first.success, first.extra) == ("lift", 3, True, {"operator": "ada"})
    np.testing.assert_array_equal(first.timestamps, times)
    np.testing.assert_allclose(second.timestamps, np.arange(3) / FEATURES.fps)
    np.testing.assert_array_equal(first.state, episode.state)
    for name, frames in episode.images.items():
        tolerance = 8 if images == "jpeg" else 0
        np.testing.assert_allclose(first.images[name][:].astype(int), np.asarray(frames), atol=tolerance)
    assert sorted(path.name for path in tmp_path.glob("*.hdf5")) == ["episode_000000.hdf5", "episode_000001.hdf5"]
    assert not list(tmp_path.glob(".tmp-*"))


def record(recorder: Recorder, episode: Episode, frames: int) -> None:
    for row in range(frames):
        seen = {name: pictures[row] for name, pictures in episode.images.items()}
        recorder.append(state=episode.state[row], action=episode.action[row], images=seen)


def test_one_episode_at_a_time_and_none_is_forgotten(tmp_path: Path) -> None:
    writer = Hdf5Writer(tmp_path, FEATURES)
    writer.begin()
    for other in (writer.begin, writer.finalize, lambda: writer.add_episode(make_episode(0))):
        with pytest.raises(DataError, match="episode 0 is under way"):
            other()
    with pytest.raises(DataError, match="episode 0 was under way at the end"):
        writer.__exit__(None, None, None)
    assert not list(tmp_path.glob("*.hdf5"))
    assert not list(tmp_path.glob(".tmp-*"))


def test_a_failing_camera_leaves_nothing(tmp_path: Path) -> None:
    class Broken:
        shape = (5, 32, 48, 3)
        dtype = np.dtype(np.uint8)

        def __len__(self) -> int:
            return 5

        def __getitem__(self, index: Any) -> Any:
            raise RuntimeError("camera lost")

    episode = make_episode(0)
    broken = replace(episode, images={**episode.images, "top": Broken()})
    with Hdf5Writer(tmp_path, FEATURES) as writer:
        with pytest.raises(RuntimeError, match="camera lost"):
            writer.add_episode(broken)
        assert len(writer) == 0
        writer.add_episode(episode)
    assert open_dataset(tmp_path).lengths().tolist() == [5]
    assert not list(tmp_path.glob(".tmp-*"))


@pytest.mark.parametrize(
    ("frames", "message"),
    [
        ([np.zeros((32, 48, 3), np.uint8)] * 4, r"camera 'top': expected 5 frames as action has, got 4"),
        ([np.zeros((32, 48, 3), np.uint8)] * 6, r"camera 'top', frame 5: expected one of 5 frames"),
        ([np.zeros((1, 1, 3), np.uint8)] * 5, r"camera 'top', frame 0: .* got uint8 of \(1, 1, 3\)"),
        ([np.zeros((32, 48, 3))] * 5, r"camera 'top', frame 0: .* got float64 of \(32, 48, 3\)"),
    ],
)
@pytest.mark.parametrize("images", ["jpeg", "raw"])
def test_frames_that_are_not_as_they_say(tmp_path: Path, frames: Any, message: str, images: Any) -> None:
    class Lying:
        shape = (5, 32, 48, 3)
        dtype = np.dtype(np.uint8)

        def __len__(self) -> int:
            return 5

        def __iter__(self) -> Any:
            return iter(frames)

    episode = make_episode(0)
    lying: Any = {**episode.images, "top": Lying()}
    with Hdf5Writer(tmp_path, FEATURES, images=images) as writer, pytest.raises(DataError, match=message):
        writer.add_episode(replace(episode, images=lying))
    assert not list(tmp_path.glob("episode_*"))


def test_settings_that_are_wrong(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"images: expected one of \['jpeg', 'png', 'raw'\], got 'jpg'; did you mean"):
        Hdf5Writer(tmp_path, FEATURES, images="jpg")  # type: ignore[arg-type]
    with pytest.raises(FeatureMismatch, match="fps: expected > 0"):
        Hdf5Writer(tmp_path, replace(FEATURES, fps=0))
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(DataError, match="expected a new or empty directory"):
        Hdf5Writer(tmp_path, FEATURES)
    with pytest.raises(DataError, match=r"without menura\.json"):
        Hdf5Writer(tmp_path, FEATURES, resume=True)


def test_two_writers(tmp_path: Path) -> None:
    with (
        Hdf5Writer(tmp_path, FEATURES) as writer,
        pytest.raises(DataError, match="being written by another process"),
    ):
        Hdf5Writer(tmp_path, FEATURES, resume=True)
    with pytest.raises(DataError, match="is finalized"):
        writer.add_episode(make_episode(0))


def test_no_episode_yet(tmp_path: Path) -> None:
    Hdf5Writer(tmp_path, FEATURES).finalize()
    with pytest.raises(DataError, match="No episode was finished"):
        open_dataset(tmp_path)


def test_resume(tmp_path: Path) -> None:
    write(tmp_path, [6, 3])
    with Hdf5Writer(tmp_path, FEATURES, resume=True) as writer:
        assert len(writer) == 2
        writer.add_episode(make_episode(2, 4))
    assert open_dataset(tmp_path).lengths().tolist() == [6, 3, 4]
    with pytest.raises(FeatureMismatch, match=r"resume: features\.fps: expected 20"):
        Hdf5Writer(tmp_path, replace(FEATURES, fps=10.0), resume=True)
    with pytest.raises(FeatureMismatch, match="resume: images: expected jpeg"):
        Hdf5Writer(tmp_path, FEATURES, images="png", resume=True)


# Damage


def test_a_file_that_is_gone(tmp_path: Path) -> None:
    write(tmp_path, [6, 3, 2])
    (tmp_path / "episode_000001.hdf5").unlink()
    with pytest.raises(DataError, match=r"episode_000001\.hdf5: expected an episode as episodes\.jsonl has"):
        open_dataset(tmp_path)
    with pytest.raises(DataError, match=r"expected episode_000001\.hdf5, got episode_000002\.hdf5"):
        Hdf5Writer(tmp_path, FEATURES, resume=True)


def test_a_file_that_was_replaced_is_asked_itself(tmp_path: Path) -> None:
    write(tmp_path / "a", [6, 3])
    write(tmp_path / "b", [8, 8], images="raw")
    (tmp_path / "b/episode_000001.hdf5").replace(tmp_path / "a/episode_000001.hdf5")
    assert open_dataset(tmp_path / "a").lengths().tolist() == [6, 8]


def test_an_index_that_is_damaged(tmp_path: Path) -> None:
    write(tmp_path, [6, 3])
    index = tmp_path / "episodes.jsonl"
    index.write_text(index.read_text()[:-20])  # cut off in its last line: that episode is asked itself
    assert open_dataset(tmp_path).lengths().tolist() == [6, 3]
    index.write_text("{no JSON\n" + index.read_text())
    with pytest.raises(DataError, match=r"episodes\.jsonl:1: expected a JSON object with 'file', got '\{no JSON'"):
        open_dataset(tmp_path)


def test_times_that_are_missing(tmp_path: Path) -> None:
    write(tmp_path, [6, 6])
    with h5py.File(tmp_path / "episode_000001.hdf5", "a") as file:
        del file["timestamps"]
        file["timestamps"] = np.zeros(5)
    with pytest.raises(DataError, match=r"episode_000001\.hdf5:/timestamps: expected 6 rows as the action has, got 5"):
        open_dataset(tmp_path).episode(1)


def test_a_newer_version(tmp_path: Path) -> None:
    write(tmp_path, [6])
    with h5py.File(tmp_path / "episode_000000.hdf5", "a") as file:
        file.attrs["version"] = 2
    with pytest.raises(DataError, match=r"version: expected 1, got 2\. Install a newer Menura"):
        open_dataset(tmp_path)


# Killed

KILLED = """
import os, signal, sys
sys.path.insert(0, {tests!r})
from pathlib import Path
from test_hdf5_writer import FEATURES, Hdf5Writer, make_episode

count = 0
def step(*_):
    global count
    count += 1
    if count == {step}:
        os.kill(os.getpid(), signal.SIGKILL)

def around(function):
    def counted(*args):
        step()
        result = function(*args)
        step()
        return result
    return counted

Path.replace = around(Path.replace)
os.fsync = around(os.fsync)
with Hdf5Writer({root!r}, FEATURES, images="png") as writer:
    for index in range({episodes}):
        writer.add_episode(make_episode(index, {length}))
        print(index, flush=True)
"""


def start(root: Path, *, step: int = 0, episodes: int = 3, length: int = 5) -> subprocess.Popen[str]:
    code = textwrap.dedent(KILLED).format(
        root=str(root), step=step, tests=str(Path(__file__).parent), episodes=episodes, length=length
    )
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env=environment)


def check_and_go_on(root: Path, told: int, length: int = 5) -> None:
    """Every episode it told of is there and whole, and at most one more; and recording can go on."""
    committed = len(list(root.glob("episode_*.hdf5")))
    assert told <= committed <= told + 1
    if committed:
        reader = open_dataset(root)
        assert len(reader) == len(reader.lengths()) == committed
        for index in range(committed):
            assert_equal(reader.episode(index), make_episode(index, length))
        assert set(reader.lengths().tolist()) == {length}
    if not (root / "menura.json").exists():
        return
    with Hdf5Writer(root, FEATURES, images="png", resume=True) as writer:
        assert len(writer) == committed
        writer.add_episode(make_episode(committed, length))
    reader = open_dataset(root)
    assert len(reader) == committed + 1
    for index in range(committed + 1):
        assert_equal(reader.episode(index), make_episode(index, length))
    assert not list(root.glob(".tmp-*"))
    assert len((root / "episodes.jsonl").read_text().splitlines()) == committed + 1


# Before and after each file's fsync, its rename and its directory's fsync: 1 … 6 the manifest, 7 … 12 episode 0, 13 and
# 14 its line in the index, 15 and 16 the index's directory, 17 … 22 episode 1.
@pytest.mark.parametrize("step", [3, 6, 7, 9, 10, 12, 13, 14, 17, 20, 23])
def test_killed_at_a_known_moment(tmp_path: Path, step: int) -> None:
    process = start(tmp_path / "data", step=step)
    told = len(process.communicate()[0].splitlines())
    assert process.returncode == -signal.SIGKILL
    check_and_go_on(tmp_path / "data", told)


def kill_at_random(root: Path, seed: int) -> None:
    """Kills after a random time from the first episode on."""
    process = start(root, episodes=100_000, length=2)
    assert process.stdout is not None
    told = [process.stdout.readline()]
    time.sleep(random.Random(seed).uniform(0, 0.25))
    process.kill()
    told += process.stdout.readlines()
    process.wait()
    check_and_go_on(root, len([line for line in told if line.endswith("\n")]), length=2)


@pytest.mark.parametrize("seed", range(2))
def test_killed_at_a_random_moment(tmp_path: Path, seed: int) -> None:
    kill_at_random(tmp_path / "data", seed)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2, 60))
def test_killed_at_many_random_moments(tmp_path: Path, seed: int) -> None:
    kill_at_random(tmp_path / "data", seed)
