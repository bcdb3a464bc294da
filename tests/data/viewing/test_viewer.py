"""What the page asks: answers that are right, read only when asked for."""

from __future__ import annotations

import json
import re
import struct
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from menura.data import Episode, LeRobotWriter, open_dataset
from menura.data.pictures import decode_picture
from menura.data.viewing import Viewer
from menura.errors import ConfigError, DataError

FIXTURES = Path(__file__).parents[2] / "fixtures"
FORMATS: dict[str, tuple[str, dict[str, Any]]] = {
    "lerobot v3, video": ("lerobot/lerobot_v3_video", {}),
    "lerobot v3, many files": ("lerobot/lerobot_v3_many_files", {}),
    "lerobot v3, images": ("lerobot/lerobot_v3_image", {}),
    "lerobot v2.1": ("lerobot/lerobot_v21", {}),
    "aloha": ("aloha/episode_0.hdf5", {"colour": "bgr"}),
}


@pytest.fixture
def viewer(painted: Any, tmp_path: Path) -> Any:
    made = Viewer(painted.reader, cache_dir=str(tmp_path))
    yield made
    made.close()


def opened(strip: bytes) -> tuple[dict[str, Any], list[list[np.ndarray]]]:
    """The header, and the pictures of each camera."""
    (length,) = struct.unpack("<I", strip[:4])
    header, place, cameras = json.loads(strip[4 : 4 + length]), 4 + length, []
    for camera in header["cameras"]:
        cameras.append([])
        for size in camera.get("sizes", []):
            cameras[-1].append(decode_picture(strip[place : place + size], "strip"))
            place += size
    assert place == len(strip)
    return header, cameras


def test_the_list_costs_no_episode(viewer: Viewer, painted: Any) -> None:
    dataset, episodes = viewer.dataset(), viewer.episodes()
    assert dataset["lengths"] == painted.lengths
    assert dataset["features"]["state"]["names"] == ["arm", "grip", "cube"]
    assert [episodes["tasks"][number] for number in episodes["task"]] == viewer.reader.tasks()
    assert episodes["success"][:4] == [True, True, True, False]
    assert viewer.reader.read == []


def test_an_episode(viewer: Viewer) -> None:
    facts, expected = viewer.episode(2), viewer.reader.episode(2)
    assert facts["length"], facts["seed"] == (60, 7)
    assert facts["extra"] == {"operator": "Ada"}
    table = np.frombuffer(viewer.table(2), "<f4").reshape(60, 5)
    np.testing.assert_array_equal(table, np.hstack([expected.state, expected.action]))  # and what is no number stays
    assert viewer.reader.read == [2, 2]  # once for us, once for the page
    assert json.dumps(facts, allow_nan=False)


def test_facts_without_a_word_in_json_are_said_as_text(viewer: Viewer) -> None:
    viewer.reader.metadata = lambda index: {"extra": {"error": [float("nan"), 1.0]}, "reward": float("inf")}  # type: ignore[method-assign]
    extra = viewer.episode(0)["extra"]
    assert {key: extra[key] for key in ("error", "reward")} == {"error": ["nan", 1.0], "reward": "inf"}


@pytest.mark.parametrize(("number", "frames"), [(0, range(16)), (1, range(16, 32)), (2, range(32, 40))])
def test_a_strip_has_these_very_frames_of_all_cameras(viewer: Viewer, painted: Any, number: int, frames: range) -> None:
    header, cameras = opened(viewer.strip(0, number))
    assert (header["start"], header["stop"]) == (frames.start, frames.stop)
    for camera, pictures in zip(painted.cameras, cameras, strict=True):
        assert [picture.shape[:2] for picture in pictures] == [painted.cameras[camera]] * len(frames)
        for frame, picture in zip(frames, pictures, strict=True):
            assert np.abs(picture.astype(int) - painted.colour(0, frame, camera)).max() <= 3
    assert viewer.strip(0, number) is viewer.strip(0, number)  # kept


def test_a_damaged_camera_leaves_the_others(viewer: Viewer) -> None:
    header, (left, right) = opened(viewer.strip(5, 0))
    assert (len(left), len(right)) == (16, 0)
    assert header["cameras"][1] == {"error": "right.mp4: damaged."}


