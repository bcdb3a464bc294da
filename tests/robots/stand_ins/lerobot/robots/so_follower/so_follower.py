"""The arm's interface: what the adapter uses of it, on a bus and cameras that the tests put in their places."""

import json
from pathlib import Path

from lerobot.motors import Motor, MotorCalibration, MotorNormMode

JOINTS = ("shoulder_pan", "shoulder_lift", "elbow_flex", "wrist_flex", "wrist_roll")


class FeetechMotorsBus:
    pass


def make_cameras_from_configs(configs):
    raise NotImplementedError


class SOFollower:
    def __init__(self, config):
        self.config = config
        self.id = config.id
        self.calibration_dir = Path(config.calibration_dir)
        self.calibration_fpath = self.calibration_dir / f"{self.id}.json"
        calibration = {}
        if self.calibration_fpath.is_file():
            stored = json.loads(self.calibration_fpath.read_text())
            calibration = {name: MotorCalibration(**value) for name, value in stored.items()}
        body = MotorNormMode.DEGREES if config.use_degrees else MotorNormMode.RANGE_M100_100
        motors = {name: Motor(i + 1, "sts3215", body) for i, name in enumerate(JOINTS)}
        motors["gripper"] = Motor(6, "sts3215", MotorNormMode.RANGE_0_100)
        self.bus = FeetechMotorsBus(port=config.port, motors=motors, calibration=calibration)
        self.cameras = make_cameras_from_configs(config.cameras)

    @property
    def action_features(self):
        return {f"{motor}.pos": float for motor in self.bus.motors}

    @property
    def observation_features(self):
        cameras = {name: (camera.height, camera.width, 3) for name, camera in self.cameras.items()}
        return {**self.action_features, **cameras}

    @property
    def is_connected(self):
        return self.bus.is_connected and all(camera.is_connected for camera in self.cameras.values())

    @property
    def is_calibrated(self):
        return self.bus.is_calibrated

    def connect(self, calibrate=True):
        self.bus.connect()
        if not self.is_calibrated and calibrate:
            raise AssertionError("a dialogue was begun")
        for camera in self.cameras.values():
            camera.connect()
        with self.bus.torque_disabled():
            self.bus.configure_motors()

    def get_observation(self):
        reading = {f"{motor}.pos": value for motor, value in self.bus.sync_read("Present_Position").items()}
        return reading | {name: camera.read_latest() for name, camera in self.cameras.items()}

    def send_action(self, action):
        goals = {name.removesuffix(".pos"): value for name, value in action.items()}
        if (cap := self.config.max_relative_target) is not None:
            now = self.bus.sync_read("Present_Position")
            goals = {name: min(max(goal, now[name] - cap), now[name] + cap) for name, goal in goals.items()}
        self.bus.sync_write("Goal_Position", goals)
        return {f"{motor}.pos": value for motor, value in goals.items()}

    def disconnect(self):
        if not self.is_connected:
            raise ConnectionError("not connected")
        self.bus.disconnect(self.config.disable_torque_on_disconnect)
        for camera in self.cameras.values():
            camera.disconnect()
