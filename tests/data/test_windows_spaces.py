"""Windows that deliver what is trained instead of what was recorded, and statistics of it."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from menura.data import Episode, open_dataset, window_statistics, windows
from menura.data.readers.base import Reader
from menura.errors import DataError
from menura.features import Features, Rotation, VectorFeature
from menura.processing.spaces import Spaces

TURN = ("qw", "qx", "qy", "qz")
POSE = VectorFeature(("x", *TURN, "grip"), rotations=(Rotation(TURN, "quat_wxyz"),), grippers={"grip": (0.0, 1.0)})


class Poses:
    """Three episodes of different lengths; one has no rotation at `broken`."""

    features = Features(POSE, POSE, fps=10, control_type="abs")

    def __init__(self, broken: int | None = None) -> None:
        self.broken = broken

    def __len__(self) -> int:
        return 3

    def episode(self, index: int) -> Episode:
        random = np.random.default_rng(index)
        state, action = random.normal(size=(2, 5 + 3 * index, 6)).astype(np.float32)
        if self.broken is not None and index == 2:
            state[self.broken, 1:5] = 0
        return Episode(state, action, fps=10)


@pytest.fixture
def reader() -> Reader:
    return open_dataset(Poses())


def of(reader: Reader, **settings: Any) -> Spaces:
    return Spaces(reader.features, **settings)


SPACES: list[dict[str, Any]] = [
    {"action_type": "relative"},
    {"action_type": "delta", "action_rotation": "6d"},
    {"action_type": "relative", "action_rotation": "axis_angle", "state_rotation": "6d"},
]


@pytest.mark.parametrize("settings", SPACES)
@pytest.mark.parametrize("offsets", [(0, 1, 2, 3), (-2, 0, 3), None])
@pytest.mark.parametrize("chosen", [None, "timestep > 1"])
def test_batches_and_statistics(
    reader: Reader, tmp_path: Path, settings: dict[str, Any], offsets: tuple[int, ...] | None, chosen: str | None
) -> None:
    options: dict[str, Any] = {"cache_dir": tmp_path, "progress": False}
    if chosen is not None:
        options["filter"] = {"frames": chosen}
    spaces = of(reader, **settings)
    plain = windows(reader, (-1, 0), offsets, **options)
    items = windows(reader, (-1, 0), offsets, spaces=spaces, **options)
    recorded, batch = (each.__getitems__(np.arange(len(each))) for each in (plain, items))
    assert np.array_equal(batch["actions"], spaces.encode_actions(recorded["actions"], recorded["state"][:, -1]))
    assert np.array_equal(batch["state"], spaces.encode_state(recorded["state"]))
    assert np.array_equal(batch["is_pad"], recorded["is_pad"])
    assert items.features.action == spaces.trained.action
    assert items.shapes()["action width"] == batch["actions"].shape[-1]
    assert items[3]["actions"] == pytest.approx(batch["actions"][3])

    trained = batch["actions"][~batch["is_pad"]]  # brute force
    statistics = items.statistics()["action"]
    assert statistics.count == len(trained)
    assert statistics.mean == pytest.approx(trained.mean(0, dtype=np.float64), abs=1e-6)
    assert statistics.std == pytest.approx(trained.std(0, dtype=np.float64), abs=1e-6)
    assert statistics.q99 == pytest.approx(np.quantile(trained.astype(np.float64), 0.99, axis=0), abs=1e-6)
    assert items.statistics()["state"].dim == spaces.trained.state_dim
    again = pickle.loads(pickle.dumps(items))
    assert np.array_equal(again.__getitems__([1, 2])["actions"], batch["actions"][[1, 2]])
    assert again.split([0])[1].spaces.key == spaces.key


def test_statistics_are_kept_by_space_and_chunk(reader: Reader, tmp_path: Path) -> None:
    def mean(count: int, **settings: Any) -> float:
        items = windows(reader, (0,), range(count), spaces=of(reader, **settings), cache_dir=tmp_path, progress=False)
        return float(items.statistics()["action"].mean[0])

    relative = {"action_type": "relative"}
    assert len({mean(2), mean(2, **relative), mean(3, **relative), mean(2, action_type="delta")}) == 4
    assert mean(2, **relative) == mean(2, **relative)
    assert mean(2) == mean(3)


@pytest.mark.parametrize("settings", [*SPACES, {"state_rotation": "6d"}])
def test_what_is_no_rotation_is_told(tmp_path: Path, settings: dict[str, Any]) -> None:
    reader = open_dataset(Poses(broken=4))
    items = windows(reader, (0,), range(3), spaces=of(reader, **settings), cache_dir=tmp_path, progress=False)
    expected = (
        r"episode 2, frame 4: rotation quat_wxyz: expected numbers that say a rotation, got \[0.0, 0.0, 0.0, 0.0\]"
    )
    with pytest.raises(DataError, match=expected):
        items.statistics()


def test_an_action_that_is_no_rotation_is_told(tmp_path: Path) -> None:
    poses = Poses()
    whole = poses.episode

    def episode(index: int) -> Episode:
        given = whole(index)
        given.action[3, 1:5] = 0
        return given

    poses.episode = episode  # type: ignore[method-assign]
    reader = open_dataset(poses)
    for settings in (*SPACES, {"action_rotation": "6d"}):
        items = windows(reader, (0,), range(3), spaces=of(reader, **settings), cache_dir=tmp_path, progress=False)
        with pytest.raises(DataError, match="episode 0, frame 3: rotation quat_wxyz"):
            items.restricted(items.episodes, None, "").statistics()


def test_long_statistics_show_progress(
    reader: Reader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")  # a terminal to rich
    items = windows(reader, (0,), range(3), spaces=of(reader, action_type="relative"), cache_dir=tmp_path)
    capsys.readouterr()
    monkeypatch.setattr(window_statistics, "_MANY", 10)
    items.statistics()
    assert "Statistics of the actions of" in capsys.readouterr().err
