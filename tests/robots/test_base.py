"""Limits, and what counts as a robot."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from menura.clock import VirtualClock, WallClock
from menura.config import load_robot
from menura.features import VectorFeature
from menura.robots import Limits, Robot, RobotError, make_robot

ARM = VectorFeature(("elbow", "wrist", "gripper"))


def test_numbers_for_all_for_each_and_by_name() -> None:
    limits = Limits.of(
        {
            "low": -1,
            "high": [1, 2, 3],
            "velocity": {"gripper": 5.0, "elbow": 3.0, "wrist": 4.0},
            "workspace": {"wrist": [-0.5, 0.5]},
        },
        ARM,
    )
    assert limits.low.tolist() == [-1, -1, -1]
    assert limits.high.tolist() == [1, 2, 3]
    assert limits.velocity is not None
    assert limits.velocity.tolist() == [3, 4, 5]
    assert limits.step is None
    assert limits.workspace == {"wrist": (-0.5, 0.5)}
    assert {limits.low.dtype, limits.high.dtype, limits.velocity.dtype} == {np.dtype(np.float32)}


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ({"high": 1}, "limits.low: expected a number for each dimension of the action, got none"),
        ({"low": 0, "hihg": 1}, "limits.hihg: no such key; did you mean high?"),
        ({"low": [0, 0], "high": 1}, "limits.low: expected 3 numbers"),
        (
            {"low": {"elbow": 0, "writs": 0}, "high": 1},
            "limits.low.writs: the action has no such dimension; did you mean",
        ),
        (
            {"low": {"elbow": 0}, "high": 1},
            "limits.low: expected a number for every dimension, got none for ['wrist', 'g",
        ),
        ({"low": "a", "high": 1}, "limits.low: expected numbers, got 'a'"),
        ({"low": 0, "high": [1, -1, 1]}, "expected low at most high, got 0 and -1 for dimension 1"),
        ({"low": -np.inf, "high": 1}, "expected finite numbers in low and high"),
        ({"low": 0, "high": 1, "step": 0}, "limits.step: expected numbers above 0"),
        ({"low": 0, "high": 1, "velocity": [1, float("nan"), 1]}, "limits.velocity: expected numbers above 0"),
        ({"low": 0, "high": 1, "workspace": {"elbow": 1}}, "limits.workspace.elbow: expected [lowest, highest], got 1"),
        ({"low": 0, "high": 1, "workspace": {"elbow": [2, 1]}}, "limits.workspace.elbow: expected [lowest, highest]"),
        ({"low": 0, "high": 1, "workspace": {"z": [0, 1]}}, "limits.workspace.z: the action has no such dimension"),
    ],
)
def test_limits_that_cannot_be(written: dict[str, object], message: str) -> None:
    with pytest.raises(RobotError) as caught:
        Limits.of(written, ARM)
    assert message in str(caught.value)


@given(arrays(np.float32, 3, elements=st.floats(-1e6, 1e6, width=32)))
def test_what_is_clipped_is_within_and_what_is_within_is_not_changed(action: np.ndarray) -> None:
    limits = Limits.of({"low": -1, "high": [1, 2, 3]}, ARM)
    clipped = limits.clip(action)
    assert limits.within(clipped)
    assert np.array_equal(clipped, action) == limits.within(action)


@pytest.mark.parametrize("number", [np.nan, np.inf])
def test_what_is_not_finite_is_never_clipped_into_a_command(number: float) -> None:
    limits = Limits.of({"low": -1, "high": 1}, ARM)
    action = np.array([0, number, 0], np.float32)
    assert not limits.within(action)
    with pytest.raises(RobotError, match="expected finite numbers"):
        limits.clip(action)


MINE = """\
import numpy as np

from menura.features import Features, VectorFeature
from menura.robots import Limits, Robot


class MyRobot(Robot):
    def __init__(self, port, project=None):
        self.name = "mine"
        self.port, self.project = port, project
        self.features = Features(VectorFeature(("a",)), VectorFeature(("a",)), fps=10, control_type="abs")
        self.limits = Limits.of({"low": -1, "high": 1}, self.features.action)
        self.at = np.zeros(1, np.float32)

    def connect(self):
        pass

    def disconnect(self):
        pass

    def get_observation(self):
        return {"state": self.at.copy(), "images": {}, "times": {"state": self.clock.now()}}

    def send_action(self, action):
        self.at = self.limits.clip(action)
        return self.at


class Nothing:
    pass


class Nameless(MyRobot):
    def __init__(self):
        pass
"""


@pytest.fixture
def own(tmp_path: Path) -> Path:
    (tmp_path / "robot").mkdir()
    (tmp_path / "robot" / "my_robot.py").write_text(MINE)
    return tmp_path


def test_a_users_own_robot(own: Path) -> None:
    clock = VirtualClock(3.0)
    robot = make_robot(load_robot("my_robot", ["--robot.args.port=x"], own), own, clock)
    robot.connect()
    assert robot.send_action(np.array([2], np.float32)).tolist() == [1]
    assert robot.get_observation()["times"] == {"state": 3.0}
    assert (robot.port, robot.project) == ("x", own)
    assert (robot.stopped(), robot.success(), robot.reset(3)) == (None, None, None)


def test_a_robots_own_time_is_real(own: Path) -> None:
    assert isinstance(make_robot({"class": "MyRobot", "args": {"port": "x"}}, own).clock, WallClock)


def test_what_is_no_robot_is_refused(own: Path) -> None:
    with pytest.raises(RobotError, match=r"Nothing: expected a robot, got no connect\(\)"):
        make_robot({"class": "Nothing"}, own)
    with pytest.raises(RobotError, match="Nameless: expected the attribute name"):
        make_robot({"class": "Nameless"}, own)


def test_a_robot_without_limits_says_so() -> None:
    assert Robot.limits is None


def test_robots_import_nothing_heavy() -> None:
    heavy = ("torch", "transformers", "mujoco", "pybullet", "gymnasium_robotics", "metaworld")
    modules = "menura.robots, menura.robots.dummy, menura.robots.sim, menura.robots.replay, menura.teleop.keyboard"
    code = f"import sys, {modules}, menura.teleop.expert; print([name for name in {heavy} if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "[]\n"
