"""What all controllers have in common, tried with the simplest."""

import numpy as np
import pytest

from menura.chunks import ActionChunk
from menura.control.controllers.delay_compensated import DelayCompensated
from menura.control.controllers.newest import Newest
from menura.errors import ContractError
from menura.features import Features, VectorFeature


def test_delays_are_measured_and_the_longest_of_the_last_ten_is_expected(joints, chunk) -> None:
    controller = Newest()
    controller.begin(joints, 0.1)
    assert controller.expected_delay_s == 0.0
    controller.receive(chunk([1.0], start_s=0.0), now_s=0.7)
    assert controller.expected_delay_s == pytest.approx(0.7)
    for number in range(1, 10):
        controller.receive(chunk([1.0], start_s=number, number=number), now_s=number + 0.2)
    assert controller.expected_delay_s == pytest.approx(0.7)
    controller.receive(chunk([1.0], start_s=10.0, number=10), now_s=10.2)
    assert controller.expected_delay_s == pytest.approx(0.2)
    controller.begin(joints, 0.1)
    assert controller.expected_delay_s == 0.0
    assert controller.command(10.2) is None


def test_chunks_that_are_of_no_use_are_counted(joints, pose, chunk) -> None:
    controller = DelayCompensated()
    controller.begin(joints, 0.1)
    controller.receive(ActionChunk(np.empty((0, 1), np.float32), 0.0, 0.1), now_s=0.0)
    controller.receive(chunk([np.nan, 1.0]), now_s=0.0)
    controller.receive(chunk([1.0, 2.0], number=1), now_s=0.3)
    assert controller.command(0.0) is None
    controller.receive(chunk([3.0, 4.0], number=2), now_s=0.1)
    controller.receive(chunk([5.0, 6.0], number=1), now_s=0.1)
    assert controller.command(0.1).action == 4.0
    assert controller.refused == {"empty": 1, "not_finite": 1, "late": 1, "superseded": 1}
    controller.begin(pose, 0.1)
    controller.receive(chunk([[0, 1, 0, 0, 0, 1], [0, 0, 0, 0, 0, 1]]), now_s=0.0)
    assert controller.refused == {"no_rotation": 1}


def test_a_chunk_is_executed_up_to_its_first_action_that_is_none(joints, chunk) -> None:
    controller = DelayCompensated()
    controller.begin(joints, 0.1)
    controller.receive(chunk([1.0, 2.0, np.inf, 4.0]), now_s=0.0)
    assert controller.command(0.1).action == 2.0
    assert controller.command(0.2) is None
    assert controller.command(0.3) is None


def test_actions_of_another_width_are_refused(joints, chunk) -> None:
    controller = Newest()
    controller.begin(joints, 0.1)
    with pytest.raises(ContractError, match="expected chunks of 1 numbers an action, got 2"):
        controller.receive(chunk([[1.0, 2.0]]), now_s=0.0)
    with pytest.raises(ContractError, match="control period above 0 s, got 0"):
        controller.begin(joints, 0)


def test_differences_are_sent_at_the_rate_they_were_made_for(chunk) -> None:
    controller = Newest()
    steps = Features(None, VectorFeature(("dx",)), control_type="delta")
    controller.begin(steps, 0.02)  # whose rate is not known before the first chunk is there
    with pytest.raises(ContractError, match="at the policy's rate, 10 Hz, got a control rate of 50 Hz"):
        controller.receive(chunk([1.0]), now_s=0.0)
    with pytest.raises(ContractError, match="interpolating"):
        controller.begin(Features(None, VectorFeature(("dx",)), fps=10.0, control_type="delta"), 0.02)
    controller.begin(steps, 0.1)
    controller.receive(chunk([1.0]), now_s=0.0)
