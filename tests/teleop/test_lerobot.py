"""LeRobot's teleoperators: the real drivers where LeRobot is installed, else a stand-in of them; no real device."""

from __future__ import annotations

import importlib
import importlib.util
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from menura.errors import ContractError
from menura.features import Features, VectorFeature
from menura.robots.base import Robot, RobotError
from menura.teleop.lerobot import LeRobotTeleoperator

JOINTS = ("shoulder_pan", "shoulder_lift", "elbow_flex", "wrist_flex", "wrist_roll", "gripper")
SEEN = {"state": np.zeros(6, np.float32), "images": {}, "times": {"state": 0.0}}


class Bus:
    """A leader's bus: it is where a hand has put it."""

    def __init__(self, port, motors, calibration=None):
        self.motors, self.calibration = motors, calibration or {}
        self.is_connected = False
        self.is_calibrated = True
        self.fails: Exception | None = None
        self.where = dict.fromkeys(motors, 10.0)

    def connect(self):
        self.is_connected = True

    def disconnect(self, disable_torque=True):
        self.is_connected = False

    def disable_torque(self): ...

    def configure_motors(self): ...

    def write(self, name, motor, value): ...

    def sync_read(self, name, num_retry=0):
        if self.fails:
            raise self.fails
        return dict(self.where)


class Pad:
    """A gamepad: where its sticks are."""

    deltas, gripper, intervenes = (0.0, 0.0, 0.0), "stay", False

    def start(self): ...

    def stop(self): ...

    def update(self): ...

    def get_deltas(self):
        return Pad.deltas

    def gripper_command(self):
        return Pad.gripper

    def should_intervene(self):
        return Pad.intervenes

    def get_episode_end_status(self):
        return None


class Follower(Robot):
    name = "follower"

    def __init__(self, names=None, control_type="abs", grippers=None):
        names = names or tuple(f"{joint}.pos" for joint in JOINTS)
        self.features = Features(
            None, VectorFeature(tuple(names), grippers=grippers or {}), control_space="joint", control_type=control_type
        )


class Keys:
    """A terminal on which a test presses keys."""

    def __init__(self):
        self.pressed, self.open = [], False

    def listen(self):
        self.open = True
        return self

    def take(self):
        taken, self.pressed = self.pressed, []
        return taken

    def close(self):
        self.open = False


@pytest.fixture
def drivers(monkeypatch):
    if importlib.util.find_spec("lerobot") is None:
        monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "robots" / "stand_ins"))
    module = importlib.import_module("lerobot.teleoperators.so_leader.so_leader")
    monkeypatch.setattr(module, "FeetechMotorsBus", Bus)
    pad = importlib.import_module("lerobot.teleoperators.gamepad.gamepad_utils")
    monkeypatch.setattr(pad, "GamepadController", Pad)
    yield
    for name in [name for name in sys.modules if name.partition(".")[0] in ("lerobot", "draccus")]:
        if "stand_ins" in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


@pytest.fixture
def leader(drivers, tmp_path):
    made = []

    def make(robot=None, type="so101_leader", **args):
        config = {"id": "leader", "calibration_dir": str(tmp_path)}
        if type != "gamepad":
            config["port"] = "/dev/null"
        teleop = LeRobotTeleoperator(type, config, **({"poll_hz": 500.0, "max_age_s": 10.0} | args))
        teleop.begin(robot or Follower())
        teleop.sent(None)
        teleop.connect()
        made.append(teleop)
        return teleop

    yield make
    for teleop in made:
        teleop.disconnect()


def act(teleop):
    """What it does once the device was read again."""
    asked_s = teleop.clock.now()
    wait_for(lambda: teleop._reader._newest is not None and teleop._reader._newest[0] > asked_s)
    return teleop.act(SEEN)


def wait_for(condition):
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.002)


def test_a_leader_always_drives(leader):
    teleop = leader()
    teleop.connect()
    assert act(teleop).tolist() == [10.0] * 6
    teleop._device.bus.where["gripper"] = 55.0
    action = act(teleop)
    assert action[5] == 55
    assert action.dtype == np.float32
    teleop.disconnect()
    teleop.disconnect()
    assert not teleop._device.bus.is_connected
    teleop.connect()
    assert act(teleop) is not None


