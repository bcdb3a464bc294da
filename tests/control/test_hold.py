import numpy as np
import pytest

from menura.control.hold import hold_action, measured
from menura.features import Features, Rotation, VectorFeature

STATE = np.array([0.5, -0.5, 1.0, 0.0, 0.0, 0.0, 9.0], np.float32)
QUATERNION = ("qw", "qx", "qy", "qz")
TURN = (Rotation(QUATERNION, "quat_wxyz"),)


def features(control_type, *names, rotations=(), grippers=None, units=None) -> Features:
    state = VectorFeature(
        ("elbow", "wrist", *QUATERNION, "cube"),
        units=("rad", "rad", "", "", "", "", "m"),
        object_names=("cube",),
        rotations=TURN,
        grippers={"wrist": (0.0, 1.0)},
    )
    action = VectorFeature(names, rotations=rotations, grippers=grippers or {}, units=units)
    return Features(state, action, control_type=control_type)


def test_absolute_actions_hold_at_the_last_command_else_where_the_robot_is() -> None:
    arm = features("abs", "wrist", "elbow")
    last = np.array([0.1, 0.2], np.float32)
    held = hold_action(arm, last, STATE)
    np.testing.assert_array_equal(held, last)
    assert held is not last
    np.testing.assert_array_equal(hold_action(arm, None, STATE), [-0.5, 0.5])
    assert hold_action(arm, None, None) is None


def test_speeds_hold_at_nothing_for_a_wheel_told_the_same_again_drives_on() -> None:
    base = features("abs", "wrist", "drive", units=("rad", "m/s"))
    np.testing.assert_array_equal(hold_action(base, np.array([0.1, 0.2], np.float32), None), np.float32([0.1, 0]))
    np.testing.assert_array_equal(hold_action(base, None, STATE), [-0.5, 0])
    assert hold_action(base, None, None) is None


def test_differences_hold_by_none_and_grippers_as_they_are() -> None:
    arm = features("delta", "elbow", *QUATERNION, "wrist", rotations=TURN, grippers={"wrist": (0.0, 1.0)})
    last = np.array([0.3, 0.0, 1.0, 0.0, 0.0, 0.7], np.float32)
    np.testing.assert_array_equal(hold_action(arm, last, None), np.array([0, 1, 0, 0, 0, 0.7], np.float32))
    np.testing.assert_array_equal(hold_action(arm, None, STATE), [0, 1, 0, 0, 0, -0.5])
    assert hold_action(arm, None, None) is None  # what the gripper does is not known


def test_what_actions_do_is_not_guessed() -> None:
    assert hold_action(features(None, "elbow"), np.zeros(1, np.float32), STATE) is None


@pytest.mark.parametrize(
    "action",
    [
        features("abs", "shoulder"),  # another joint
        features("abs", "cube"),  # not the robot's
        features("abs", "elbow", units=("deg",)),  # another unit
        features("abs", "wrist", grippers={"wrist": (1.0, 0.0)}),  # open is closed
        features("abs", *QUATERNION, rotations=(Rotation(QUATERNION, "quat_xyzw"),)),  # another order
        features("abs", "qw"),  # a number there, part of a rotation here
    ],
)
def test_the_state_says_nothing_of_what_means_something_else(action) -> None:
    assert np.isnan(measured(action, STATE)).all()
    assert hold_action(action, None, STATE) is None


def test_the_state_says_the_same_of_the_same_rotation() -> None:
    np.testing.assert_array_equal(measured(features("abs", *QUATERNION, rotations=TURN), STATE), STATE[2:6])