@pytest.mark.parametrize(
    ("question", "message"),
    [
        (lambda viewer: viewer.episode(30), "episode: expected a number in 0 … 29, got 30"),
        (lambda viewer: viewer.strip(1, 2), "number: expected a number in 0 … 1, got 2"),
        (lambda viewer: viewer.augmented(0, 0, 0, 1), "expected a task, got none. Start with --augment"),
    ],
)
def test_what_is_not_there(viewer: Viewer, question: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        question(viewer)


def examined(viewer: Viewer) -> dict[str, Any]:
    end = time.monotonic() + 60
    while (state := viewer.examination.state())["doing"] is not None:
        assert time.monotonic() < end
        time.sleep(0.02)
    return state


def test_the_examination_finds_what_is_planted(viewer: Viewer, painted: Any) -> None:
    state = examined(viewer)
    (nan,) = [finding for finding in state["report"]["findings"] if finding["kind"] == "nan"]
    episode, frame = painted.nan_at
    assert list(nan["places"]) == [{"episode": episode, "frames": (frame, frame + 1)}]
    assert "finite" in state["errors"]["statistics"]
    assert viewer.reader.read == []  # by another process


def test_an_episode_unlike_the_others_is_told(painted: Any) -> None:
    reader = painted.reader()
    episode = reader.episode(0)
    images = {"left": episode.images["left"]}
    reader.episode = lambda index: Episode(episode.state[:, :2], episode.action, images, fps=30)
    viewer = Viewer(lambda: reader)
    with pytest.raises(DataError, match=re.escape("expected (3, 2) numbers in state and action as the dataset says")):
        viewer.table(0)
    assert "expected a camera 'right'" in opened(viewer.strip(0, 0))[0]["cameras"][1]["error"]
    viewer.close()


def test_an_error_of_a_users_class_is_told(
    painted: Any, show: Callable[[Viewer], Any], ask: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def episode(self: Any, index: int) -> Any:
        raise ZeroDivisionError("by the user")

    monkeypatch.setattr(painted.reader, "episode", episode)
    with show(Viewer(painted.reader)) as server:
        status, answer = ask(server, "api/episode?episode=0")
    assert (status, answer["error"]) == (500, "ZeroDivisionError: by the user")


def broken() -> Any:
    """A dataset whose second opening fails, by an error of the user's."""
    broken.times += 1  # type: ignore[attr-defined]
    if broken.times > 1:  # type: ignore[attr-defined]
        raise ZeroDivisionError
    return broken.reader  # type: ignore[attr-defined]


def test_an_examination_that_dies_is_told(painted: Any, capfd: pytest.CaptureFixture[str]) -> None:
    broken.times, broken.reader = 0, painted.reader()  # type: ignore[attr-defined]
    viewer = Viewer(broken)
    state = examined(viewer)
    viewer.close()
    assert set(state["errors"]) == {"statistics", "report"}
    assert "menura data check" in state["errors"]["report"]


def test_tasks_of_lerobot_are_read_off_its_table(painted: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = painted.reader()
    with LeRobotWriter(tmp_path / "made", source.features) as writer:
        for index in (0, 1, 3):
            writer.add_episode(source.episode(index))
    reader = open_dataset(tmp_path / "made")
    said = [reader.episode(index).task for index in range(3)]
    monkeypatch.setattr(type(reader), "episode", lambda self, index: pytest.fail("an episode was read"))
    assert reader.tasks() == said == [source.tasks()[index] for index in (0, 1, 3)]


@pytest.mark.parametrize("name", FORMATS)
def test_formats_are_shown_as_they_are_read(name: str, tmp_path: Path) -> None:
    path, args = FORMATS[name]
    viewer = Viewer(partial(open_dataset, FIXTURES / path, **args), cache_dir=str(tmp_path))
    reader = open_dataset(FIXTURES / path, **args)
    last = len(reader) - 1
    episode = reader.episode(last)
    assert viewer.episode(last)["task"] == episode.task
    table = np.frombuffer(viewer.table(last), "<f4").reshape(len(episode), -1)
    np.testing.assert_array_equal(table, np.hstack([episode.state, episode.action]))
    told = viewer.episodes()
    assert told["tasks"][told["task"][last]] == episode.task
    header, cameras = opened(viewer.strip(last, 0))
    for frames, pictures in zip(episode.images.values(), cameras, strict=True):
        assert len(pictures) == header["stop"] == min(16, len(episode))
        for frame, picture in zip(frames, pictures, strict=False):
            assert np.abs(picture.astype(int) - frame).mean() < 4
    state = examined(viewer)
    viewer.close()
    assert state["errors"] == {}
    assert state["report"]["episodes"] == len(reader)
    assert state["statistics"]["action"]["count"] == int(reader.lengths().sum())
