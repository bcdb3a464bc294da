import enum


class TeleopEvents(enum.Enum):
    IS_INTERVENTION = "is_intervention"


def make_teleoperator_from_config(config):
    from lerobot.teleoperators.gamepad import GamepadTeleopConfig
    from lerobot.teleoperators.gamepad.teleop_gamepad import GamepadTeleop
    from lerobot.teleoperators.so_leader.so_leader import SOLeader

    return (GamepadTeleop if isinstance(config, GamepadTeleopConfig) else SOLeader)(config)
