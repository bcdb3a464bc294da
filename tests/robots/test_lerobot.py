"""LeRobot's robots: the real drivers where LeRobot is installed, else a stand-in of them; never a real bus."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import json
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from menura.clock import VirtualClock
from menura.robots.base import RobotError
from menura.robots.lerobot import LeRobotRobot

JOINTS = ["shoulder_pan", "shoulder_lift", "elbow_flex", "wrist_flex", "wrist_roll"]
NAMES = tuple(f"{name}.pos" for name in [*JOINTS, "gripper"])
LIMITS = {"low": [-90] * 5 + [0], "high": [90] * 5 + [100]}
OF_LEROBOT = ("cameras", "max_relative_target", "use_degrees", "prt")
CAMERA = {"type": "opencv", "index_or_path": 0, "width": 8, "height": 6, "fps": 30}


class Bus:
    """A motors' bus on which motors are where they were last sent."""

    calibrated = True

    def __init__(self, port, motors, calibration=None):
        self.motors, self.calibration = motors, calibration or {}
        self.model_resolution_table = {"sts3215": 4096}
        self.is_connected = self.torque = False
        self.fails: Exception | None = None
        self.where = dict.fromkeys(motors, 10.0)
        self.busy = threading.Lock()

    @property
    def is_calibrated(self):
        return self.calibrated

    def connect(self):
        assert not self.is_connected
        self.is_connected = True

    def disconnect(self, disable_torque=True):
        if disable_torque:
            self._use()
            self.torque = False
        self.is_connected = False

    @contextlib.contextmanager
    def torque_disabled(self):
        yield
        self.torque = True

    def configure_motors(self): ...

    def write(self, name, motor, value): ...

    def sync_read(self, name, num_retry=0):
        self._use()
        return dict(self.where)

    def sync_write(self, name, values):
        self._use()
        self.where |= values

    def _use(self):
        assert self.busy.acquire(blocking=False), "two at a time on one bus"
        try:
            time.sleep(0.001)
            if self.fails:
                raise self.fails
        finally:
            self.busy.release()


class Camera:
    """A camera as LeRobot's: a frame, when its thread had it, and the lock of the two."""

    def __init__(self, config):
        self.height, self.width, self.fps = config.height, config.width, config.fps
        self.is_connected, self.works = False, True
        self.frame_lock = threading.Lock()

    def connect(self, warmup=True):
        if not self.works:
            raise ConnectionError("no such camera")
        self.is_connected = True
        self.feed(0)

    def feed(self, value):
        self.latest_timestamp = time.perf_counter()
        self.latest_frame = np.full((self.height, self.width, 3), value, np.uint8)

    def read_latest(self, max_age_ms=500):
        if not self.is_connected:
            raise ConnectionError("gone")
        return self.latest_frame

    def disconnect(self):
        self.is_connected = False


@pytest.fixture
def drivers(monkeypatch):
    """LeRobot's modules, on buses and cameras of ours."""
    if importlib.util.find_spec("lerobot") is None:
        monkeypatch.syspath_prepend(str(Path(__file__).parent / "stand_ins"))
    module = importlib.import_module("lerobot.robots.so_follower.so_follower")
    monkeypatch.setattr(module, "FeetechMotorsBus", Bus)
    monkeypatch.setattr(
        module, "make_cameras_from_configs", lambda configs: {name: Camera(c) for name, c in configs.items()}
    )
    monkeypatch.setattr(Bus, "calibrated", True)
    yield
    for name in [name for name in sys.modules if name.partition(".")[0] in ("lerobot", "draccus")]:
        if "stand_ins" in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


@pytest.fixture
def arm(drivers, tmp_path):
    def make(**args):
        config = {"port": "/dev/null", "id": "arm", "calibration_dir": str(tmp_path)}
        own = {name: args.pop(name) for name in list(args) if name in OF_LEROBOT}
        return LeRobotRobot("so101_follower", config | own, **({"limits": LIMITS} | args))

    return make


