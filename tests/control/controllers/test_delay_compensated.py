import pytest

from menura.control.controllers.delay_compensated import DelayCompensated
from menura.errors import ContractError


def test_each_action_comes_at_its_time_and_what_is_past_never(joints, chunk) -> None:
    controller = DelayCompensated()
    controller.begin(joints, 0.05)
    assert controller.command(0.0) is None
    controller.receive(chunk([10.0, 11.0, 12.0, 13.0]), now_s=0.22)
    said = [controller.command(now_s) for now_s in (0.22, 0.25, 0.3, 0.39, 0.4)]
    assert [None if command is None else command.action.item() for command in said] == [12.0, 12.0, 13.0, 13.0, None]
    assert said[2].meant_s == pytest.approx(0.3)
    assert said[2].captured_s == 0.0


def test_a_newer_chunk_takes_over_a_shorter_one_too(joints, chunk) -> None:
    controller = DelayCompensated()
    controller.begin(joints, 0.1)
    controller.receive(chunk([10.0, 11.0, 12.0, 13.0, 14.0]), now_s=0.0)
    controller.receive(chunk([21.0, 22.0], start_s=0.1, number=1), now_s=0.2)
    assert controller.command(0.2).action == 22.0
    assert controller.command(0.3) is None


def test_a_chunk_that_is_all_past_leaves_the_one_under_way(joints, chunk) -> None:
    controller = DelayCompensated()
    controller.begin(joints, 0.1)
    controller.receive(chunk([10.0, 11.0, 12.0, 13.0, 14.0]), now_s=0.0)
    controller.receive(chunk([21.0], start_s=0.1, number=1), now_s=0.25)
    assert controller.command(0.3).action == 13.0


def test_an_inference_is_wanted_as_late_as_may_be(joints, chunk) -> None:
    controller = DelayCompensated()
    controller.begin(joints, 0.05)
    assert controller.next_wanted_s(0.3) == 0.3
    controller.receive(chunk([0.0] * 10), now_s=0.2)
    assert controller.next_wanted_s(0.2) == pytest.approx(1.0 - 0.2 - 0.05)
    assert not controller.wants(0.74)
    assert controller.wants(0.75)
    assert controller.next_wanted_s(2.0) == 2.0


def test_less_of_a_chunk_is_executed_when_the_next_one_comes_in_time(joints, chunk) -> None:
    controller = DelayCompensated(n_action_steps=4)
    controller.begin(joints, 0.05)
    controller.receive(chunk(range(10)), now_s=0.2)
    assert controller.next_wanted_s(0.0) == pytest.approx(0.4 - 0.2 - 0.05)
    assert controller.command(0.9).action == 9.0  # it does not: the rest bridges the time
    with pytest.raises(ContractError, match="n_action_steps of at least 1, got 0"):
        DelayCompensated(n_action_steps=0)
