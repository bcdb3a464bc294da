from lerobot.teleoperators.utils import TeleopEvents


class GamepadTeleop:
    def __init__(self, config):
        self.config = config
        self.gamepad = None

    @property
    def action_features(self):
        names = {"delta_x": 0, "delta_y": 1, "delta_z": 2} | ({"gripper": 3} if self.config.use_gripper else {})
        return {"dtype": "float32", "shape": (len(names),), "names": names}

    @property
    def is_connected(self):
        return self.gamepad is not None

    def is_calibrated(self):
        return True

    def connect(self):
        from .gamepad_utils import GamepadController

        self.gamepad = GamepadController()
        self.gamepad.start()

    def get_action(self):
        self.gamepad.update()
        action = dict(zip(("delta_x", "delta_y", "delta_z"), self.gamepad.get_deltas(), strict=True))
        if self.config.use_gripper:
            action["gripper"] = {"close": 0, "stay": 1, "open": 2}[self.gamepad.gripper_command()]
        return action

    def get_teleop_events(self):
        return {TeleopEvents.IS_INTERVENTION: self.gamepad.should_intervene()}

    def disconnect(self):
        self.gamepad.stop()
        self.gamepad = None
