"""What is trained instead of the recorded actions, and back."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation as Turn

from menura.errors import FeatureMismatch
from menura.features import ROTATIONS, Features, Rotation, VectorFeature
from menura.processing.differences import Differences
from menura.processing.representation import Representation
from menura.processing.rotations import angle, compose, convert
from menura.processing.spaces import Spaces

representations = st.sampled_from(sorted(set(ROTATIONS) - {"angle"}))


def ee(action: str = "quat_wxyz", state: str = "quat_wxyz", reverse: bool = False) -> Features:
    """An arm's pose, gripper and, in the state, something else; names are equal but for the rotation's."""

    def rotation(kind: str) -> Rotation:
        return Rotation(tuple(f"turn_{kind}_{i}" for i in range(ROTATIONS[kind])), kind)

    def vector(kind: str, *more: str) -> VectorFeature:
        names = ("x", "y", *rotation(kind).names, "z", "gripper", *more)
        names = names[::-1] if reverse else names
        return VectorFeature(names, rotations=(rotation(kind),), grippers={"gripper": (0.0, 1.0)})

    return Features(state=vector(state, "load"), action=vector(action), fps=10, control_space="ee", control_type="abs")


def reference(features: Features) -> dict[str, str]:
    assert features.state is not None
    return {features.action.rotations[0].names[0]: features.state.rotations[0].names[0]}


def trajectory(feature: VectorFeature, shape: tuple[int, ...], seed: int) -> np.ndarray:
    """(*shape, D) float32: anything anywhere, rotations in any orientation."""
    random = np.random.default_rng(seed)
    x = random.uniform(-1, 1, (*shape, feature.dim))
    for rotation in feature.rotations:
        turns = Turn.random(int(np.prod(shape)), random_state=seed % 2**31).as_quat().reshape(*shape, 4)
        at = [feature.names.index(name) for name in rotation.names]
        x[..., at] = convert(turns, "quat_xyzw", rotation.representation)
    return x.astype(np.float32)


def assert_same(got: np.ndarray, expected: np.ndarray, feature: VectorFeature, tolerance: float = 2e-5) -> None:
    """Numbers equal, rotations the same rotations. Euler angles near gimbal lock lose half of float32's digits."""
    plain = np.ones(feature.dim, bool)
    for rotation in feature.rotations:
        at = [feature.names.index(name) for name in rotation.names]
        plain[at] = False
        allowed = 5e-3 if rotation.representation.startswith("euler") else 20 * tolerance
        assert angle(got[..., at], expected[..., at], rotation.representation).max() < allowed
    assert np.abs(got - expected)[..., plain].max() < tolerance


@given(
    st.integers(0, 2**31),
    representations,
    representations,
    st.sampled_from(["recorded", "relative", "delta"]),
    st.none() | representations,
    st.none() | representations,
    st.booleans(),
    st.sampled_from([(3, 6), (4,)]),
)
def test_forward_and_back_are_equal(
    seed: int,
    action: str,
    state: str,
    action_type: str,
    action_rotation: str | None,
    state_rotation: str | None,
    reverse: bool,
    shape: tuple[int, ...],
) -> None:
    features = ee(action, state, reverse)
    spaces = Spaces(
        features,
        action_type=action_type,  # type: ignore[arg-type]
        action_rotation=action_rotation,
        state_rotation=state_rotation,
        action_reference=reference(features),
    )
    assert features.state is not None
    assert spaces.trained.state is not None
    actions, states = trajectory(features.action, shape, seed), trajectory(features.state, shape[:1], seed + 1)
    kept = actions.copy(), states.copy()
    trained = spaces.encode_actions(actions, states)
    assert trained.shape == (*shape, spaces.trained.action_dim)
    assert trained.dtype == np.float32
    back = spaces.decode_actions(trained, states)
    assert back.dtype == np.float32
    assert_same(back, actions, features.action)
    assert spaces.encode_state(states).shape == (shape[0], spaces.trained.state_dim)
    assert np.array_equal(actions, kept[0])
    assert np.array_equal(states, kept[1])


def test_recorded_actions_pass_untouched() -> None:
    features = ee()
    spaces = Spaces(features)
    actions = trajectory(features.action, (2, 3), 0)
    assert spaces.encode_actions(actions, np.zeros((2, 9), np.float32)) is actions
    assert spaces.decode_actions(actions, None) is actions
    assert spaces.trained == features
    assert not spaces.encodes_actions


def test_numbers_are_subtracted_grippers_are_not() -> None:
    names = ("a", "b", "gripper")
    vector = VectorFeature(names, grippers={"gripper": (0.0, 1.0)})
    features = Features(state=vector, action=vector, fps=10, control_type="abs")
    state = np.array([[1, 10, 0.5]], np.float32)
    actions = np.array([[[2, 20, 0], [4, 40, 1], [4, 40, 1]]], np.float32)
    relative = Spaces(features, action_type="relative").encode_actions(actions, state)
    assert relative[0].tolist() == [[1, 10, 0], [3, 30, 1], [3, 30, 1]]
    delta = Spaces(features, action_type="delta").encode_actions(actions, state)
    assert delta[0].tolist() == [[1, 10, 0], [2, 20, 1], [0, 0, 1]]
    kept = Spaces(features, action_type="relative", absolute_names=["b"]).encode_actions(actions, state)
    assert kept[0].tolist() == [[1, 20, 0], [3, 40, 1], [3, 40, 1]]


