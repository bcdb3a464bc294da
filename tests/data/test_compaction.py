"""Compacting changes how a dataset lies on disk, and nothing of what is read."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from menura.cli.main import app
from menura.data import Episode, LeRobotWriter, Reader, compact, open_dataset
from menura.errors import ConfigError, DataError
from menura.features import CameraFeature, Features, VectorFeature

LENGTHS = (6, 1, 9, 4, 5)
FEATURES = Features(
    state=VectorFeature(("x", "y"), units=("m", "m")),
    action=VectorFeature(("dx",)),
    cameras={"top": CameraFeature(32, 48), "wrist": CameraFeature(24, 24)},
    fps=12.5,
    language=True,
)


def episode(number: int) -> Episode:
    rng, length = np.random.default_rng(number), LENGTHS[number]
    return Episode(
        state=rng.normal(size=(length, 2)),
        action=rng.normal(size=(length, 1)),
        images={
            name: rng.integers(0, 256, (length, camera.height, camera.width, 3), np.uint8)
            for name, camera in FEATURES.cameras.items()
        },
        task=("push", "lift")[number % 2],
        fps=12.5,
        success=number != 3,
        seed=number,
        extra={"operator": f"number {number}"},
    )


def write(root: Path, **arguments: Any) -> Path:
    with LeRobotWriter(root, FEATURES, **arguments) as writer:
        for number in range(len(LENGTHS)):
            writer.add_episode(episode(number))
    return root


def require_equal(old: Reader, new: Reader) -> None:
    assert new.features == old.features
    assert new.lengths().tolist() == old.lengths().tolist()
    for number in range(len(old)):
        mine, theirs = old.episode(number), new.episode(number)
        for part in ("task", "success", "seed", "extra"):
            assert getattr(theirs, part) == getattr(mine, part)
        np.testing.assert_array_equal(theirs.state, mine.state)
        np.testing.assert_array_equal(theirs.action, mine.action)
        for name, frames in mine.images.items():
            np.testing.assert_array_equal(np.asarray(theirs.images[name]), np.asarray(frames))


def names(root: Path, part: str) -> list[str]:
    return sorted(str(path.relative_to(root / part)) for path in (root / part).rglob("*") if path.is_file())


@pytest.mark.parametrize("arguments", [{}, {"codec": "libsvtav1"}, {"codec": "libx264-ultrafast"}, {"video": False}])
def test_it_reads_the_same(tmp_path: Path, arguments: dict[str, Any]) -> None:
    old = write(tmp_path / "old", **arguments)
    (old / "README.md").write_text("mine")
    new = compact(old, tmp_path / "new", progress=False)
    require_equal(open_dataset(old), open_dataset(new))
    assert names(new, "data") == ["chunk-000/file-000.parquet"]
    assert pq.ParquetFile(new / "data/chunk-000/file-000.parquet").metadata.num_row_groups == len(LENGTHS)
    if arguments.get("video", True):
        assert names(new, "videos") == [
            f"observation.images.{camera}/chunk-000/file-000.mp4" for camera in ("top", "wrist")
        ]
        assert len(names(old, "videos")) == 2 * len(LENGTHS)
        table = pq.read_table(new / "meta/episodes/chunk-000/file-000.parquet")
        begins = table.column("videos/observation.images.top/from_timestamp").to_pylist()
        assert begins == [first / 12.5 for first in (0, 6, 7, 16, 20)]
    for name in ("README.md", "meta/info.json", "meta/stats.json", "meta/menura.json", "meta/tasks.parquet"):
        assert (new / name).read_bytes() == (old / name).read_bytes()


def test_files_are_full_at_their_size(tmp_path: Path) -> None:
    old = write(tmp_path / "old")
    new = compact(old, tmp_path / "new", data_file_mb=0.0005, video_file_mb=0.02, progress=False)
    assert 1 < len(names(new, "data")) < len(LENGTHS)
    assert 1 < len(names(new, "videos/observation.images.top")) < len(LENGTHS)
    require_equal(open_dataset(old), open_dataset(new))
    again = compact(new, tmp_path / "again", progress=False)  # what was compacted is compacted again
    assert len(names(again, "videos/observation.images.top")) == 1
    require_equal(open_dataset(old), open_dataset(again))


def test_the_writer_goes_on_where_it_was_compacted(tmp_path: Path) -> None:
    root = write(tmp_path / "data")
    stats = json.loads((root / "meta/stats.json").read_text())
    assert compact(root, in_place=True, progress=False) == root
    assert [path.name for path in tmp_path.iterdir()] == ["data"]
    with LeRobotWriter(root, FEATURES, resume=True) as writer:
        writer.add_episode(episode(2))
    assert open_dataset(root).lengths().tolist() == [*LENGTHS, LENGTHS[2]]
    got = json.loads((root / "meta/stats.json").read_text())
    assert got["observation.images.top"]["count"] == [stats["observation.images.top"]["count"][0] + LENGTHS[2]]
    np.testing.assert_array_equal(open_dataset(root).episode(5).state, episode(2).state)
    compact(root, in_place=True, progress=False)
    assert open_dataset(root).metadata(5)["extra"] == {"operator": "number 2"}


@pytest.mark.parametrize("name", ["lerobot_v3_video", "lerobot_v3_image", "lerobot_v3_many_files"])
def test_datasets_of_lerobot(tmp_path: Path, fixtures: Path, name: str) -> None:
    new = compact(fixtures / name, tmp_path / name, progress=False)
    require_equal(open_dataset(fixtures / name), open_dataset(new))
    assert names(new, "data") == ["chunk-000/file-000.parquet"]


KILLED = """
import os, signal, sys
from pathlib import Path
from menura.data import compact

