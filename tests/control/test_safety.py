import math

import numpy as np
import pytest

from menura.control.safety import Safety
from menura.errors import ContractError
from menura.features import Features, Rotation, VectorFeature
from menura.robots.base import Limits, RobotError

PERIOD_S = 0.1
QUATERNION = ("qw", "qx", "qy", "qz")


def vector(*numbers: float) -> np.ndarray:
    return np.array(numbers, np.float32)


UNITS = {"elbow": "rad", "grip": ""}


def arm(control_type="abs", state=("elbow", "grip")) -> Features:
    action = VectorFeature(tuple(UNITS), grippers={"grip": (0.0, 1.0)}, units=tuple(UNITS.values()))
    measured = VectorFeature(state, units=tuple(UNITS[name] for name in state)) if state else None
    return Features(measured, action, control_type=control_type)


def limits(**others) -> Limits:
    return Limits(vector(-1.0, 0.0), vector(1.0, 1.0), **others)


def safety(features=None, bounds=None, *, max_plan_age_s=1.0, slow_start_s=0.0) -> Safety:
    return Safety(
        features or arm(), bounds or limits(), PERIOD_S, max_plan_age_s=max_plan_age_s, slow_start_s=slow_start_s
    )


def test_what_is_within_the_limits_is_sent_as_it_is() -> None:
    guard = safety()
    guard.begin(vector(0.0, 0.0))
    checked = guard.check(vector(0.5, 1.0), 0.0)
    np.testing.assert_array_equal(checked.action, vector(0.5, 1.0))
    assert checked.reasons == ()
    assert not checked.held
    assert not guard.counts


def test_after_a_hold_a_wheel_speeds_up_from_rest() -> None:
    """A speed holds at nothing, and the next command's step is from there."""
    wheel = VectorFeature(("wheel",), units=("rad/s",))
    bounds = Limits(vector(-5.0), vector(5.0), velocity=vector(10.0))
    guard = Safety(Features(wheel, wheel, control_type="abs"), bounds, PERIOD_S, max_plan_age_s=1.0, slow_start_s=0.0)
    guard.begin(vector(4.5))
    assert guard.check(vector(5.0), 0.0).action == 5.0
    assert guard.check(None, 0.1).action == 0.0
    assert guard.check(vector(5.0), 0.2).action == pytest.approx(1.0)


def test_range_and_workspace() -> None:
    guard = safety(bounds=limits(workspace={"elbow": (-0.5, 2.0)}))
    guard.begin(vector(0.0, 0.0))
    checked = guard.check(vector(3.0, -1.0), 0.0)
    np.testing.assert_array_equal(checked.action, vector(1.0, 0.0))
    assert checked.reasons == ("range",)
    checked = guard.check(vector(-0.75, 0.0), 0.1)
    np.testing.assert_array_equal(checked.action, vector(-0.5, 0.0))
    assert checked.reasons == ("workspace",)
    assert guard.counts == {"range": 1, "workspace": 1}


def test_steps_are_from_what_was_sent_last_at_first_from_where_the_robot_is() -> None:
    guard = safety(bounds=limits(velocity=vector(2.0, 100.0), step=vector(0.5, 0.25)))
    guard.begin(vector(-1.0, 0.0))
    sent = [guard.check(vector(1.0, 1.0), tick * PERIOD_S) for tick in range(3)]
    np.testing.assert_allclose([one.action for one in sent], [[-0.8, 0.25], [-0.6, 0.5], [-0.4, 0.75]], atol=1e-6)
    assert sent[0].reasons == ("step",)
    guard.sent(vector(-0.9, 0.5))  # the robot clipped further
    np.testing.assert_allclose(guard.check(vector(1.0, 1.0), 0.3).action, [-0.7, 0.75], atol=1e-6)


def test_a_tick_that_is_late_makes_no_larger_step_and_one_that_is_early_a_smaller() -> None:
    guard = safety(bounds=limits(velocity=vector(1.0, 1.0)))
    guard.begin(vector(0.0, 0.0))
    said = [guard.check(vector(1.0, 0.0), now_s).action[0] for now_s in (0.0, 0.5, 0.55, 0.55, 0.2)]
    np.testing.assert_allclose(said, [0.1, 0.2, 0.25, 0.25, 0.25], atol=1e-6)