def test_a_key_takes_over_and_gives_back(leader):
    keys = Keys()
    teleop = leader(toggle="t", terminal=keys)
    assert keys.open
    assert act(teleop) is None
    keys.pressed = ["x", "t"]
    assert act(teleop) is not None
    assert act(teleop) is not None
    keys.pressed = ["t"]
    assert act(teleop) is None
    keys.pressed = ["t"]
    assert act(teleop) is not None
    teleop.sent(None)  # a new episode is the policy's
    assert act(teleop) is None
    teleop.disconnect()
    assert not keys.open


def test_a_takeover_waits_until_the_leader_is_where_the_robot_is(leader, caplog):
    teleop = leader(align=5.0)
    teleop.sent(np.array([0, 10, 10, 10, 10, 10], np.float32))
    assert act(teleop) is None
    assert act(teleop) is None
    assert caplog.text.count("shoulder_pan") == 1
    teleop._device.bus.where["shoulder_pan"] = 4.0
    assert act(teleop)[0] == 4
    teleop._device.bus.where["shoulder_pan"] = 40.0  # it drives now
    assert act(teleop)[0] == 40


def test_before_anything_was_sent_the_leader_must_be_where_the_robot_is(leader):
    robot = Follower()
    names = robot.features.action.names
    robot.features = Features(VectorFeature(names), VectorFeature(names), control_type="abs")
    teleop = leader(robot, align=5.0)
    assert act(teleop) is None  # it is at 0, the leader at 10
    teleop._device.bus.where = dict.fromkeys(teleop._device.bus.motors, 3.0)
    assert act(teleop).tolist() == [3.0] * 6
    unknown = leader(align=5.0)  # a robot without a state
    assert act(unknown) is None


def test_a_device_that_fails_is_told_and_comes_back(leader):
    teleop = leader()
    assert act(teleop) is not None
    teleop._max_age_s = 0.05
    teleop._device.bus.fails = OSError("unplugged")
    wait_for(lambda: teleop._reader._failure is not None)
    time.sleep(0.06)
    with pytest.raises(RobotError, match=r"leader: expected a reading.*unplugged"):
        teleop.act(SEEN)
    teleop._max_age_s = 10.0
    teleop._device.bus.fails = None
    assert act(teleop) is not None


def test_a_gamepad_drives_a_hand_while_it_says_so(leader, monkeypatch):
    robot = Follower(("x", "y", "z", "gripper"), "delta", {"gripper": (0.0, 0.04)})
    teleop = leader(
        robot,
        "gamepad",
        events=True,
        names={"delta_x": "x", "delta_y": "y", "delta_z": "z"},
        scale={"delta_x": 0.01, "delta_y": 0.01, "delta_z": 0.01},
    )
    assert act(teleop) is None
    monkeypatch.setattr(Pad, "intervenes", True)
    monkeypatch.setattr(Pad, "deltas", (1.0, 0.0, -0.5))
    teleop.sent(np.array([0, 0, 0, 0.01], np.float32))
    assert act(teleop) == pytest.approx([0.01, 0, -0.005, 0.01])
    monkeypatch.setattr(Pad, "gripper", "open")
    assert act(teleop)[3] == pytest.approx(0.04)
    monkeypatch.setattr(Pad, "gripper", "close")
    assert act(teleop)[3] == 0


def test_what_does_not_fit_is_said(leader):
    with pytest.raises(ContractError, match=r"got none for \['waist'\].*names"):
        leader(Follower(("waist", "gripper.pos")))
    with pytest.raises(ContractError, match=r"no 'elbow.pos'; did you mean elbow_flex.pos"):
        leader(names={"elbow.pos": "elbow_flex.pos"})
    with pytest.raises(ContractError, match="absolute"):
        leader(Follower(control_type="delta"), align=1.0)
    with pytest.raises(ContractError, match="Use toggle"):
        leader(events=True)
    with pytest.raises(ContractError, match="toggle: expected a character"):
        leader(toggle="spce")
    with pytest.raises(RobotError, match=r"did you mean so10[01]_leader"):
        leader(type="so102_leader")
