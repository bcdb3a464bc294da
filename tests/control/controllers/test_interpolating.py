import math

import numpy as np
import pytest

from menura.control.controllers.interpolating import Interpolating
from menura.errors import ContractError
from menura.features import Features, Rotation, VectorFeature


def commanded(controller, *times):
    return [controller.command(now_s).action.item() for now_s in times]


def test_between_two_actions_it_goes_straight(joints, chunk) -> None:
    controller = Interpolating()
    controller.begin(joints, 0.01)
    controller.receive(chunk([10.0, 20.0, 0.0]), now_s=0.03)
    # No gap fades at first; the last action is held for its period.
    assert commanded(controller, 0.03, 0.1, 0.15, 0.2, 0.25) == pytest.approx([13.0, 20.0, 10.0, 0.0, 0.0], abs=1e-5)
    assert controller.command(0.05).meant_s == 0.05
    assert controller.command(0.3) is None


def test_a_gap_between_chunks_fades(joints, chunk) -> None:
    controller = Interpolating(blend_s=0.2)
    controller.begin(joints, 0.01)
    controller.receive(chunk([0.0] * 10), now_s=0.0)
    controller.receive(chunk([1.0] * 10, number=1), now_s=0.1)
    assert commanded(controller, 0.1, 0.15, 0.2, 0.3, 0.4) == pytest.approx([0.0, 0.25, 0.5, 1.0, 1.0])
    controller.receive(chunk([3.0] * 10, number=2), now_s=0.4)
    assert commanded(controller, 0.4, 0.5) == pytest.approx([1.0, 2.0])
    controller.receive(chunk([0.0] * 10, number=3), now_s=0.5)  # in the midst of it
    assert commanded(controller, 0.5, 0.6, 0.7) == pytest.approx([2.0, 1.0, 0.0])


def test_after_the_plan_ran_out_the_next_begins_where_it_ended(joints, chunk) -> None:
    controller = Interpolating(blend_s=0.1)
    controller.begin(joints, 0.01)
    controller.receive(chunk([0.0, 1.0]), now_s=0.0)
    assert controller.command(0.2) is None
    controller.receive(chunk([5.0] * 10, number=1), now_s=0.5)
    assert commanded(controller, 0.5, 0.55, 0.6) == pytest.approx([1.0, 3.0, 5.0])


def test_the_cubic_is_smooth_and_stays_between_its_neighbours(joints, chunk) -> None:
    controller = Interpolating(kind="cubic")
    controller.begin(joints, 0.001)
    controller.receive(chunk([0.0, 1.0, 4.0, 4.0, 2.0]), now_s=0.0)
    # Slopes per period 1, 2 * 1 * 3 / 4 = 1.5 at the first two: at the middle 1/2 + (1 - 1.5) / 8.
    assert commanded(controller, 0.0, 0.05, 0.1, 0.2) == pytest.approx([0.0, 0.4375, 1.0, 4.0])
    times = np.arange(0.0, 0.4, 0.001)
    path = np.array(commanded(controller, *times))
    assert path.min() >= -1e-6
    assert path.max() <= 4.0 + 1e-6
    assert np.abs(np.diff(path, 2)).max() < 2e-3  # no kink: a linear one of 0.03 is at 0.2 s


def test_rotations_turn_on_the_shortest_way_grippers_as_is_said(pose, chunk) -> None:
    half = math.sqrt(0.5)
    rows = [[0.0, 1.0, 0.0, 0.0, 0.0, 0.0], [1.0, -half, -half, 0.0, 0.0, 1.0]]  # 90 degrees about x
    controller = Interpolating()
    controller.begin(pose, 0.01)
    controller.receive(chunk(rows), now_s=0.0)
    action = controller.command(0.1 / 3).action
    np.testing.assert_allclose(action, [1 / 3, math.cos(math.pi / 12), math.sin(math.pi / 12), 0, 0, 1 / 3], atol=1e-6)
    stepping = Interpolating(grippers="step")
    stepping.begin(pose, 0.01)
    stepping.receive(chunk(rows), now_s=0.0)
    assert [stepping.command(now_s).action[5] for now_s in (0.05, 0.0999, 0.1)] == [0.0, 0.0, 1.0]
    stepping.receive(chunk([[0.0, 0.0, 1.0, 0.0, 0.0, 0.0]] * 5, number=1), now_s=0.1)
    action = stepping.command(0.15).action  # from 90 to 180 degrees, half of the gap left
    np.testing.assert_allclose(action, [0.5, math.cos(math.pi * 3 / 8), math.sin(math.pi * 3 / 8), 0, 0, 0], atol=1e-6)


def test_differences_are_divided_and_add_up(chunk) -> None:
    names = ("dx", "rx", "ry", "rz", "gripper")
    action = VectorFeature(names, rotations=(Rotation(names[1:4], "axis_angle"),), grippers={"gripper": (0.0, 1.0)})
    controller = Interpolating()
    controller.begin(Features(None, action, fps=10.0, control_type="delta"), 0.025)
    controller.receive(chunk([[0.4, 0.0, 0.8, 0.0, 1.0], [0.8, 0.0, 0.0, 0.0, 0.0]]), now_s=0.0)
    said = np.array([controller.command(tick * 0.025).action for tick in range(8)])
    np.testing.assert_allclose(said[0], [0.1, 0.0, 0.2, 0.0, 1.0], atol=1e-6)
    np.testing.assert_allclose(said.sum(axis=0), [1.2, 0.0, 0.8, 0.0, 4.0], atol=1e-6)
    with pytest.raises(ContractError, match="at the policy's rate, 10 Hz, got a control rate of 5 Hz"):
        controller.begin(Features(None, action, fps=10.0, control_type="delta"), 0.2)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kind": "quintic"}, "expected kind to be one of .*, got 'quintic'"),
        ({"grippers": "jump"}, "expected grippers to be one of .*, got 'jump'"),
        ({"blend_s": 0.0}, "expected blend_s above 0, got 0.0"),
    ],
)
def test_settings_that_cannot_be(settings, message) -> None:
    with pytest.raises(ContractError, match=message):
        Interpolating(**settings)
