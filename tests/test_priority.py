"""Threads that go before other programs, where the system permits it; and nothing that stays so behind them."""

from __future__ import annotations

import contextlib
import gc
import os
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from menura.priority import ANSWERING, CONTROLLING, first_in_line, go_first, real_time

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="priorities are those of Linux")


def priority(thread: int = 0) -> int:
    """0 of an ordinary thread."""
    return os.sched_getparam(thread).sched_priority


@contextlib.contextmanager
def as_system_says(monkeypatch: pytest.MonkeyPatch, allowed: Callable[[int], bool]) -> Iterator[None]:
    set_really = os.sched_setscheduler

    def set_scheduler(thread: int, policy: int, parameter: os.sched_param) -> None:
        if not allowed(policy):
            raise PermissionError
        set_really(thread, policy, parameter)

    with monkeypatch.context() as patched:
        patched.setattr(os, "sched_setscheduler", set_scheduler)
        yield


@pytest.mark.usefixtures("first_permitted")
def test_the_loop_of_a_robot_goes_before_what_answers_it() -> None:
    with first_in_line(ANSWERING):
        assert priority() == ANSWERING > 0
        with real_time():
            assert priority() == CONTROLLING > ANSWERING
        assert priority() == ANSWERING
    assert priority() == 0


def test_within_threads_hand_over_sooner_and_what_was_there_is_not_collected() -> None:
    interval, frozen = sys.getswitchinterval(), gc.get_freeze_count()
    with real_time():
        assert sys.getswitchinterval() == pytest.approx(0.0005)
        assert gc.get_freeze_count() > frozen
    assert (sys.getswitchinterval(), gc.get_freeze_count()) == (interval, 0)


@pytest.mark.usefixtures("first_permitted")
def test_what_a_thread_starts_is_ordinary() -> None:
    with first_in_line(ANSWERING), ThreadPoolExecutor(1) as other:
        assert other.submit(priority).result() == 0


def test_where_it_is_not_permitted_nothing_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    with as_system_says(monkeypatch, lambda policy: False):
        assert not go_first(ANSWERING)
        with first_in_line(ANSWERING):
            assert priority() == 0


@pytest.mark.usefixtures("first_permitted")
def test_an_rtprio_limit_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    """With it alone the mark that keeps children ordinary cannot be taken away again: sched(7)."""
    with as_system_says(monkeypatch, lambda policy: bool(policy & os.SCHED_RESET_ON_FORK)):
        with first_in_line(ANSWERING):
            assert priority() == ANSWERING
        assert priority() == 0