def test_everything_is_known_before_it_is_connected(arm):
    robot = arm(cameras={"front": CAMERA}, grippers={"gripper.pos": [0, 100]}, fps=30)
    assert robot.features.action.names == robot.features.state.names == NAMES
    assert robot.features.action.units == ("deg",) * 5 + ("%",)
    assert robot.features.action.grippers == {"gripper.pos": (0, 100)}
    camera = robot.features.cameras["front"]
    assert (camera.height, camera.width, robot.features.fps) == (6, 8, 30)
    assert robot.limits.high.tolist() == LIMITS["high"]
    assert robot.name == "arm"
    assert robot.features.robot == "so101_follower"
    with pytest.raises(RobotError, match="before connect"):
        robot.get_observation()


def test_it_is_read_and_driven_and_connected_again(arm):
    robot = arm(cameras={"front": CAMERA})
    for _ in range(2):
        robot.connect()
        robot.connect()
        observation = robot.get_observation()
        assert observation["state"].dtype == np.float32
        assert observation["images"]["front"].shape == (6, 8, 3)
        sent = robot.send_action(np.array([1, 2, 3, 4, 5, 50], np.float32))
        assert sent.tolist() == [1, 2, 3, 4, 5, 50]
        assert robot.get_observation()["state"].tolist() == [1, 2, 3, 4, 5, 50]
        robot.disconnect()
        robot.disconnect()
        assert not robot._device.bus.torque
        assert not robot._device.bus.is_connected


def test_what_was_sent_is_after_limits_and_the_drivers_own_clipping(arm):
    robot = arm(max_relative_target=5.0)
    robot.connect()
    sent = robot.send_action(np.array([1000, 12, -1000, 10, 10, 10], np.float32))
    assert sent.tolist() == [15, 12, 5, 10, 10, 10]
    with pytest.raises(RobotError, match="finite"):
        robot.send_action(np.full(6, np.nan, np.float32))
    with pytest.raises(RobotError, match="shape"):
        robot.send_action(np.zeros(5, np.float32))
    robot.disconnect()


def test_without_limits_it_takes_no_action(arm):
    robot = arm(limits=None)
    assert robot.limits is None
    robot.connect()
    with pytest.raises(RobotError, match="limits"):
        robot.send_action(np.zeros(6, np.float32))


def test_times_are_of_the_frame_and_never_newer_than_it(arm):
    robot = arm(cameras={"front": CAMERA}, camera_latency_s={"front": 0.05})
    robot.clock = VirtualClock(100.0)
    robot.connect()
    camera = robot._device.cameras["front"]
    camera.feed(7)
    camera.latest_timestamp -= 0.2
    observation = robot.get_observation()
    assert observation["times"]["state"] == 100.0
    assert observation["times"]["front"] == pytest.approx(99.75, abs=0.02)

    # A new frame arrives between the driver's reading and ours of the time: the older time stands.
    read = camera.read_latest

    def read_and_go_on():
        frame = read()
        camera.feed(9)
        return frame

    camera.read_latest = read_and_go_on
    observation = robot.get_observation()
    assert observation["images"]["front"].max() == 7
    assert observation["times"]["front"] == pytest.approx(99.75, abs=0.02)


def test_a_driver_that_repeats_itself_is_not_taken_for_new(arm):
    robot = arm()
    robot.clock = clock = VirtualClock(1.0)
    robot.connect()
    reading = robot._device.get_observation()
    robot._device.get_observation = lambda: reading
    first = robot.get_observation()
    clock.advance(1.0)
    assert robot.get_observation()["times"] == first["times"] == {"state": 1.0}


def test_faults_are_told_and_everything_is_let_go_of(arm):
    robot = arm(cameras={"front": CAMERA, "wrist": CAMERA})
    device = robot._device
    device.cameras["wrist"].works = False
    with pytest.raises(RobotError, match="no such camera"):
        robot.connect()
    assert not device.bus.is_connected
    assert not device.cameras["front"].is_connected

    device.cameras["wrist"].works = True
    robot.connect()
    device.bus.fails = OSError("no status packet")
    with pytest.raises(RobotError, match="cannot be read: OSError: no status packet"):
        robot.get_observation()
    with pytest.raises(RobotError, match="took no action"):
        robot.send_action(np.zeros(6, np.float32))
    device.bus.fails = None

    # One camera is gone: LeRobot's own disconnect refuses, the motors are let go of all the same.
    device.cameras["wrist"].disconnect()
    assert "lost" in robot.stopped()
    robot.disconnect()
    assert not device.bus.torque
    assert not device.cameras["front"].is_connected

    # The bus answers no more: that is said, and its port is free.
    robot.connect()
    device.bus.fails = OSError("unplugged")
    with pytest.raises(RobotError, match=r"could not be let go of.*unplugged.*Cut its power"):
        robot.disconnect()
    assert not device.bus.is_connected


