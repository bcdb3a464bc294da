import pytest

from menura.control.controllers.newest import Newest


def test_a_chunk_begins_when_it_arrives(joints, chunk) -> None:
    controller = Newest()
    controller.begin(joints, 0.05)
    assert controller.command(0.0) is None
    controller.receive(chunk([10.0, 11.0, 12.0]), now_s=0.25)
    said = [controller.command(now_s) for now_s in (0.25, 0.3, 0.35, 0.5, 0.55)]
    assert [None if command is None else command.action.item() for command in said] == [10.0, 10.0, 11.0, 12.0, None]
    # The second action was meant for 0.1 s after the observation: it is sent 0.25 s late.
    assert said[2].meant_s == pytest.approx(0.1)
    assert said[2].captured_s == 0.0
    assert not controller.continuous


def test_a_newer_one_takes_over_at_once_and_an_older_one_never(joints, chunk) -> None:
    controller = Newest()
    controller.begin(joints, 0.1)
    controller.receive(chunk([10.0, 11.0, 12.0]), now_s=0.0)
    controller.receive(chunk([20.0, 21.0], number=2), now_s=0.1)
    controller.receive(chunk([30.0, 31.0], number=1), now_s=0.2)
    command = controller.command(0.2)
    assert (command.action.item(), command.number) == (21.0, 2)
    assert controller.command(0.3) is None  # a shorter chunk; what is left of the first one is not gone back to


def test_an_inference_is_always_wanted(joints, chunk) -> None:
    controller = Newest()
    controller.begin(joints, 0.1)
    assert controller.wants(3.0)
    controller.receive(chunk([10.0] * 50, start_s=3.0), now_s=3.1)
    assert controller.next_wanted_s(3.1) == 3.1
    assert controller.previous(3.1) is None