rename, renames = Path.rename, 0

def counted(self, target):
    global renames
    if renames == {renames}:
        os.kill(os.getpid(), signal.SIGKILL)
    renames += 1
    return rename(self, target)

Path.rename = counted
compact({root!r}, in_place=True, progress=False)
"""


@pytest.mark.parametrize("renames", [0, 1])
def test_killed_in_place(tmp_path: Path, renames: int) -> None:
    """Before the first rename, and between the two that put the new directory in the place of the old one."""
    root = write(tmp_path / "data", video=False)
    code = KILLED.format(renames=renames, root=str(root))
    done = subprocess.run([sys.executable, "-c", code], env={**os.environ, "OMP_NUM_THREADS": "1"}, check=False)
    assert done.returncode == -signal.SIGKILL
    compact(root, in_place=True, progress=False)  # takes the old one up
    reader = open_dataset(root)
    assert reader.lengths().tolist() == list(LENGTHS)
    np.testing.assert_array_equal(np.asarray(reader.episode(2).images["top"]), episode(2).images["top"])


def cut(root: Path) -> None:
    path = root / "videos/observation.images.top/chunk-000/file-001.mp4"
    path.write_bytes((root / "videos/observation.images.top/chunk-000/file-000.mp4").read_bytes())
    other = root / "videos/observation.images.top/chunk-000/file-002.mp4"
    other.write_bytes(path.read_bytes())


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (cut, "expected them, got a file of 6 frames"),
        (lambda root: (root / "data/chunk-000/file-000.parquet").write_bytes(b"PAR1"), "damaged or cut off"),
    ],
)
def test_damage_is_told_and_leaves_nothing(tmp_path: Path, damage: Callable[[Path], Any], message: str) -> None:
    root = write(tmp_path / "old")
    damage(root)
    with pytest.raises(DataError, match=message):
        compact(root, tmp_path / "new", progress=False)
    assert [path.name for path in tmp_path.iterdir()] == ["old"]


def test_what_is_refused(tmp_path: Path) -> None:
    root = write(tmp_path / "old", video=False)
    with pytest.raises(ConfigError, match="expected output_dir, or in_place, and not both"):
        compact(root)
    with pytest.raises(DataError, match="expected a new or empty directory"):
        compact(root, root.parent)
    with LeRobotWriter(root, FEATURES, video=False, resume=True), pytest.raises(DataError, match="another process"):
        compact(root, in_place=True)


def test_command(tmp_path: Path) -> None:
    root = write(tmp_path / "old")
    done = CliRunner().invoke(app, ["data", "compact", str(root), "-o", str(tmp_path / "new")])
    assert (done.exit_code, done.stdout.split()) == (0, [str(tmp_path / "new")])
    require_equal(open_dataset(root), open_dataset(tmp_path / "new"))
