"""LeRobotDataset v2.0 and v2.1: what differs from v3.0.

That what LeRobot 0.3.3 wrote is read as it reads it itself stands in `test_lerobot_reader.py`.
"""

from __future__ import annotations

import json
import pickle
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from menura.data import Reader, open_dataset
from menura.data.readers.lerobot_v2 import LeRobotV2Reader
from menura.errors import DataError
from menura.features import CameraFeature, Features, VectorFeature

FIXTURE = Path(__file__).parents[1] / "fixtures" / "lerobot" / "lerobot_v21"
GOLDEN = FIXTURE.with_name("lerobot_v21.golden.npz")
DATA = "data/chunk-000/episode_000000.parquet"
VIDEO = "videos/chunk-000/observation.images.top/episode_000000.mp4"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A copy that may be changed."""
    return shutil.copytree(FIXTURE, tmp_path / "data")


def edit_info(root: Path, edit: Callable[[dict[str, Any]], Any]) -> None:
    path = root / "meta/info.json"
    info = json.loads(path.read_text())
    edit(info)
    path.write_text(json.dumps(info))


def test_it_is_recognised_and_described() -> None:
    reader = open_dataset(FIXTURE)
    assert isinstance(reader, LeRobotV2Reader)
    assert reader.lengths().tolist() == [12, 9, 14]
    assert [reader.episode(i).task for i in range(3)] == ["push the block", "lift the block", "push the block"]
    assert reader.features == Features(
        state=VectorFeature(("j0", "j1", "gripper")),
        action=VectorFeature(("a0", "a1")),
        cameras={"top": CameraFeature(48, 64), "wrist": CameraFeature(24, 32)},
        fps=10.0,
        language=True,
        robot="sim",
    )


def test_a_scalar_in_the_state_and_a_camera_renamed() -> None:
    keys = {"state": ["next.reward", "observation.state"], "images": {"hand": "wrist"}}
    reader = open_dataset(FIXTURE, keys=keys, episodes=[2])
    state = reader.episode(0).state
    np.testing.assert_array_equal(state[:, 1:], np.load(GOLDEN)["state_2"])
    np.testing.assert_allclose(state[:, 0], np.arange(14) / 14, rtol=1e-6)
    assert list(reader.episode(0).images) == ["hand"]


def test_version_2_0(root: Path) -> None:
    """As before `episodes_stats.jsonl`: one `stats.json`, cameras described by `video_info`."""

    def older(info: dict[str, Any]) -> None:
        info["codebase_version"] = "v2.0"
        top = info["features"]["observation.images.top"]
        top["video_info"] = top.pop("info")

    edit_info(root, older)
    (root / "meta/episodes_stats.jsonl").unlink()
    (root / "meta/stats.json").write_text("{}")
    new, old = open_dataset(FIXTURE), open_dataset(root)
    assert old.features == new.features
    np.testing.assert_array_equal(old.episode(1).images["top"][:], new.episode(1).images["top"][:])


def test_lines_in_another_order(root: Path) -> None:
    path = root / "meta/episodes.jsonl"
    path.write_text("\n".join(reversed(path.read_text().splitlines())) + "\n\n")
    assert open_dataset(root).lengths().tolist() == [12, 9, 14]


def test_only_the_files_of_the_chosen_episodes_are_needed(root: Path) -> None:
    fingerprint = open_dataset(root, episodes=[2]).fingerprint()
    shutil.rmtree(root / "data/chunk-000")
    shutil.rmtree(root / "videos/chunk-000")
    reader = open_dataset(root, episodes=[2])
    assert reader.fingerprint() == fingerprint
    assert len(reader.episode(0).images["top"][:]) == 14
    assert isinstance(reader, LeRobotV2Reader)
    assert reader.files() == [
        "data/chunk-001/episode_000002.parquet",
        "videos/chunk-001/observation.images.top/episode_000002.mp4",
    ]


def test_pickles_with_its_episodes() -> None:
    reader = open_dataset(FIXTURE)
    episode = reader.episode(1)
    again, same = pickle.loads(pickle.dumps((reader, episode)))
    assert again.fingerprint() == reader.fingerprint()
    for camera in ("top", "wrist"):
        np.testing.assert_array_equal(same.images[camera][:], episode.images[camera][:])


def use(root: Path) -> Reader:
    reader = open_dataset(root)
    for index in range(len(reader)):
        for frames in reader.episode(index).images.values():
            frames[:]
    return reader


def change(pattern: str, replacement: str) -> Callable[[Path], Any]:
    return lambda path: path.write_text(re.sub(pattern, replacement, path.read_text()))


def double_rows(path: Path) -> None:
    table = pq.read_table(path)
    pq.write_table(pa.concat_tables([table, table]), path)


def drop_rows(path: Path) -> None:
    pq.write_table(pq.read_table(path).slice(0, 9), path)


@pytest.mark.parametrize(
    ("file", "damage", "message"),
    [
        ("meta/episodes.jsonl", Path.unlink, "{path}: expected a file, found none. Fetch the dataset again."),
        (
            "meta/episodes.jsonl",
            change(r'"length": 9', '"length": '),
            r"{path}:2: not JSON \(.*\). Fetch the file again.",
        ),
        (
            "meta/episodes.jsonl",
            change(r'"length": 9', '"length": "nine"'),
            r"{path}:2: expected episode_index \(int\) and length \(int\), got .*. Fetch the file again.",
        ),
        (
            "meta/episodes.jsonl",
            change(r'"episode_index": 1', '"episode_index": 5'),
            r"{path}: expected the episodes 0 … 2, each once, got 2 instead of 1. Fetch the dataset again.",
        ),
        (
            "meta/episodes.jsonl",
            change(r'.*"episode_index": 2.*\n', ""),
            r"{root}: meta/info.json counts 3 episodes, meta/episodes.jsonl holds 2. .*",
        ),
        (
            "meta/tasks.jsonl",
            change("task_index", "index"),
            r"{path}:1: expected task_index \(int\) and task \(str\).*",
        ),
        (DATA, Path.unlink, "{path}: expected a file, found none. Fetch the dataset again."),
        (
            DATA,
            double_rows,
            r"{path}: expected the 12 frames that meta/episodes.jsonl says of episode 0, got 24. Fetch .*",
        ),
        (DATA, drop_rows, r"{path}: expected rows 0 … 11 to be the 12 frames of episode 0, got 9 of them. .*"),
        (VIDEO, Path.unlink, "Video {path}: expected a file, found none. .*"),
    ],
)
def test_damage_is_named(root: Path, file: str, damage: Callable[[Path], Any], message: str) -> None:
    use(root)
    damage(root / file)
    with pytest.raises(DataError) as caught:
        use(root)
    pattern = message.format(path=re.escape(str(root / file)), root=re.escape(str(root)))
    assert re.fullmatch(pattern, str(caught.value)), str(caught.value)
