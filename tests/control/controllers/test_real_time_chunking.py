import numpy as np
import pytest

from menura.control.controllers.real_time_chunking import RealTimeChunking
from menura.errors import ContractError
from menura.features import Features, VectorFeature


def test_it_asks_early(joints, chunk) -> None:
    controller = RealTimeChunking(execution_horizon=4)
    controller.begin(joints, 0.02)
    assert controller.wants(1.0)
    controller.receive(chunk(range(20), start_s=1.0), now_s=1.15)
    assert controller.next_wanted_s(1.15) == pytest.approx(1.4)
    assert not controller.wants(1.39)
    assert controller.wants(1.4)
    half = RealTimeChunking()
    half.begin(joints, 0.02)
    half.receive(chunk(range(9)), now_s=0.1)
    assert half.next_wanted_s(0.1) == pytest.approx(0.5)
    half.receive(chunk(range(9), number=1), now_s=0.7)  # a delay for which that is too late: what is left, and a tick
    assert half.next_wanted_s(0.1) == pytest.approx(0.9 - 0.7 - 0.02)


def test_it_hands_over_what_is_left_of_the_plan_and_freezes_what_will_be_executed(joints, chunk) -> None:
    controller = RealTimeChunking()
    controller.begin(joints, 0.05)
    assert controller.previous(0.0) is None
    controller.receive(chunk(range(10)), now_s=0.25)
    previous = controller.previous(0.4)
    np.testing.assert_allclose(previous.actions[:, 0], [4, 5, 6, 7, 8, 9], atol=1e-5)
    assert previous.actions.dtype == np.float32
    assert previous.delay == 3  # 0.25 s are two periods and a half
    assert controller.previous(0.4, delay_s=0.1).delay == 1
    assert controller.previous(0.4, delay_s=5.0).delay == 6
    # An observation between two actions: the plan at the times of the new chunk's.
    np.testing.assert_allclose(controller.previous(0.73).actions[:, 0], [7.3, 8.3], atol=1e-5)
    assert controller.previous(0.95) is None


def test_a_chunk_that_agrees_takes_over_unnoticed_at_the_right_action(joints, chunk) -> None:
    controller = RealTimeChunking(execution_horizon=3)
    controller.begin(joints, 0.1)
    controller.receive(chunk(range(10)), now_s=0.2)
    before = [controller.command(now_s).action.item() for now_s in (0.2, 0.3, 0.4, 0.5)]
    frozen = controller.previous(0.3).actions[:2, 0]
    controller.receive(chunk([*frozen, 5.0, 5.5, 5.0, 5.0], start_s=0.3, number=1), now_s=0.5)
    after = [controller.command(now_s).action.item() for now_s in (0.5, 0.6, 0.7)]
    np.testing.assert_allclose(before, [2, 3, 4, 5], atol=1e-5)
    np.testing.assert_allclose(after, [5.0, 5.5, 5.0], atol=1e-5)


def test_a_gap_that_is_left_fades_and_is_part_of_the_plan(joints, chunk) -> None:
    controller = RealTimeChunking(blend_s=0.4)
    controller.begin(joints, 0.1)
    controller.receive(chunk([0.0] * 10), now_s=0.0)
    controller.receive(chunk([4.0] * 10, start_s=0.1, number=1), now_s=0.2)
    np.testing.assert_allclose(controller.previous(0.3).actions[:4, 0], [1.0, 2.0, 3.0, 4.0], atol=1e-5)


def test_of_differences_it_hands_over_the_policys_own(chunk) -> None:
    controller = RealTimeChunking()
    controller.begin(Features(None, VectorFeature(("dx",)), fps=10.0, control_type="delta"), 0.05)
    controller.receive(chunk(range(10)), now_s=0.1)
    np.testing.assert_allclose(controller.previous(0.42).actions[:, 0], [4, 5, 6, 7, 8, 9])
    assert controller.command(0.42).action == pytest.approx(2.0)


def test_a_horizon_that_is_none() -> None:
    with pytest.raises(ContractError, match="execution_horizon of at least 1, got 0"):
        RealTimeChunking(execution_horizon=0)