def test_without_a_word_of_the_state_the_first_command_is_only_kept_in_range_and_that_is_said() -> None:
    guard = safety(arm(state=("grip",)), limits(step=vector(0.1, 0.1)))
    assert guard.notes == ("The state does not tell elbow: the first command may be anywhere in its range.",)
    guard.begin(vector(0.0))
    np.testing.assert_allclose(guard.check(vector(0.7, 1.0), 0.0).action, [0.7, 0.1])
    np.testing.assert_allclose(guard.check(vector(-0.7, 1.0), 0.1).action, [0.6, 0.2])


def test_a_slow_start() -> None:
    guard = safety(bounds=limits(velocity=vector(1.0, 1.0)), slow_start_s=0.4)
    guard.begin(vector(0.0, 0.0))
    guard.check(None, -5.0)  # to hold is no start
    said = [guard.check(vector(1.0, 0.0), tick * PERIOD_S) for tick in range(5)]
    np.testing.assert_allclose(
        np.diff([0.0, *(one.action[0] for one in said)]), [0.025, 0.05, 0.075, 0.1, 0.1], atol=1e-6
    )
    assert [one.reasons for one in said] == [("slow_start",)] * 3 + [("step",)] * 2


def test_what_cannot_be_done_is_not_and_the_robot_holds() -> None:
    guard = safety(max_plan_age_s=0.5)
    guard.begin(vector(0.0, 0.0))
    guard.check(vector(0.5, 1.0), 0.0)
    for action, captured_s, reason in [
        (None, None, "no_plan"),
        (vector(0.7, 1.0), -0.5, "stale_plan"),
        (vector(np.nan, 1.0), 0.0, "not_finite"),
        (vector(0.7, np.inf), None, "not_finite"),
    ]:
        checked = guard.check(action, 0.1, captured_s=captured_s)
        np.testing.assert_array_equal(checked.action, vector(0.5, 1.0))
        assert checked.reasons == (reason,)
        assert checked.held
    assert guard.counts == {"no_plan": 1, "stale_plan": 1, "not_finite": 2}
    assert not guard.check(vector(0.7, 1.0), 0.1, captured_s=-0.4).held


def test_before_anything_was_sent_it_holds_where_the_robot_is_if_that_may_be_commanded() -> None:
    guard = safety()
    assert guard.check(None, 0.0).action is None  # not known
    guard.begin(vector(0.25, 0.5))
    np.testing.assert_array_equal(guard.check(None, 0.0).action, vector(0.25, 0.5))
    guard.begin(vector(0.25, 1.5))
    assert guard.check(None, 0.0).action is None


def test_a_robot_that_stands_outside_its_limits_is_not_driven() -> None:
    guard = safety(bounds=limits(velocity=vector(1.0, 1.0)))
    guard.begin(vector(1.0625, 0.0))  # no further than one step
    np.testing.assert_allclose(guard.check(vector(0.0, 0.0), 0.0).action, [0.9, 0.0])
    with pytest.raises(
        RobotError, match=r"elbow: expected the robot to stand within its limits.* got 1.25, with 1 the"
    ):
        guard.begin(vector(1.25, 0.0))


def test_differences_are_limited_themselves_and_grippers_as_what_they_are() -> None:
    features = arm("delta")
    guard = safety(features, limits(velocity=vector(2.0, 5.0), workspace={"elbow": (-1.0, 0.25)}))
    guard.begin(vector(0.0, 0.0))
    said = [guard.check(vector(0.3, 1.0), tick * PERIOD_S) for tick in range(3)]
    np.testing.assert_allclose([one.action for one in said], [[0.2, 0.5], [0.05, 1.0], [0.0, 1.0]], atol=1e-6)
    assert [one.reasons for one in said] == [("step",), ("step", "workspace"), ("step", "workspace")]
    held = guard.check(None, 0.3)
    np.testing.assert_array_equal(held.action, vector(0.0, 1.0))
    guard.observe(vector(-0.5, 1.0), captured_s=0.35)
    np.testing.assert_allclose(guard.check(vector(0.2, 1.0), 0.4).action, [0.2, 1.0])
    assert safety(features, limits(step=vector(1.0, 1.0))).notes == (
        "Actions are differences and limits have no workspace: where they lead in the end is not bounded.",
    )


def pose(representation: str, names=QUATERNION, control_type="abs") -> Features:
    vectors = VectorFeature(names, rotations=(Rotation(names, representation),))
    return Features(vectors, vectors, control_type=control_type)


