"""What holds for every controller, whatever chunks come, and for safety behind it."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from menura.chunks import ActionChunk
from menura.control.controllers.base import Controller
from menura.control.controllers.delay_compensated import DelayCompensated
from menura.control.controllers.interpolating import Interpolating
from menura.control.controllers.newest import Newest
from menura.control.controllers.oldest_first import OldestFirst
from menura.control.controllers.real_time_chunking import RealTimeChunking
from menura.control.controllers.temporal_ensemble import TemporalEnsemble
from menura.control.safety import Safety
from menura.features import Features, Rotation, VectorFeature
from menura.processing.rotations import angle
from menura.robots.base import Limits

PERIOD_S = 0.1
MAX_AGE_S = 0.8

CONTROLLERS = {
    "newest": Newest,
    "oldest_first": lambda: OldestFirst(fraction=0.6),
    "temporal_ensemble": lambda: TemporalEnsemble(coefficient=0.1),
    "delay_compensated": lambda: DelayCompensated(n_action_steps=4),
    "interpolating": Interpolating,
    "interpolating_cubic": lambda: Interpolating(kind="cubic", blend_s=0.3, grippers="step"),
    "real_time_chunking": lambda: RealTimeChunking(execution_horizon=3),
}


def _features(names, kind, rotation=None, control_type="abs") -> Features:
    rotations = (Rotation(rotation, kind),) if rotation else ()
    grippers = {"grip": (0.0, 1.0)} if "grip" in names else {}
    units = ("rad",) * len(names)
    vector = VectorFeature(names, rotations=rotations, grippers=grippers, units=units)
    return Features(vector, vector, fps=1 / PERIOD_S, control_type=control_type)


QUATERNION, ANGLES = ("qw", "qx", "qy", "qz"), ("roll", "pitch", "yaw")
FEATURES = {
    "joints": _features(("shoulder", "elbow", "grip"), ""),
    "quaternion": _features(("x", *QUATERNION, "grip"), "quat_wxyz", QUATERNION),
    "angles": _features(("x", *ANGLES), "euler_xyz", ANGLES),
    "differences": _features(("x", *ANGLES, "grip"), "axis_angle", ANGLES, control_type="delta"),
}


def _limits(features: Features) -> Limits:
    ones = np.ones(features.action_dim, np.float32)
    return Limits(-ones, ones, velocity=2 * ones, step=0.15 * ones, workspace={features.action.names[0]: (-0.75, 0.75)})


@dataclass(frozen=True)
class Moment:
    """A tick, and the chunk that arrives just before it."""

    now_s: float
    chunk: ActionChunk | None


@st.composite
def courses(draw, width: int) -> list[Moment]:
    """Ticks with jitter and pauses; chunks late, short, empty, out of order, with numbers that are none."""
    control_s = draw(st.sampled_from([0.1, 0.033, 0.02]))
    rng = np.random.default_rng(draw(st.integers(0, 2**16)))
    answering = draw(st.floats(0.02, 0.6))  # how often the policy answers
    broken = draw(st.sampled_from([0.0, 0.0, 0.02]))
    moments, now_s, number = [], 100.0, 0
    for _ in range(draw(st.integers(5, 30))):
        now_s += control_s * (rng.uniform(0.7, 1.3) if rng.random() < 0.95 else rng.uniform(1.0, 30.0))
        chunk = None
        if rng.random() < answering:
            actions = rng.uniform(-1.5, 1.5, (int(rng.integers(0, 12)), width)).astype(np.float32)
            actions[rng.random(actions.shape) < broken] = rng.choice([np.nan, np.inf])
            actions[rng.random(len(actions)) < broken] = 0.0  # of a quaternion: no rotation
            chunk = ActionChunk(
                actions, now_s - rng.exponential(0.3), PERIOD_S, max(number - int(rng.integers(-1, 2)), 0)
            )
            number += 1
        moments.append(Moment(now_s, chunk))
    return moments


def _controllers(name: str, features: Features, control_s: float) -> Controller:
    controller = CONTROLLERS[name]()
    if features.control_type == "delta" and not controller.divides_steps:
        control_s = PERIOD_S
    controller.begin(features, control_s)
    return controller


def _sent(name: str, features: Features, course: list[Moment], control_s: float) -> Iterator[tuple]:
    controller = _controllers(name, features, control_s)
    safety = Safety(features, _limits(features), control_s, max_plan_age_s=MAX_AGE_S, slow_start_s=0.3)
    start = np.zeros(features.action_dim, np.float32)
    if "qw" in features.action.names:
        start[1] = 1.0
    safety.begin(start)
    for moment in course:
        if moment.chunk is not None:
            controller.receive(moment.chunk, moment.now_s)
        command = controller.command(moment.now_s)
        checked = (
            safety.check(None, moment.now_s)
            if command is None
            else safety.check(command.action, moment.now_s, captured_s=command.captured_s)
        )
        yield moment, command, checked


@pytest.mark.parametrize("kind", FEATURES)
@pytest.mark.parametrize("name", CONTROLLERS)
def test_nothing_leaves_the_limits_and_no_step_is_too_large(name: str, kind: str) -> None:
    features = FEATURES[kind]
    limits, control_s = _limits(features), 0.02
    rotations = [
        (rotation.representation, [features.action.names.index(one) for one in rotation.names])
        for rotation in features.action.rotations
    ]
    rotated = [place for _, places in rotations for place in places]
    numbers = [place for place in range(features.action_dim) if place not in rotated]
    allowed = 2.0 * control_s * (1 + 1e-5) + 1e-6
    differences = features.control_type == "delta"
    nothing = np.zeros(features.action_dim, np.float32)
    if kind == "quaternion":
        nothing[1] = 1.0

    @settings(max_examples=12)
    @given(courses(features.action_dim))
    def holds(course: list[Moment]) -> None:
        before, position = nothing, 0.0
        for moment, command, checked in _sent(name, features, course, control_s):
            assert checked.action is not None
            assert limits.within(checked.action)
            last = before.copy()
            if differences:
                last[:4] = 0.0
            assert np.abs(checked.action - last)[numbers].max() <= allowed
            for representation, places in rotations:
                assert angle(checked.action[places], last[places], representation) <= allowed
                if representation == "quat_wxyz":
                    assert np.linalg.norm(checked.action[places]) == pytest.approx(1.0, abs=1e-5)
            position = position + checked.action[0] if differences else checked.action[0]
            assert abs(position) <= 0.75 + 1e-5
            assert checked.held or (command is not None and moment.now_s - command.captured_s <= MAX_AGE_S)
            before = checked.action

    holds()


@pytest.mark.parametrize("kind", FEATURES)
@pytest.mark.parametrize("name", CONTROLLERS)
def test_commands_are_actions_of_now_and_again_the_same(name: str, kind: str) -> None:
    features = FEATURES[kind]

    @settings(max_examples=6)
    @given(courses(features.action_dim))
    def holds(course: list[Moment]) -> None:
        once, again = (list(_sent(name, features, course, 0.02)) for _ in range(2))
        for (moment, command, checked), (_, same_command, same_checked) in zip(once, again, strict=True):
            np.testing.assert_array_equal(checked.action, same_checked.action)
            assert checked.reasons == same_checked.reasons
            assert (command is None) == (same_command is None)
            if command is not None:
                np.testing.assert_array_equal(command.action, same_command.action)
                assert command.action.dtype == np.float32
                assert np.isfinite(command.action).all()
                assert command.captured_s <= moment.now_s

    holds()


@pytest.mark.parametrize("kind", ["joints", "quaternion", "angles"])
@pytest.mark.parametrize("name", [name for name, make in CONTROLLERS.items() if make().continuous])
def test_what_promises_it_is_continuous_when_chunks_switch_and_in_between(name: str, kind: str) -> None:
    features = FEATURES[kind]
    jumping = name == "interpolating_cubic" and "grip" in features.action.names

    def apart(a, b) -> float:
        rotation = features.action.rotations[0] if features.action.rotations else None
        rotated = [] if rotation is None else [features.action.names.index(one) for one in rotation.names]
        numbers = [p for p in range(features.action_dim - jumping) if p not in rotated]
        turned = 0.0 if rotation is None else float(angle(a[rotated], b[rotated], rotation.representation))
        return max(float(np.abs(a - b)[numbers].max()), turned)

    @settings(max_examples=15)
    @given(courses(features.action_dim))
    def holds(course: list[Moment]) -> None:
        controller = _controllers(name, features, 0.02)
        for moment in course:
            before = controller.command(moment.now_s)
            if moment.chunk is not None:
                controller.receive(moment.chunk, moment.now_s)
            after = controller.command(moment.now_s)
            if before is not None and after is not None:
                assert apart(before.action, after.action) < 1e-4
            soon = controller.command(moment.now_s + 1e-5)
            if after is not None and soon is not None:
                assert apart(after.action, soon.action) < 1e-2

    holds()


@pytest.mark.parametrize("name", CONTROLLERS)
def test_an_inference_is_wanted_when_it_says_and_a_dead_policy_ends_the_plan(name: str) -> None:
    features = FEATURES["joints"]

    @settings(max_examples=25)
    @given(courses(features.action_dim))
    def holds(course: list[Moment]) -> None:
        controller = _controllers(name, features, 0.02)
        for moment in course:
            if moment.chunk is not None:
                controller.receive(moment.chunk, moment.now_s)
            controller.command(moment.now_s)
            wanted_s = controller.next_wanted_s(moment.now_s)
            assert wanted_s >= moment.now_s
            assert controller.wants(wanted_s)
            previous = controller.previous(moment.now_s)
            if previous is not None:
                assert np.isfinite(previous.actions).all()
                assert 1 <= len(previous.actions) <= 12
        end_s = course[-1].now_s + 24 * PERIOD_S  # a chunk under way and one that waits
        for time_s in np.arange(course[-1].now_s, end_s, 0.02):
            controller.command(time_s)
        assert controller.command(end_s + 0.1) is None
        assert controller.wants(end_s + 0.1)

    holds()