def test_no_dialogue_is_begun_with_what_is_not_calibrated(arm, monkeypatch):
    monkeypatch.setattr(Bus, "calibrated", False)
    robot = arm()
    with pytest.raises(RobotError, match="lerobot-calibrate"):
        robot.connect()
    assert not robot._device.bus.is_connected
    assert not robot._device.bus.torque


def test_limits_from_the_calibration(arm, tmp_path):
    asked = {"low": "calibration", "high": "calibration", "velocity": 90}
    with pytest.raises(RobotError, match=r"limits.low: expected a calibration.*arm.json"):
        arm(limits=asked)
    assert arm(limits=asked, use_degrees=False).limits.low.tolist() == [-100] * 5 + [0]
    calibration = {
        name: {"id": i, "drive_mode": 0, "homing_offset": 0, "range_min": 1000, "range_max": 1000 + 819}
        for i, name in enumerate([*JOINTS, "gripper"], 1)
    }
    (tmp_path / "arm.json").write_text(json.dumps(calibration))
    limits = arm(limits=asked).limits
    assert limits.low == pytest.approx([-36] * 5 + [0])
    assert limits.high == pytest.approx([36] * 5 + [100])
    assert limits.velocity.tolist() == [90] * 6


def test_two_threads_share_one_bus(arm):
    robot = arm()
    robot.connect()
    failures = []

    def read():
        try:
            for _ in range(20):
                robot.get_observation()
        except RobotError as error:
            failures.append(error)

    reader = threading.Thread(target=read)
    reader.start()
    for _ in range(20):
        robot.send_action(np.zeros(6, np.float32))
    reader.join()
    assert not failures


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ({"prt": "x"}, "no field 'prt'; did you mean port"),
        ({"units": {"elbow.pos": "rad"}}, "units: expected some of"),
        ({"camera_latency_s": {"front": 0.1}}, "camera_latency_s"),
        ({"limits": {"low": 0}}, "limits.high"),
    ],
)
def test_what_is_wrong_is_said(arm, args, message):
    with pytest.raises(RobotError, match=message):
        arm(**args)


def test_an_unknown_type_names_the_nearest(drivers):
    with pytest.raises(RobotError, match=r"did you mean so10[01]_follower"):
        LeRobotRobot("so102_follower", {"port": "/dev/null"})


@pytest.mark.skipif(importlib.util.find_spec("lerobot") is not None, reason="LeRobot is installed")
def test_without_lerobot_it_is_said_how_to_get_it():
    with pytest.raises(RobotError, match=r"menura\[lerobot\].*3\.12.*ws://"):
        LeRobotRobot("so101_follower", {"port": "/dev/null"})


def test_the_yaml_of_so101_needs_its_port(drivers, tmp_path):
    from menura.config import load_robot
    from menura.robots.make import make_robot

    with pytest.raises(RobotError, match=r"cannot be made.*port"):
        make_robot(load_robot("so101"))
    given = {"port": "/dev/null", "id": "mine", "calibration_dir": str(tmp_path)}
    own = [word for name, value in given.items() for word in (f"--robot.args.config.{name}", value)]
    robot = make_robot(load_robot("so101", own))
    assert robot.limits.high.tolist() == pytest.approx([110, 100, 96.8, 95, 162, 100])
    assert robot.features.action.grippers == {"gripper.pos": (0, 100)}


def test_importing_it_imports_neither_lerobot_nor_torch():
    code = "import sys, menura.robots.lerobot; assert not {'torch', 'lerobot', 'draccus'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
