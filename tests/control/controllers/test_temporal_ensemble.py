import math

import numpy as np
import pytest

from menura.control.controllers.temporal_ensemble import TemporalEnsemble
from menura.errors import ContractError
from menura.processing.rotations import average


def test_all_that_chunks_say_of_now_is_averaged_the_oldest_weighs_most(joints, chunk) -> None:
    controller = TemporalEnsemble(coefficient=math.log(2))
    controller.begin(joints, 0.1)
    controller.receive(chunk([1.0, 2.0, 3.0]), now_s=0.0)
    controller.receive(chunk([20.0, 30.0, 40.0], start_s=0.1, number=1), now_s=0.1)
    controller.receive(chunk([300.0], start_s=0.2, number=2), now_s=0.2)
    command = controller.command(0.2)
    # Weights 1, 1/2, 1/4 on 3, 30 and 300.
    assert command.action == pytest.approx((3 + 15 + 75) / 1.75)
    assert (command.number, command.captured_s, command.meant_s) == (2, 0.2, pytest.approx(0.2))
    assert controller.command(0.3).action == 40.0
    assert controller.command(0.4) is None


def test_chunks_may_come_late_and_out_of_order(joints, chunk) -> None:
    controller = TemporalEnsemble(coefficient=math.log(2))
    controller.begin(joints, 0.1)
    controller.receive(chunk([20.0, 30.0, 40.0], start_s=0.1, number=1), now_s=0.1)
    controller.receive(chunk([1.0, 2.0, 3.0], number=0), now_s=0.15)
    assert controller.command(0.2).action == pytest.approx((3 + 15) / 1.5)
    controller.receive(chunk([1.0], number=2), now_s=0.15)
    assert controller.refused == {"late": 1}


def test_rotations_are_averaged_as_rotations(pose, chunk) -> None:
    controller = TemporalEnsemble(coefficient=0.0)
    controller.begin(pose, 0.1)
    half = math.sqrt(0.5)
    controller.receive(chunk([[0.0, 1.0, 0.0, 0.0, 0.0, 0.0]]), now_s=0.0)
    controller.receive(chunk([[2.0, -half, -half, 0.0, 0.0, 1.0]], number=1), now_s=0.0)  # 90 degrees about x
    action = controller.command(0.0).action
    np.testing.assert_allclose(action[[0, 5]], [1.0, 0.5])
    np.testing.assert_allclose(action[1:5], [math.cos(math.pi / 8), math.sin(math.pi / 8), 0.0, 0.0], atol=1e-6)
    both = np.array([[1.0, 0.0, 0.0, 0.0], [half, half, 0.0, 0.0]])
    np.testing.assert_allclose(action[1:5], average(both, np.ones(2), "quat_wxyz"), atol=1e-6)


def test_it_wants_always_and_refuses_what_is_no_coefficient(joints) -> None:
    controller = TemporalEnsemble()
    controller.begin(joints, 0.1)
    assert controller.wants(7.0)
    with pytest.raises(ContractError, match="coefficient of at least 0, got -1"):
        TemporalEnsemble(-1.0)
