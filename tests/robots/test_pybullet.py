"""PyBullet's robots, in PyBullet itself."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest

from menura.clock import VirtualClock
from menura.config import load_robot
from menura.control.hold import hold_action
from menura.features import Rotation
from menura.robots import make_robot
from menura.robots.base import RobotError
from menura.robots.pybullet import PyBulletEndEffector, PyBulletJoints
from menura.robots.pybullet_models import MODELS, read_joints, urdf_file

pytest.importorskip("pybullet")

SMALL = {"limits": {"low": [-0.05] * 3 + [-0.2] * 3 + [0], "high": [0.05] * 3 + [0.2] * 3 + [0.04]}}


@pytest.fixture
def make():
    robots = []

    def connected(cls, model, **args):
        robot = cls(model, **args)
        robot.clock = VirtualClock(5.0)
        robot.connect()
        robots.append(robot)
        return robot

    yield connected
    for robot in robots:
        robot.disconnect()


def run(robot, action, seconds):
    """Send an action at every 1/30 s."""
    for _ in range(round(seconds * 30)):
        sent = robot.send_action(np.asarray(action, np.float32))
        robot.clock.advance(1 / 30)
    return sent


def test_franka_is_known_before_it_is_connected():
    robot = PyBulletJoints("franka", cameras={"front": [64, 48]}, fps=20)
    names = tuple(f"panda_joint{i}" for i in range(1, 8))
    assert robot.features.action.names == robot.features.state.names == (*names, "gripper")
    assert robot.features.action.units == ("rad",) * 7 + ("m",)
    assert robot.features.action.grippers == {"gripper": (0.0, 0.04)}
    assert (robot.features.cameras["front"].height, robot.features.cameras["front"].width) == (64, 48)
    # Of panda.urdf.
    assert robot.limits.low[:2] == pytest.approx([-2.9671, -1.8326])
    assert robot.limits.velocity == pytest.approx([2.175] * 4 + [2.61] * 3 + [0.2])
    with pytest.raises(RobotError, match="before connect"):
        robot.get_observation()


def test_an_arm_goes_where_its_joints_are_sent_as_time_passes(make):
    robot = make(PyBulletJoints, "franka")
    rest = robot.get_observation()
    assert rest["times"]["state"] == 5.0
    goal = rest["state"].copy()
    goal[[0, 3, 7]] = [0.4, -2.0, 0.01]
    robot.send_action(goal)
    assert robot.get_observation()["state"].tolist() == rest["state"].tolist()  # no time has passed
    robot.clock.advance(1.5)
    there = robot.get_observation()
    assert there["times"]["state"] == pytest.approx(6.5, abs=1 / 240)
    assert there["state"] == pytest.approx(goal, abs=0.02)

    robot.reset()
    assert robot.get_observation()["state"] == pytest.approx(rest["state"], abs=1e-3)


def test_a_joint_is_no_faster_than_its_urdf_says(make):
    robot = make(PyBulletJoints, "franka")
    goal = robot.get_observation()["state"].copy()
    goal[0] = 2.9
    robot.send_action(goal)
    robot.clock.advance(0.5)
    assert robot.get_observation()["state"][0] < 0.5 * 2.175 * 1.05


def test_what_is_outside_the_limits_is_not_sent(make):
    robot = make(PyBulletJoints, "kuka")
    sent = robot.send_action(np.full(7, 9.0, np.float32))
    assert sent == pytest.approx(robot.limits.high)
    with pytest.raises(RobotError, match="finite"):
        robot.send_action(np.full(7, np.inf, np.float32))
    with pytest.raises(RobotError, match="shape"):
        robot.send_action(np.zeros(6, np.float32))


def test_the_hand_follows_differences_and_stays_where_there_are_none(make):
    robot = make(PyBulletEndEffector, "franka", **SMALL)
    assert robot.features.action.rotations == (Rotation(("rx", "ry", "rz"), "axis_angle"),)
    assert robot.features.control_type == "delta"
    begin = robot.get_observation()["state"]
    run(robot, [0.01, -0.005, -0.005, 0, 0, 0, 0.02], 10 / 30)
    run(robot, [0, 0, 0, 0, 0, 0, 0.02], 1.5)
    there = robot.get_observation()["state"]
    assert there[:3] - begin[:3] == pytest.approx([0.1, -0.05, -0.05], abs=0.01)
    assert abs(there[3:7] @ begin[3:7]) == pytest.approx(1, abs=0.01)
    assert there[7] == pytest.approx(0.02, abs=0.003)
    run(robot, [0, 0, 0, 0, 0, 0, 0.02], 1.0)
    assert robot.get_observation()["state"] == pytest.approx(there, abs=0.01)


def test_a_turn_is_about_the_axes_of_the_base(make):
    robot = make(PyBulletEndEffector, "kuka", limits={"low": -0.2, "high": 0.2})
    begin = robot.get_observation()["state"]
    run(robot, [0, 0, 0, 0, 0, 0.05], 8 / 30)
    run(robot, np.zeros(6), 2.0)
    w, x, y, z = robot.get_observation()["state"][3:7]
    a, b, c, d = begin[3:7] * [1, -1, -1, -1]
    turn = [w * a - x * b - y * c - z * d, w * d + x * c - y * b + z * a]  # of its product, w and z
    assert 2 * np.arctan2(abs(turn[1]), abs(turn[0])) == pytest.approx(0.4, abs=0.03)


def test_the_goal_never_runs_away_from_the_hand(make):
    robot = make(PyBulletEndEffector, "franka", **SMALL)
    far = [0.05, 0, 0, 0, 0, 0, 0.04]  # out of reach in the end
    refused = run(robot, far, 2.0)
    assert refused[:6].tolist() == [0] * 6
    x = robot.get_observation()["state"][0]
    run(robot, [-0.05, 0, 0, 0, 0, 0, 0.04], 6 / 30)
    run(robot, [0, 0, 0, 0, 0, 0, 0.04], 1.0)
    assert robot.get_observation()["state"][0] < x - 0.1


def test_wheels_turn_at_a_speed_and_hold_at_zero(make):
    robot = make(PyBulletJoints, "husky", limits={"low": -10, "high": 10})
    assert robot.features.action.units == ("rad/s",) * 4
    held = hold_action(robot.features, np.full(4, 5.0, np.float32), None)
    place = robot.features.state.names.index("x")
    begin = robot.get_observation()["state"][place]
    run(robot, np.full(4, 5.0), 1.0)
    moved = robot.get_observation()["state"]
    assert moved[place] - begin > 0.2
    assert moved[:4] == pytest.approx([5.0] * 4, abs=0.5)
    run(robot, held, 0.5)
    stopped = robot.get_observation()["state"][place]
    run(robot, held, 1.0)
    assert robot.get_observation()["state"][place] == pytest.approx(stopped, abs=0.05)


def test_pictures_are_drawn_at_their_rate_and_say_when(make):
    robot = make(PyBulletJoints, "kuka", cameras={"front": {"size": [48, 64], "eye": [1.5, 0, 1]}}, camera_hz=10)
    first = robot.get_observation()
    picture = first["images"]["front"]
    assert picture.shape == (48, 64, 3)
    assert picture.dtype == np.uint8
    assert picture.std() > 5
    robot.clock.advance(0.05)
    assert robot.get_observation()["times"] == {"state": pytest.approx(5.05, abs=1 / 240), "front": 5.0}
    robot.clock.advance(0.06)
    assert robot.get_observation()["times"]["front"] > 5.09


@pytest.mark.parametrize("model", ["a1", "aliengo", "laikago", "mini_cheetah", "racecar", "pr2_gripper"])
def test_every_other_model_is_driven(make, model):
    robot = make(PyBulletJoints, model)
    if robot.limits is None:  # its URDF has none
        with pytest.raises(RobotError, match="limits"):
            robot.send_action(np.zeros(robot.features.action_dim, np.float32))
        robot = make(PyBulletJoints, model, limits={"low": -1.0, "high": 1.0})
    state = robot.get_observation()["state"]
    rest = state[: robot.features.action_dim]
    sent = robot.send_action(rest)
    robot.clock.advance(0.3)
    assert np.isfinite(robot.get_observation()["state"]).all()
    assert robot.limits.within(sent)


def test_a1_stands(make):
    robot = make(PyBulletJoints, "a1")
    robot.clock.advance(1.0)
    height = robot.get_observation()["state"][robot.features.state.names.index("z")]
    assert height > 0.2


def test_it_prints_no_banner(make, capfd):
    os.write(1, b"before\n")
    make(PyBulletJoints, "kuka")
    os.write(1, b"after\n")
    assert capfd.readouterr() == ("before\nafter\n", "")


def test_it_can_be_connected_again(make):
    robot = make(PyBulletJoints, "kuka")
    robot.connect()
    robot.disconnect()
    robot.disconnect()
    with pytest.raises(RobotError, match="before connect"):
        robot.send_action(np.zeros(7, np.float32))
    robot.connect()
    assert robot.get_observation()["times"]["state"] == 5.0


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ({"model": "frnka"}, "did you mean franka"),
        ({"model": "nowhere.urdf"}, "no file"),
        ({"model": "kuka", "cameras": {"front": {"siz": [1, 1]}}}, "camera 'front'"),
        ({"model": "kuka", "camera_hz": 0}, "above 0"),
        ({"model": "husky", "limits": {"velocity": 1}}, "limits.low"),
    ],
)
def test_what_is_wrong_is_said(args, message):
    with pytest.raises(RobotError, match=message):
        PyBulletJoints(**args)
    with pytest.raises(RobotError, match="an arm"):
        PyBulletEndEffector("husky")


@pytest.mark.parametrize(
    "name",
    ["franka", "franka_ee", "kuka", "kuka_ee", "a1", "husky", "racecar", "pr2_gripper"],
)
def test_every_yaml_is_driven_by_what_holds_it(name):
    robot = make_robot(load_robot(f"{name}_pybullet"), clock=VirtualClock())
    robot.connect()
    begin = robot.get_observation()["state"]
    for _ in range(10):
        hold = hold_action(robot.features, None, robot.get_observation()["state"])
        assert robot.limits.within(robot.send_action(robot.limits.clip(hold)))
        robot.clock.advance(1 / 30)
    places = [i for i, name in enumerate(robot.features.state.names) if name not in ("qw", "qx", "qy", "qz")]
    assert robot.get_observation()["state"][places] == pytest.approx(begin[places], abs=0.1)
    robot.disconnect()


def test_joints_of_a_urdf():
    joints = {joint.name: joint for joint in read_joints(urdf_file(MODELS["racecar"]))}
    assert joints["left_rear_wheel_joint"].low is None
    assert (joints["right_steering_hinge_joint"].low, joints["right_steering_hinge_joint"].high) == (-1, 1)


def test_importing_it_imports_neither_pybullet_nor_torch():
    code = "import sys, menura.robots.pybullet; assert not {'torch', 'pybullet'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
