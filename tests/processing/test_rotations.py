"""Rotations: every representation to every other, differences composed."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from menura.errors import DataError, FeatureMismatch
from menura.features import ROTATIONS, VectorFeature
from menura.features import Rotation as Orientation
from menura.processing.rotations import accumulate, angle, average, compose, convert, difference, neutral

names = st.sampled_from(sorted(ROTATIONS))
whole = st.sampled_from(sorted(set(ROTATIONS) - {"angle"}))  # those that can say any rotation
seeds = st.integers(0, 2**32 - 1)


def rotations(seed: int, shape: tuple[int, ...], representation: str) -> np.ndarray:
    """Random ones, some of them special: none at all, half turns, gimbal lock."""
    count = int(np.prod(shape))
    quaternions = Rotation.random(count, random_state=seed % 2**31).as_quat()
    special = np.array([[0, 0, 0, 1], [1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0.5**0.5, 0, 0.5**0.5]])
    random = np.random.default_rng(seed)
    chosen = random.random(count) < 0.2
    quaternions[chosen] = special[random.integers(len(special), size=chosen.sum())]
    return convert(quaternions.reshape(*shape, 4), "quat_xyzw", representation)


@given(seeds, names, whole)
def test_round_trips_are_the_same_rotation(seed: int, source: str, target: str) -> None:
    x = rotations(seed, (3, 5), source)
    before = x.copy()
    there = convert(x, source, target)
    back = convert(there, target, source)
    assert there.shape == (3, 5, ROTATIONS[target])
    assert back.shape == x.shape
    assert angle(back, x, source).max() < 1e-6
    assert np.array_equal(x, before)


@given(seeds, names)
def test_a_difference_composed_gives_back(seed: int, representation: str) -> None:
    a, b = rotations(seed, (4, 3), representation), rotations(seed + 1, (4, 1), representation)
    kept = a.copy(), b.copy()
    back = compose(difference(a, b, representation), b, representation)
    assert angle(back, a, representation).max() < 1e-6
    assert np.array_equal(a, kept[0])
    assert np.array_equal(b, kept[1])


@given(seeds, names)
def test_differences_accumulated_give_back(seed: int, representation: str) -> None:
    x = rotations(seed, (2, 6), representation)
    steps = difference(x[:, 1:], x[:, :-1], representation)
    assert angle(accumulate(steps, x[:, 0], representation), x[:, 1:], representation).max() < 1e-6


@given(seeds, names)
def test_float32_stays_float32_and_right(seed: int, representation: str) -> None:
    x = rotations(seed, (6,), representation).astype(np.float32)
    there = convert(x, representation, "matrix")
    assert there.dtype == np.float32
    assert angle(convert(there, "matrix", representation), x, representation).max() < 2e-3 * (  # near gimbal lock
        1 if representation.startswith("euler") else 1e-2
    )


def test_against_numbers_that_are_known() -> None:
    quarter = np.pi / 2  # about z
    assert convert([0, 0, quarter], "axis_angle", "quat_wxyz") == pytest.approx([0.5**0.5, 0, 0, 0.5**0.5])
    assert convert([0, 0, quarter], "axis_angle", "quat_xyzw") == pytest.approx([0, 0, 0.5**0.5, 0.5**0.5])
    assert convert([0, 0, quarter], "axis_angle", "6d") == pytest.approx([0, 1, 0, -1, 0, 0])
    assert convert([0, 0, quarter], "axis_angle", "matrix") == pytest.approx([0, -1, 0, 1, 0, 0, 0, 0, 1])
    assert convert([0.1, 0.2, 0.3], "euler_xyz", "matrix") == pytest.approx(
        Rotation.from_euler("xyz", [0.1, 0.2, 0.3]).as_matrix().ravel()
    )
    assert convert([0.1, 0.2, 0.3], "euler_XYZ", "euler_xyz") != pytest.approx([0.1, 0.2, 0.3])


def test_the_difference_is_in_the_fixed_frame() -> None:
    tilted = convert([np.pi / 2, 0, 0], "euler_xyz", "quat_wxyz")
    turned = compose(convert([0, 0, 0.3], "axis_angle", "quat_wxyz"), tilted, "quat_wxyz")  # about the fixed z
    apart = convert(difference(turned, tilted, "quat_wxyz"), "quat_wxyz", "axis_angle")
    assert apart == pytest.approx([0, 0, 0.3])


@given(seeds)
def test_quaternions_have_one_sign_and_angles_stay_below_pi(seed: int) -> None:
    quaternion = rotations(seed, (20,), "quat_wxyz")
    assert (quaternion[:, 0] >= 0).all()
    assert np.array_equal(convert(-quaternion, "quat_wxyz", "quat_wxyz"), convert(quaternion, "quat_wxyz", "quat_wxyz"))
    turns = convert(-3.0 * quaternion, "quat_wxyz", "axis_angle")
    assert np.linalg.norm(turns, axis=1).max() <= np.pi + 1e-12


@given(seeds)
def test_any_six_or_nine_numbers_are_a_rotation(seed: int) -> None:
    numbers = np.random.default_rng(seed).normal(size=(10, 9))
    for matrix in (convert(numbers, "matrix", "matrix"), convert(numbers[:, :6], "6d", "matrix")):
        square = matrix.reshape(-1, 3, 3)
        assert np.allclose(square @ square.transpose(0, 2, 1), np.eye(3), atol=1e-9)
        assert np.allclose(np.linalg.det(square), 1)
    kept = convert(numbers[:, :6], "6d", "6d")[:, :3]  # Gram-Schmidt keeps the first direction
    assert np.allclose(kept, numbers[:, :3] / np.linalg.norm(numbers[:, :3], axis=1, keepdims=True))


def test_gimbal_lock_is_quiet_and_right() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        locked = convert([0.3, np.pi / 2, 0.5], "euler_xyz", "euler_xyz")
    assert angle(locked, [0.3, np.pi / 2, 0.5], "euler_xyz") < 1e-6


@given(seeds, whole)
def test_the_average_is_between(seed: int, representation: str) -> None:
    x = rotations(seed, (1,), representation)[0]
    near = compose(convert([0, 0.2, 0], "axis_angle", representation), x, representation)
    middle = average(np.stack([x, near]), [3.0, 1.0], representation)
    assert angle(middle, x, representation) == pytest.approx(0.05, abs=1e-3)
    assert angle(middle, near, representation) == pytest.approx(0.15, abs=1e-3)


@given(st.floats(-20, 20), st.floats(-20, 20))
def test_an_angle_takes_the_shorter_way_round(a: float, b: float) -> None:
    way = difference([a], [b], "angle")
    assert abs(way[0]) <= np.pi + 1e-9
    assert np.exp(1j * (way[0] + b)) == pytest.approx(np.exp(1j * a))
    back = compose(way, [b], "angle")
    assert abs(back[0]) <= np.pi + 1e-9
    assert np.exp(1j * back) == pytest.approx(np.exp(1j * a))


def test_angles_about_the_end_of_the_turn() -> None:
    assert difference([-3.1], [3.1], "angle") == pytest.approx([2 * np.pi - 6.2])
    assert compose([0.2], [3.1], "angle") == pytest.approx([3.3 - 2 * np.pi])
    assert average([[3.1], [-3.1]], [1, 1], "angle") % (2 * np.pi) == pytest.approx([np.pi])
    assert accumulate([[[0.2], [0.2]]], [[3.1]], "angle")[0, :, 0] == pytest.approx([3.3 - 2 * np.pi, 3.5 - 2 * np.pi])
    assert angle([-3.1], [3.1], "angle") == pytest.approx(2 * np.pi - 6.2)


def test_nothing_is_a_rotation_of_its_own() -> None:
    for representation, width in ROTATIONS.items():
        nothing = np.empty((0, 7, width))
        assert convert(nothing, representation, "6d").shape == (0, 7, 6)
        assert compose(nothing, nothing, representation).shape == (0, 7, width)


def test_a_neutral_vector_is_no_turn_and_nothing_else() -> None:
    names = ("x", "qw", "qx", "qy", "qz", *"abcdef")
    rotations = (Orientation(names[1:5], "quat_wxyz"), Orientation(names[5:], "6d"))
    assert neutral(VectorFeature(names, rotations=rotations)).tolist() == [0, 1, 0, 0, 0, 1, 0, 0, 0, 1, 0]


def test_what_is_no_rotation_is_refused() -> None:
    with pytest.raises(FeatureMismatch, match="did you mean quat_wxyz"):
        convert(np.zeros(4), "quat_wxyzz", "6d")
    with pytest.raises(FeatureMismatch, match="expected 4 numbers, got shape"):
        convert(np.zeros(3), "quat_wxyz", "6d")
    with pytest.raises(DataError, match="expected numbers that say a rotation"):
        convert(np.zeros(4), "quat_wxyz", "6d")
    with pytest.raises(DataError, match="expected numbers that say a rotation"):
        convert([1, 0, 0, 2, 0, 0], "6d", "matrix")
    with pytest.raises(DataError, match="expected numbers that say a rotation"):
        convert(np.zeros(9), "matrix", "6d")
    with pytest.raises(DataError, match="expected finite numbers"):
        convert([np.nan, 0, 0], "euler_xyz", "6d")
