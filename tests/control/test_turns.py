"""The rotations of `menura.control.turns` are those of `menura.processing.rotations`."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from menura.control.turn_numbers import READ, WRITE
from menura.control.turns import IDENTITY, Turns, angle, between, inverse, product
from menura.errors import DataError
from menura.features import ROTATIONS, Rotation, VectorFeature
from menura.processing import rotations

turns = (
    arrays(np.float64, 4, elements=st.floats(-1, 1))
    .filter(lambda x: np.linalg.norm(x) > 0.1)
    .map(lambda x: (x / np.linalg.norm(x)).tolist())
)


@given(turns, turns)
def test_products_and_angles(a, b) -> None:
    kind = "quat_xyzw"
    assert rotations.angle(product(a, b), rotations.compose(a, b, kind), kind) == pytest.approx(0.0, abs=1e-6)
    assert angle(a, b) == pytest.approx(rotations.angle(a, b, kind), abs=1e-6)
    assert angle(product(a, inverse(a)), IDENTITY) == pytest.approx(0.0, abs=1e-6)


@given(turns, turns, st.floats(0, 1))
def test_between_two_lies_on_the_shortest_way(a, b, share) -> None:
    mixed = between(a, b, share)
    assert np.linalg.norm(mixed) == pytest.approx(1.0)
    assert angle(a, mixed) == pytest.approx(share * angle(a, b), abs=1e-6)
    assert angle(mixed, b) == pytest.approx((1 - share) * angle(a, b), abs=1e-6)


@pytest.mark.parametrize("representation", ROTATIONS)
def test_every_representation_is_read_and_written(representation) -> None:
    names = tuple(f"r{i}" for i in range(ROTATIONS[representation]))
    of = Turns(VectorFeature(("x", *names, "y"), rotations=(Rotation(names, representation),)))
    turn = np.array([0.0, 0.0, 0.6, 0.8])
    action = np.full(len(names) + 2, 7.0, np.float32)
    of.write([turn.tolist()], action)
    assert (action[0], action[-1], of.numbers) == (7.0, 7.0, [0, len(names) + 1])
    np.testing.assert_allclose(action[1:-1], rotations.convert(turn, "quat_xyzw", representation), atol=1e-6)
    assert angle(of.one(0, action), turn.tolist()) == pytest.approx(0.0, abs=1e-6)
    np.testing.assert_allclose(of.of(np.stack([action, action])), np.broadcast_to(turn, (2, 1, 4)), atol=1e-6)


@given(turns, st.sampled_from(sorted(READ)), st.floats(0.3, 3))
def test_one_at_a_time_is_as_many_at_once(turn, representation, scale) -> None:
    numbers = rotations.convert(np.array(turn), "quat_xyzw", representation)
    np.testing.assert_allclose(WRITE[representation](turn), numbers, atol=1e-6)
    longer = numbers * (1.0 if representation == "axis_angle" else scale)  # what policies answer is not canonical
    assert angle(READ[representation](longer.tolist()), turn) == pytest.approx(0.0, abs=1e-6)
    assert math.hypot(*READ[representation](longer.tolist())) == pytest.approx(1.0)


@pytest.mark.parametrize("representation", READ)
@pytest.mark.parametrize("number", [0.0, np.nan, np.inf])
def test_one_that_is_none_is_refused_as_many_are(representation, number) -> None:
    numbers = [number] * ROTATIONS[representation]
    if representation == "axis_angle" and number == 0.0:
        assert READ[representation](numbers) == IDENTITY
        return
    with pytest.raises(DataError):
        READ[representation](numbers)


def test_what_are_no_actions() -> None:
    of = Turns(VectorFeature(("x", "a", "b", "c", "d"), rotations=(Rotation(("a", "b", "c", "d"), "quat_wxyz"),)))
    good, nothing, infinite = [1, 1, 0, 0, 0], [1, 0, 0, 0, 0], [np.inf, 1, 0, 0, 0]
    assert of.leading(np.array([good, good], np.float32)) == (2, None)
    assert of.leading(np.array([good, infinite, nothing], np.float32)) == (1, "not_finite")
    assert of.leading(np.array([good, nothing, infinite], np.float32)) == (1, "no_rotation")
