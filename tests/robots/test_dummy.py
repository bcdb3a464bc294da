"""DummyRobot: follows its commands in any clock's time, and fails when it is told to."""

from __future__ import annotations

import math
import threading
from typing import Any

import numpy as np
import pytest

from menura.clock import VirtualClock, WallClock
from menura.config import load_robot
from menura.errors import ContractError
from menura.robots import RobotError, make_robot
from menura.robots.dummy import DummyRobot

LIMITS = {"low": -1.0, "high": 1.0}


def dummy(**args: Any) -> DummyRobot:
    robot = DummyRobot(**{"action": ["a", "b"], "limits": LIMITS, "fps": 100.0, "clock": VirtualClock(), **args})
    robot.connect()
    return robot


def later(robot: DummyRobot, seconds: float) -> np.ndarray:
    robot.clock.advance(seconds)  # type: ignore[attr-defined]  # a VirtualClock
    return robot.get_observation()["state"]


def test_what_it_says_before_it_is_connected() -> None:
    robot = make_robot(load_robot("dummy"))
    assert robot.features.action.names == robot.features.state.names
    assert robot.features.cameras["front"].width == 160
    assert robot.limits.velocity.tolist() == [3.0] * 6
    with pytest.raises(RobotError, match=r"expected it to be connected, got a robot that is not. Call connect\(\)"):
        robot.get_observation()


def test_it_follows_with_the_lag_it_is_told() -> None:
    robot = dummy(lag_s=0.5)
    assert robot.send_action(np.array([1.0, -0.5], np.float32)).tolist() == [1.0, -0.5]
    assert later(robot, 0.5) == pytest.approx(np.array([1.0, -0.5]) * (1 - math.exp(-1)), rel=1e-4)
    assert later(robot, 10) == pytest.approx([1.0, -0.5], abs=1e-4)


def test_it_is_sent_what_its_limits_allow() -> None:
    robot = dummy(lag_s=0.0)
    assert robot.send_action(np.array([5.0, -5.0], np.float32)).tolist() == [1.0, -1.0]
    assert later(robot, 0.01).tolist() == [1.0, -1.0]


def test_differences_add_up_and_a_gripper_is_where_it_is_told() -> None:
    action = {"names": ["a", "grip"], "grippers": {"grip": [0, 1]}}
    robot = dummy(action=action, control_type="delta", lag_s=0.0)
    robot.send_action(np.array([0.25, 1.0], np.float32))
    assert later(robot, 0.05).tolist() == [0.25, 1.0]
    robot.send_action(np.array([0.25, 0.5], np.float32))
    assert later(robot, 0.05).tolist() == [0.5, 0.5]


def test_only_dimensions_of_the_same_name_move() -> None:
    robot = dummy(state=["cube", "b"], start={"cube": 0.3}, lag_s=0.0)
    robot.send_action(np.array([1.0, 1.0], np.float32))
    assert later(robot, 0.1) == pytest.approx([0.3, 1.0])


def test_captures_are_regular_and_pictures_change_with_each() -> None:
    robot = dummy(cameras={"eye": [4, 8]}, fps=10.0)
    assert robot.get_observation()["times"] == {"state": 0.0, "eye": 0.0}
    robot.clock.advance(0.57)
    seen = robot.get_observation()
    assert seen["times"] == {"state": pytest.approx(0.5), "eye": pytest.approx(0.5)}
    assert seen["images"]["eye"].shape == (4, 8, 3)
    assert seen["images"]["eye"][0, :, 0].argmax() == 5


def test_a_new_episode_begins_at_the_start() -> None:
    robot = dummy(lag_s=0.0, start={"a": 0.5})
    robot.send_action(np.zeros(2, np.float32))
    assert later(robot, 0.1).tolist() == [0.0, 0.0]
    robot.reset(3)
    assert later(robot, 0.1).tolist() == [0.5, 0.0]


def test_connected_again_it_is_where_it_was_and_rests() -> None:
    robot = dummy(lag_s=0.05)
    robot.send_action(np.ones(2, np.float32))
    left = later(robot, 0.05)
    robot.disconnect()
    robot.disconnect()
    robot.clock.advance(1e6)
    robot.connect()
    robot.connect()
    assert later(robot, 1.0).tolist() == left.tolist() != [1.0, 1.0]


def test_the_connection_is_lost_once_and_can_be_made_again() -> None:
    robot = dummy(faults={"disconnect_after_s": 1.0})
    later(robot, 0.9)
    with pytest.raises(RobotError, match="dummy: the connection was lost"):
        later(robot, 0.2)
    with pytest.raises(RobotError, match="the connection was lost"):
        robot.send_action(np.zeros(2, np.float32))
    robot.connect()
    assert later(robot, 5).shape == (2,)


def test_its_emergency_stop() -> None:
    robot = dummy(faults={"stop_after_s": 1.0})
    assert robot.stopped() is None
    later(robot, 1.0)
    assert robot.stopped() == "the emergency stop of the robot was pressed"


def test_a_frozen_camera_and_a_delay() -> None:
    robot = dummy(
        cameras={"eye": [2, 2]}, faults={"frozen_after_s": {"eye": 0.5}, "sensing_delay_s": 0.1, "action_delay_s": 0.1}
    )
    robot.clock.advance(1.0)
    times = robot.get_observation()["times"]
    assert times == {"state": pytest.approx(0.9), "eye": pytest.approx(0.49)}


@pytest.mark.parametrize("action", [np.zeros(3, np.float32), np.array([np.nan, 0], np.float32)])
def test_wrong_actions_are_refused(action: np.ndarray) -> None:
    with pytest.raises(ContractError, match="dummy action: expected"):
        dummy().send_action(action)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ({"fps": 0}, "expected fps above 0"),
        ({"start": {"aa": 1}}, "start.aa: the state has no such dimension"),
        ({"faults": {"frozen_after_s": {"eye": 1}}}, "faults.frozen_after_s.eye: expected one of"),
        (
            {"faults": {"frozen_after": {"eye": 1}}},
            "faults.frozen_after: no such fault; did you mean frozen_after_s?",
        ),
    ],
)
def test_dummies_that_cannot_be(args: dict[str, Any], message: str) -> None:
    with pytest.raises(RobotError, match=message):
        dummy(**args)


def test_it_is_read_by_one_thread_and_driven_by_another() -> None:
    robot = dummy(clock=WallClock(), fps=1000.0, cameras={"eye": [2, 2]}, lag_s=0.0)
    newest: list[float] = []

    def read() -> None:
        newest.extend(robot.get_observation()["times"]["state"] for _ in range(500))

    reader = threading.Thread(target=read)
    reader.start()
    for number in range(500):
        robot.send_action(np.full(2, number / 500, np.float32))
    reader.join()
    assert newest == sorted(newest)
    assert len(newest) == 500