@given(st.integers(0, 2**31))
def test_rotations_are_composed(seed: int) -> None:
    features = ee("quat_xyzw", "axis_angle")
    spaces = Spaces(features, action_type="relative", action_reference=reference(features))
    assert features.state is not None
    state = trajectory(features.state, (1,), seed)
    turn = np.array([0.1, -0.2, 0.3])  # radians about the base's axes
    action = trajectory(features.action, (1,), seed)
    at, state_at = slice(2, 6), slice(2, 5)
    action[:, at] = convert(compose(turn, state[:, state_at], "axis_angle"), "axis_angle", "quat_xyzw")
    trained = spaces.encode_actions(action, state)
    assert convert(trained[:, at], "quat_xyzw", "axis_angle")[0] == pytest.approx(turn, abs=1e-5)


def test_delta_does_not_add_up_rounding() -> None:
    features = ee("quat_wxyz")
    spaces = Spaces(features, action_type="delta", action_rotation="6d")
    assert features.state is not None
    actions, states = trajectory(features.action, (2, 400), 3), trajectory(features.state, (2,), 4)
    back = spaces.decode_actions(spaces.encode_actions(actions, states), states)
    assert_same(back, actions, features.action)


def test_a_step_is_what_the_chunk_has() -> None:
    features = ee("axis_angle")
    assert features.state is not None
    for action_type in ("relative", "delta"):
        spaces = Spaces(features, action_type=action_type, action_rotation="6d", action_reference=reference(features))
        actions, states = trajectory(features.action, (5, 3), 3), trajectory(features.state, (5,), 4)
        chunk = spaces.encode_actions(actions, states)
        for step in range(3):
            chained = step > 0 and action_type == "delta"
            before = actions[:, step - 1] if chained else spaces.reference(states)
            assert np.array_equal(spaces.encode_step(actions[:, step], before), chunk[:, step])


def test_trained_features_say_what_is_trained() -> None:
    features = ee("quat_wxyz", "euler_xyz")
    spaces = Spaces(
        features,
        action_type="relative",
        action_rotation="6d",
        state_rotation="quat_xyzw",
        action_reference=reference(features),
    )
    trained = spaces.trained
    assert trained.control_type == "delta"
    assert trained.action_dim == features.action_dim + 2
    assert trained.action.rotations[0].representation == "6d"
    assert trained.action.names[2:8] == tuple(f"turn_quat_wxyz_6d_{i}" for i in range(6))
    assert trained.state_dim == features.state_dim + 1
    assert trained.action.grippers == features.action.grippers


def test_a_representation_keeps_units_and_objects() -> None:
    feature = VectorFeature(
        ("a", "cube_qw", "cube_qx", "cube_qy", "cube_qz", "b"),
        units=("m", "", "", "", "", "s"),
        object_names=("cube_qw", "cube_qx", "cube_qy", "cube_qz", "b"),
        rotations=(Rotation(("cube_qw", "cube_qx", "cube_qy", "cube_qz"), "quat_wxyz"),),
    )
    other = Representation(feature, "euler_xyz").feature
    assert other.names == ("a", "cube_q_euler_xyz_0", "cube_q_euler_xyz_1", "cube_q_euler_xyz_2", "b")
    assert other.units == ("m", "rad", "rad", "rad", "s")
    assert other.object_names == other.names[1:]
    assert Representation(feature, "quat_wxyz").feature == feature


def test_keys_differ_as_the_spaces_do() -> None:
    features = ee()
    keys = {
        Spaces(features).key,
        Spaces(features, action_type="relative").key,
        Spaces(features, action_type="delta").key,
        Spaces(features, action_rotation="6d").key,
        Spaces(features, action_type="delta", absolute_names=["x"]).key,
        Spaces(replace(features, action=replace(features.action, grippers={})), action_rotation="6d").key,
    }
    assert len(keys) == 6


PLAIN = VectorFeature(("shoulder", "elbow"))


