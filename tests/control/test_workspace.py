import numpy as np
import pytest

from menura.control.workspace import IntegratedWorkspace
from menura.errors import ContractError
from menura.features import Features, VectorFeature

ARM = Features(
    VectorFeature(("y", "x"), units=("m", "m")), VectorFeature(("x", "grip"), units=("m", "")), control_type="delta"
)


def position(x: float) -> np.ndarray:
    return np.array([7.0, x], np.float32)


def test_differences_lead_no_further_than_the_box() -> None:
    box = IntegratedWorkspace(ARM, {"x": (-1.0, 1.0)})
    box.begin(position(0.75))
    assert box.clip(np.array([0.125])) == 0.125
    box.sent(np.array([0.125]), 0.0)
    assert box.clip(np.array([0.5])) == 0.125
    assert box.clip(np.array([-3.0])) == -1.875


def test_what_was_sent_since_a_state_was_captured_is_added_to_it() -> None:
    box = IntegratedWorkspace(ARM, {"x": (-1.0, 1.0)})
    box.begin(position(0.0))
    for now_s in (0.1, 0.2, 0.3):
        box.sent(np.array([0.25]), now_s)
    box.observe(position(0.125), captured_s=0.15)  # of before two of them
    assert box.clip(np.array([1.0])) == 0.375
    box.observe(position(0.5), captured_s=0.35)
    assert box.clip(np.array([1.0])) == 0.5


def test_what_is_outside_may_stay_or_come_nearer_and_is_not_pushed() -> None:
    box = IntegratedWorkspace(ARM, {"x": (-1.0, 1.0)})
    box.begin(position(1.5))
    np.testing.assert_array_equal([box.clip(np.array([d]))[0] for d in (0.1, 0.0, -0.1)], [0.0, 0.0, -0.1])


def test_where_the_position_is_not_known_nothing_moves() -> None:
    assert IntegratedWorkspace(ARM, {"x": (-1.0, 1.0)}).clip(np.array([0.1])) == 0.0


@pytest.mark.parametrize(
    "features",
    [
        Features(None, ARM.action, control_type="delta"),
        Features(VectorFeature(("x",)), VectorFeature(("x",)), control_type="delta"),
        Features(VectorFeature(("x",), units=("mm",)), ARM.action, control_type="delta"),
    ],
)
def test_a_box_that_cannot_be_watched_is_refused(features) -> None:
    with pytest.raises(ContractError, match=r"limits\.workspace.x: expected a position of that name in the state"):
        IntegratedWorkspace(features, {"x": (-1.0, 1.0)})
