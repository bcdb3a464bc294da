"""ReplayRobot: a recorded episode is seen at its times, and what it is sent is compared with what was recorded."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from menura.clock import VirtualClock
from menura.config import load_robot
from menura.errors import ContractError, DataError
from menura.robots import RobotError, make_robot
from menura.robots.replay import ReplayRobot

MINE = """\
import numpy as np

from menura.data.episode import Episode
from menura.features import CameraFeature, Features, Rotation, VectorFeature


class Recorded:
    name = "recorded"
    features = Features(
        VectorFeature(("x",)),
        VectorFeature(("x", "roll", "pitch", "yaw"), rotations=(Rotation(("roll", "pitch", "yaw"), "euler_xyz"),)),
        {"eye": CameraFeature(2, 2)},
        fps=10.0,
        control_type="abs",
    )

    def __len__(self):
        return 2

    def episode(self, index):
        steps = np.arange(5, dtype=np.float32)
        action = np.stack([steps / 10, np.full(5, 3.1), 0 * steps, 0 * steps], axis=1).astype(np.float32)
        images = {"eye": np.tile(np.arange(5, dtype=np.uint8)[:, None, None, None], (1, 2, 2, 3))}
        return Episode(steps[:, None] + 10 * index, action, images, "task", 10.0, success=index == 1)
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "dataset").mkdir()
    (tmp_path / "dataset" / "recorded.py").write_text(MINE)
    return tmp_path


def replay(project: Path, **args: object) -> ReplayRobot:
    config = load_robot({"class": "ReplayRobot", "args": {"dataset": {"class": "Recorded"}, **args}}, project=project)
    robot = make_robot(config, project, VirtualClock(1.0))
    assert isinstance(robot, ReplayRobot)
    return robot


def test_known_before_it_is_connected(project: Path) -> None:
    robot = replay(project)
    assert (robot.name, robot.task, robot.features.fps) == ("recorded:0", "task", 10.0)
    assert robot.limits.low.tolist() == pytest.approx([-0.4, 2.1, -1, -1])
    assert robot.limits.high.tolist() == pytest.approx([0.8, 4.1, 1, 1])
    with pytest.raises(RobotError, match="expected it to be connected"):
        robot.get_observation()


def test_frames_come_at_their_times_and_then_it_is_over(project: Path) -> None:
    robot = replay(project, episode=1)
    robot.connect()
    seen = []
    for _ in range(5):
        assert robot.over() is None
        observation = robot.get_observation()
        seen.append((float(observation["state"][0]), int(observation["images"]["eye"][0, 0, 0])))
        assert observation["times"] == {
            "state": pytest.approx(1 + (len(seen) - 1) / 10),
            "eye": pytest.approx(1 + (len(seen) - 1) / 10),
        }
        robot.clock.advance(0.1)
    assert seen == [(10, 0), (11, 1), (12, 2), (13, 3), (14, 4)]
    assert robot.over() == "the recording is over: no action was sent"
    assert robot.stopped() is None
    assert robot.get_observation()["state"].tolist() == [14]
    assert robot.success() is None  # what was recorded is nobody's success now
    robot.reset()
    assert robot.over() is None
    assert robot.get_observation()["state"].tolist() == [10]


def test_twice_as_fast(project: Path) -> None:
    robot = replay(project, rate=2.0)
    robot.connect()
    robot.clock.advance(0.1)
    assert robot.get_observation()["state"].tolist() == [2]


def test_what_it_is_sent_is_compared_and_a_turn_is_the_shortest_one(project: Path) -> None:
    robot = replay(project)
    robot.connect()
    assert str(robot.error) == "no action was sent"
    robot.send_action(np.array([0.0, -3.1, 0, 0], np.float32))  # clipped to 2.1 rad
    robot.clock.advance(0.1)
    robot.send_action(np.array([0.3, 3.2, 0, 0], np.float32))
    error = robot.error
    assert (error.names, error.count) == (("x", "rotation of roll"), 2)
    assert error.mean == pytest.approx([0.1, 0.55], abs=1e-5)
    assert error.largest == pytest.approx([0.2, 1.0], abs=1e-5)
    assert str(error) == "2 actions, off the recorded ones by x 0.1 (at most 0.2), rotation of roll 0.55 (at most 1)"
    robot.clock.advance(0.4)
    assert robot.over() == f"the recording is over: {error}"
    robot.reset()
    assert robot.error.count == 0


def test_limits_of_ones_own(project: Path) -> None:
    robot = replay(project, limits={"low": -5, "high": 5})
    robot.connect()
    robot.send_action(np.array([0, 3.1 - 2 * np.pi, 0, 0], np.float32))
    assert robot.error.largest == pytest.approx([0, 0], abs=1e-5)
    with pytest.raises(ContractError, match="expected finite values"):
        robot.send_action(np.full(4, np.nan, np.float32))


def test_what_is_not_there(project: Path) -> None:
    with pytest.raises(RobotError, match="episode: expected a number from 0 to 1, got 2"):
        replay(project, episode=2)
    with pytest.raises(RobotError, match="rate: expected a number above 0"):
        replay(project, rate=0.0)
    with pytest.raises(DataError):
        replay(project, dataset="data/nothing")