@pytest.mark.parametrize(
    ("features", "settings", "message"),
    [
        (Features(PLAIN, PLAIN, control_type="delta"), {}, "absolute .*got control type delta.*ConvertActions"),
        (Features(PLAIN, PLAIN), {}, "absolute .*got features that do not say.*DeclareFeatures"),
        (Features(None, PLAIN, control_type="abs"), {}, "expected a state they refer to"),
        (
            Features(VectorFeature(("shoulder", "elbows")), PLAIN, control_type="abs"),
            {},
            r"'elbow' of the action in the state.*did you mean elbows\?.*action_reference: \{elbow: …\}",
        ),
        (
            Features(PLAIN, PLAIN, control_type="abs"),
            {"action_reference": {"elbw": "elbow"}},
            "action_reference.*'elbw'; did you mean elbow",
        ),
        (
            Features(PLAIN, PLAIN, control_type="abs"),
            {"action_reference": {"elbow": "sholder"}},
            "action_reference.*'sholder'; did you mean shoulder",
        ),
        (
            Features(PLAIN, PLAIN, control_type="abs"),
            {"absolute_names": ["elbo"]},
            "absolute_names.*'elbo'; did you mean elbow",
        ),
        (
            ee("axis_angle", "quat_wxyz"),
            {},
            "one rotation of the state for .*turn_axis_angle_0.*got .*turn_quat_wxyz_0",
        ),
        (ee(), {"absolute_names": ["turn_quat_wxyz_0"]}, "absolute_names: expected all of the rotation"),
        (
            replace(ee(), action=VectorFeature(("x", "turn_quat_wxyz_0"))),
            {},
            "expected a plain number of the state to subtract",
        ),
        (Features(PLAIN, PLAIN, control_type="abs"), {"action_rotation": "6d"}, "6d: expected a feature that says"),
        (ee(), {"action_rotation": "7d"}, "rotation: expected one of"),
        (replace(ee(), state=None), {"action_type": "recorded", "state_rotation": "6d"}, "state_rotation: expected"),
    ],
)
def test_what_cannot_be_is_refused(features: Features, settings: dict[str, object], message: str) -> None:
    with pytest.raises(FeatureMismatch, match=message):
        Spaces(features, **({"action_type": "relative"} | settings))  # type: ignore[arg-type]


def test_one_rotation_cannot_refer_to_two() -> None:
    two = VectorFeature(
        ("a", "b", "c", "d", "e", "f"),
        rotations=(Rotation(("a", "b", "c"), "axis_angle"), Rotation(("d", "e", "f"), "axis_angle")),
    )
    one = VectorFeature(("a", "b", "f"), rotations=(Rotation(("a", "b", "f"), "axis_angle"),))
    with pytest.raises(FeatureMismatch, match="expected one rotation of the state"):
        Differences(one, two)
    with pytest.raises(FeatureMismatch, match=r"got none declared in \['a', 'b', 'f'\].*DeclareFeatures"):
        Differences(one, VectorFeature(one.names))
    Differences(one, two, {"a": "a"})


def test_differences_are_not_decoded_without_a_state() -> None:
    with pytest.raises(FeatureMismatch, match="expected the state they were predicted from"):
        Spaces(ee(), action_type="delta").decode_actions(np.zeros((1, 2, 8), np.float32), None)


TURNING = VectorFeature(("base", "wrist"), ("rad", "rad"), rotations=(Rotation(("wrist",), "angle"),))


@pytest.mark.parametrize("action_type", ["recorded", "relative", "delta"])
@pytest.mark.parametrize("action_rotation", [None, "6d"])
def test_a_joint_that_turns_without_end_goes_the_shorter_way(action_type: Any, action_rotation: str | None) -> None:
    features = Features(TURNING, TURNING, fps=10, control_space="joint", control_type="abs")
    spaces = Spaces(features, action_type=action_type, action_rotation=action_rotation)
    state = np.array([[0.5, 3.1]], np.float32)
    actions = np.array([[[0.6, -3.1], [0.7, -2.9], [0.8, 3.0]]], np.float32)
    trained = spaces.encode_actions(actions, state)
    assert trained.shape[-1] == spaces.trained.action_dim == (2 if action_rotation is None else 7)
    if action_rotation is None and action_type == "relative":
        assert trained[0, :, 1] == pytest.approx([2 * np.pi - 6.2, 2 * np.pi - 6.0, -0.1], abs=1e-6)
    np.testing.assert_allclose(spaces.decode_actions(trained, state), actions, atol=1e-5)
    if spaces.encodes_actions:
        around = actions + np.array([0, 2 * np.pi])  # the same, by a joint that counts on
        np.testing.assert_allclose(spaces.comparable(around)[0], spaces.comparable(actions)[0], atol=1e-6)


def test_an_angle_is_compared_with_an_angle_and_says_no_other_rotation() -> None:
    turning = Features(replace(TURNING, rotations=()), TURNING, fps=10, control_type="abs")
    with pytest.raises(FeatureMismatch, match=r"expected one rotation of the state for \['wrist'\]"):
        Spaces(turning, action_type="relative")
    pose = ee("quat_wxyz", "quat_wxyz")
    names = (*pose.state.names, "wrist") if pose.state else ()
    mixed = replace(pose, action=VectorFeature((*names[:2], "wrist"), rotations=(Rotation(("wrist",), "angle"),)))
    with pytest.raises(FeatureMismatch, match="expected a joint's angle for a joint's angle"):
        Spaces(mixed, action_type="relative", action_reference={"wrist": "turn_quat_wxyz_0"})
    with pytest.raises(FeatureMismatch, match="rotations as angle: expected a representation that can say any"):
        Spaces(pose, action_rotation="angle")
