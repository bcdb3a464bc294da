import pytest

from menura.control.controllers.oldest_first import OldestFirst
from menura.errors import ContractError


def numbers(controller, times):
    said = [controller.command(now_s) for now_s in times]
    return [None if command is None else command.action.item() for command in said]


def test_a_chunk_is_left_when_its_part_is_executed(joints, chunk) -> None:
    controller = OldestFirst(fraction=0.5)
    controller.begin(joints, 0.1)
    controller.receive(chunk([10.0, 11.0, 12.0, 13.0]), now_s=0.1)  # executed from 0.1 to 0.5, left at 0.3
    assert numbers(controller, [0.1]) == [10.0]
    controller.receive(chunk([20.0, 21.0], start_s=0.1, number=1), now_s=0.15)
    controller.receive(chunk([30.0, 31.0], start_s=0.15, number=2), now_s=0.2)
    assert numbers(controller, [0.2, 0.3, 0.4, 0.5]) == [11.0, 30.0, 31.0, None]


def test_without_a_next_one_all_of_it_is_executed(joints, chunk) -> None:
    controller = OldestFirst(fraction=0.25)
    controller.begin(joints, 0.1)
    controller.receive(chunk([10.0, 11.0, 12.0, 13.0]), now_s=0.0)
    assert numbers(controller, [0.0, 0.1, 0.2, 0.3, 0.4]) == [10.0, 11.0, 12.0, 13.0, None]
    controller.receive(chunk([20.0], start_s=0.0, number=1), now_s=0.45)
    assert numbers(controller, [0.5]) == [20.0]


def test_an_inference_is_wanted_when_its_answer_comes_in_time(joints, chunk) -> None:
    controller = OldestFirst(fraction=0.5)
    controller.begin(joints, 0.05)
    assert controller.wants(0.0)
    controller.receive(chunk(range(10)), now_s=0.2)
    controller.command(0.2)  # begun: left at 0.7; the delay was 0.2, the tick is 0.05
    assert controller.next_wanted_s(0.2) == pytest.approx(0.45)
    assert not controller.wants(0.4)
    assert controller.wants(0.45)
    controller.receive(chunk(range(8), start_s=0.45, number=1), now_s=0.6)
    # That one is begun at 0.7 and left at 1.1.
    assert controller.next_wanted_s(0.6) == pytest.approx(0.85)
    controller.command(0.7)
    assert controller.next_wanted_s(0.7) == pytest.approx(0.85)


@pytest.mark.parametrize("fraction", [0.0, 1.5, float("nan")])
def test_a_fraction_that_is_none(fraction) -> None:
    with pytest.raises(ContractError, match="fraction above 0, up to 1"):
        OldestFirst(fraction)