def test_a_rotation_turns_no_faster_and_stays_a_rotation() -> None:
    bounds = Limits(np.full(4, -1, np.float32), np.full(4, 1, np.float32), velocity=np.full(4, math.pi / 2, np.float32))
    guard = safety(pose("quat_wxyz"), bounds)
    assert guard.notes == ("The rotation qw, qx, qy, qz has no range (quat_wxyz): only how fast it turns is bounded.",)
    guard.begin(vector(1.0, 0.0, 0.0, 0.0))
    half = math.sqrt(0.5)
    target = vector(-2 * half, 0.0, 0.0, -2 * half)  # 90 degrees about z, in other words and too long
    for tick in range(1, 11):
        checked = guard.check(target, tick * PERIOD_S)
        angle = math.pi / 40 * tick  # half of 9 degrees
        np.testing.assert_allclose(checked.action, [math.cos(angle), 0.0, 0.0, math.sin(angle)], atol=1e-6)
        assert checked.reasons == (("step",) if tick < 10 else ())
    assert guard.check(vector(0.0, 0.0, 0.0, 0.0), 1.1).reasons == ("no_rotation",)


def test_differences_of_rotations_are_turns_themselves() -> None:
    bounds = Limits(np.full(4, -1, np.float32), np.full(4, 1, np.float32), step=np.full(4, 0.2, np.float32))
    guard = safety(pose("quat_wxyz", control_type="delta"), bounds)
    guard.begin(None)
    for now_s in (0.0, 0.1):
        checked = guard.check(vector(math.cos(0.5), 0.0, math.sin(0.5), 0.0), now_s)  # by 1 rad
        np.testing.assert_allclose(checked.action, [math.cos(0.1), 0.0, math.sin(0.1), 0.0], atol=1e-6)


def test_angles_have_a_range() -> None:
    names = ("roll", "pitch", "yaw")
    bounds = Limits(vector(-0.5, -0.5, -3.1), vector(0.5, 0.5, 3.1), step=vector(0.05, 0.05, 0.05))
    guard = safety(pose("euler_xyz", names), bounds)
    guard.begin(vector(0.475, 0.0, 0.0))
    checked = guard.check(vector(1.0, 0.0, 0.0), 0.0)
    np.testing.assert_allclose(checked.action, [0.5, 0.0, 0.0], atol=1e-6)
    assert checked.reasons == ("step", "range")
    # The shortest way from 3.0 to -3.0, 0.28 rad, is out of the range: at its end it stays.
    guard.begin(vector(0.0, 0.0, 3.0))
    said = [guard.check(vector(0.0, 0.0, -3.0), tick * PERIOD_S) for tick in range(4)]
    np.testing.assert_allclose([one.action[2] for one in said], [3.05, 3.1, 3.1, 3.1], atol=1e-6)
    assert said[-1].reasons == ("step", "range")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: safety(arm(None)), "expected features that say what an action does"),
        (lambda: safety(max_plan_age_s=0.0), "expected max_plan_age_s above 0, got 0.0"),
        (lambda: safety(slow_start_s=-1.0), "expected slow_start_s of at least 0, got -1.0"),
        (
            lambda: safety(bounds=Limits(vector(0.0), vector(1.0))),
            "expected 2 numbers, one for each of the action, got 1",
        ),
        (
            lambda: safety(arm("delta"), Limits(vector(0.1, 0.0), vector(1.0, 1.0))),
            "limits of elbow: expected a range that holds 0",
        ),
        (lambda: safety(bounds=limits(workspace={"elbow": (2.0, 3.0)})), "limits.workspace.elbow: expected a position"),
        (
            lambda: safety(arm("delta", state=None), limits(workspace={"elbow": (0.0, 1.0)})),
            "limits.workspace.elbow: expected a position of that name in the state",
        ),
        (lambda: safety().check(vector(1.0), 0.0), "expected an action of 2 numbers, got shape"),
    ],
)
def test_what_cannot_be_kept_is_refused(make, message) -> None:
    with pytest.raises(ContractError, match=message):
        make()


def test_a_robot_that_rounds_is_not_held_outside_its_limits() -> None:
    guard = safety()
    guard.begin(vector(0.0, 0.0))
    guard.check(vector(1.0, 0.0), 0.0)
    guard.sent(vector(1.0001, 0.0))
    np.testing.assert_array_equal(guard.check(None, 0.1).action, vector(1.0, 0.0))


def test_what_a_robot_says_it_was_sent_must_be_an_action() -> None:
    with pytest.raises(RobotError, match="expected the 2 numbers that were sent"):
        safety().sent(vector(np.nan, 0.0))


def test_limits_without_velocity_and_step_bound_no_step_and_that_is_said() -> None:
    assert "no velocity and no step" in safety().notes[0]
