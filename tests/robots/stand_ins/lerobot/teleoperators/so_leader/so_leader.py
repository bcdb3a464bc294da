from pathlib import Path

from lerobot.motors import Motor, MotorNormMode


class FeetechMotorsBus:
    pass


class SOLeader:
    def __init__(self, config):
        self.config = config
        self.calibration_fpath = Path(config.calibration_dir) / f"{config.id}.json"
        joints = ("shoulder_pan", "shoulder_lift", "elbow_flex", "wrist_flex", "wrist_roll")
        motors = {name: Motor(i + 1, "sts3215", MotorNormMode.DEGREES) for i, name in enumerate(joints)}
        motors["gripper"] = Motor(6, "sts3215", MotorNormMode.RANGE_0_100)
        self.bus = FeetechMotorsBus(port=config.port, motors=motors, calibration={})

    @property
    def action_features(self):
        return {f"{motor}.pos": float for motor in self.bus.motors}

    @property
    def is_connected(self):
        return self.bus.is_connected

    @property
    def is_calibrated(self):
        return self.bus.is_calibrated

    def connect(self, calibrate=True):
        self.bus.connect()

    def get_action(self):
        return {f"{motor}.pos": value for motor, value in self.bus.sync_read("Present_Position").items()}

    def disconnect(self):
        self.bus.disconnect()
