"""Convert, merge, split, trim, delete, rename: what comes out, what stays, and what happens when they are killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from menura.data import Episode, Hdf5Writer, LeRobotWriter, Reader, open_dataset
from menura.data.tools.editing import convert, delete, merge, rename, split, trim
from menura.data.tools.writing import UNFINISHED
from menura.errors import ConfigError, DataError, FeatureMismatch
from menura.features import CameraFeature, Features, VectorFeature

FEATURES = Features(
    state=VectorFeature(("x", "grip"), units=("m", "1"), grippers={"grip": (0.0, 1.0)}),
    action=VectorFeature(("x_target", "grip_target")),
    cameras={"top": CameraFeature(16, 24)},
    fps=10,
    language=True,
    control_space="ee",
    control_type="abs",
    robot="toy",
)


def episode(number: int, length: int = 12) -> Episode:
    """Rests for 3 frames, moves, rests for 2."""
    path = np.concatenate([np.zeros(3), np.linspace(0, 1, length - 5), np.ones(2)])
    table = np.stack([path + number, np.full(length, float(number % 2))], axis=1)
    frames = np.zeros((length, 16, 24, 3), np.uint8) + (np.arange(length)[:, None, None, None] * 8 + number).astype(
        np.uint8
    )
    task = "push" if number % 2 else "pull"
    return Episode(
        table, table + 0.01, {"top": frames}, task, fps=10, success=number != 1, seed=number, extra={"operator": "ada"}
    )


def write(root: Path, numbers: range = range(5), features: Features = FEATURES, video: bool = False) -> Path:
    with LeRobotWriter(root, features, video=video) as writer:
        for number in numbers:
            writer.add_episode(episode(number))
    return root


def content(reader: Reader, frames: slice = slice(None)) -> list[tuple[Any, ...]]:
    """All that an episode holds, without its timestamps."""
    found = []
    for index in range(len(reader)):
        each = reader.episode(index)
        pictures = {name: np.asarray(images[:])[frames].tobytes() for name, images in each.images.items()}
        facts = (each.task, each.fps, each.success, each.seed, dict(each.extra))
        found.append((each.state[frames].tobytes(), each.action[frames].tobytes(), pictures, *facts))
    return found


def snapshot(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write(tmp_path / "source")


def test_coded_pictures_of_hdf5_stay_lossless(tmp_path: Path) -> None:
    with Hdf5Writer(tmp_path / "jpeg", FEATURES) as writer:
        writer.add_episode(episode(0))
    for options in ({}, {"wrappers": [{"class": "Trim", "args": {"start": 1}}]}):
        source = open_dataset({"path": str(tmp_path / "jpeg"), **options})
        made = open_dataset(convert(source, tmp_path / f"made {len(options)}", progress=False))
        np.testing.assert_array_equal(made.episode(0).images["top"][:], source.episode(0).images["top"][:])


@pytest.mark.parametrize("to", ["lerobot", "menura"])
def test_convert_keeps_everything_and_the_source(source: Path, tmp_path: Path, to: str) -> None:
    before = snapshot(source)
    made = open_dataset(convert(source, tmp_path / "made", to=to, progress=False))
    assert content(made) == content(open_dataset(source))  # single pictures stay lossless
    assert made.features == open_dataset(source).features
    assert snapshot(source) == before
    again = open_dataset(convert(made, tmp_path / "back", to="lerobot", lossless=True, progress=False))
    assert content(again) == content(made)


def test_convert_with_keys_filter_and_wrappers(source: Path, tmp_path: Path) -> None:
    spec = {
        "path": str(source),
        "filter": {"episodes": "task == 'pull'"},
        "wrappers": [{"class": "Rename", "args": {"cameras": {"top": "front"}}}],
    }
    made = open_dataset(convert(spec, tmp_path / "made", progress=False))
    assert [made.episode(index).seed for index in range(len(made))] == [0, 2, 4]
    assert list(made.features.cameras) == ["front"]


def test_merge(source: Path, tmp_path: Path) -> None:
    other = write(tmp_path / "other", range(7, 9))
    made = open_dataset(merge([source, other], tmp_path / "made", progress=False))
    assert content(made) == content(open_dataset(source)) + content(open_dataset(other))
    strange = write(tmp_path / "strange", features=Features(**{**FEATURES.__dict__, "control_type": "delta"}))
    with pytest.raises(
        FeatureMismatch, match="expected them to be of one kind, got control type: abs here, delta there"
    ):
        merge([source, strange], tmp_path / "never", progress=False)
    assert not (tmp_path / "never").exists()


def test_split(source: Path, tmp_path: Path) -> None:
    parts = split(source, tmp_path / "made", {"train": 0.6, "val": 0.4}, seed=1, progress=False)
    assert [path.name for path in parts] == ["train", "val"]
    train, val = (open_dataset(path) for path in parts)
    assert (len(train), len(val)) == (3, 2)
    assert sorted(content(train) + content(val), key=repr) == sorted(content(open_dataset(source)), key=repr)
    chosen = split(source, tmp_path / "chosen", {"a": [4, 0], "b": [2]}, progress=False)
    assert [[each.episode(i).seed for i in range(len(each))] for each in map(open_dataset, chosen)] == [[4, 0], [2]]


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"a": 0.5, "b": 0.6}, "parts: expected shares > 0 that sum to 1"),
        ({"a": 0.5, "b": [1]}, "parts: expected shares > 0 that sum to 1, or episodes of every part"),
        ({"a": [0, 1], "b": [1]}, "parts: expected each episode in one part"),
        ({"a": 0.99, "b": 0.01}, "parts: expected episodes in every part, got none in 'b', of 5 in all"),
    ],
)
def test_wrong_parts(source: Path, tmp_path: Path, parts: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        split(source, tmp_path / "made", parts, progress=False)


def test_trim(source: Path, tmp_path: Path) -> None:
    made = open_dataset(trim(source, tmp_path / "made", start=2, stop=1, progress=False))
    assert content(made) == content(open_dataset(source), slice(2, -1))
    moving = open_dataset(trim(source, tmp_path / "moving", idle=True, progress=False))
    assert moving.lengths().tolist() == [7 + 1 + 1 - 2] * 5  # 7 points of motion; its ends are where rest begins
    with pytest.raises(DataError, match="episode 0 of 'source': expected frames to be left of its 12, got none"):
        trim(source, tmp_path / "never", start=6, stop=6, progress=False)


def test_delete(source: Path, tmp_path: Path) -> None:
    made = open_dataset(delete(source, tmp_path / "made", episodes=[3, 0], progress=False))
    everything = content(open_dataset(source))
    assert content(made) == [everything[index] for index in (1, 2, 4)]
    with pytest.raises(DataError, match=r"Episodes of 'source': expected some of 0 … 4, got \[9\]"):
        delete(source, tmp_path / "never", episodes=[0, 9], progress=False)
    with pytest.raises(DataError, match="'source': expected some of its 5 episodes to be left, got none"):
        delete(source, tmp_path / "never", episodes=range(5), progress=False)


def test_rename(source: Path, tmp_path: Path) -> None:
    made = open_dataset(
        rename(
            source,
            tmp_path / "made",
            state={"grip": "gripper"},
            cameras={"top": "front"},
            tasks={"push": "push the cube"},
            progress=False,
        )
    )
    assert made.features.state is not None
    assert made.features.state.names == ("x", "gripper")
    assert made.features.state.grippers == {"gripper": (0.0, 1.0)}
    assert list(made.features.cameras) == ["front"]
    assert made.tasks() == ["pull", "push the cube", "pull", "push the cube", "pull"]
    with pytest.raises(DataError, match=r"tasks: expected some of \['pull', 'push'\], got 'pus'; did you mean push"):
        rename(source, tmp_path / "never", tasks={"pus": "pull"}, progress=False)


@pytest.mark.parametrize("to", ["lerobot", "menura"])
def test_in_place_only_when_told_and_in_its_own_format(tmp_path: Path, to: str) -> None:
    source = convert(write(tmp_path / "first"), tmp_path / "source", to=to, progress=False)
    expected = content(open_dataset(source))[1:]
    with pytest.raises(ConfigError, match=r"output_dir: expected a directory, got none\. Say where to write"):
        delete(source, episodes=[0], progress=False)
    assert delete(source, episodes=[0], in_place=True, progress=False) == source
    assert content(open_dataset(source)) == expected
    assert not [path for path in tmp_path.iterdir() if path.name not in ("first", "source")]


def test_a_directory_with_something_in_it_is_refused(source: Path, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").touch()
    with pytest.raises(DataError, match="expected a new or empty directory, got files in it"):
        convert(source, tmp_path / "full", progress=False)
    with pytest.raises(ConfigError, match=r"to: expected one of .* got 'lerobt'; did you mean lerobot"):
        convert(source, tmp_path / "made", to="lerobt", progress=False)
    with pytest.raises(ConfigError, match="codec: expected it for videos"):
        convert(source, tmp_path / "made", to="menura", codec="libx264", progress=False)


class Stops:
    """A dataset whose third episode cannot be read, once."""

    def __init__(self, reader: Reader) -> None:
        self.reader = reader
        self.features = reader.features
        self.name = reader.name
        self.broken = True

    def __len__(self) -> int:
        return len(self.reader)

    def fingerprint(self) -> str:
        return self.reader.fingerprint()

    def lengths(self) -> Any:
        return self.reader.lengths()

    def metadata(self, index: int) -> dict[str, Any]:
        return self.reader.metadata(index)

    def episode(self, index: int) -> Episode:
        if index == 2 and self.broken:
            raise KeyboardInterrupt
        return self.reader.episode(index)


@pytest.mark.parametrize("to", ["lerobot", "menura"])
def test_an_interrupted_conversion_goes_on(source: Path, tmp_path: Path, to: str) -> None:
    stops = Stops(open_dataset(source))
    with pytest.raises(KeyboardInterrupt):
        convert(stops, tmp_path / "made", to=to, progress=False)  # type: ignore[arg-type]
    assert (tmp_path / "made" / UNFINISHED).exists()
    with pytest.raises(DataError, match="got an unfinished dataset of other work"):
        convert(write(tmp_path / "other"), tmp_path / "made", to=to, progress=False)
    stops.broken = False
    begun = {path: path.stat().st_mtime_ns for path in (tmp_path / "made").rglob("*00000[01]*") if path.is_file()}
    made = open_dataset(convert(stops, tmp_path / "made", to=to, progress=False))  # type: ignore[arg-type]
    assert content(made) == content(open_dataset(source))
    assert all(path.stat().st_mtime_ns == time_ns for path, time_ns in begun.items() if path.suffix == ".hdf5")
    assert not (tmp_path / "made" / UNFINISHED).exists()


@pytest.mark.parametrize("delay", [0.0, 0.05, 0.15])
def test_a_killed_change_in_place_leaves_the_old_or_the_new(source: Path, delay: float) -> None:
    script = (
        "import sys; from menura.data.tools.editing import delete; print('ready', flush=True);"
        "delete(sys.argv[1], episodes=[0], in_place=True, progress=False)"
    )
    old = content(open_dataset(source))
    process = subprocess.Popen([sys.executable, "-c", script, str(source)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    process.stdout.readline()
    time.sleep(delay)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    after = content(open_dataset(source))
    assert after in (old, old[1:])
    if after == old:
        delete(source, episodes=[0], in_place=True, progress=False)
    assert content(open_dataset(source)) == old[1:]
