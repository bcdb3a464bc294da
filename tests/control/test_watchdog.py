"""Faults are told from their beginning to their end, and streams by their age."""

from __future__ import annotations

import pytest

from menura.control.watchdog import Fault, Watchdog, WatchdogSettings, attempt
from menura.errors import ContractError, DataError


def test_a_fault_begins_goes_on_and_ends() -> None:
    watchdog = Watchdog(WatchdogSettings(), start_s=10.0)
    for now_s, problem in ((10.5, None), (11.0, "no answer"), (11.5, "still none"), (12.0, None), (13.0, "again")):
        watchdog.tell("policy", problem, now_s)
    assert watchdog.faults == [Fault("policy", "no answer", 1.0, 2.0), Fault("policy", "again", 3.0, None)]
    assert str(watchdog.faults[0]) == "1.00 to 2.00 s: policy: no answer"
    assert watchdog.worst("nothing") == "policy: again"


def test_the_oldest_stream_is_named() -> None:
    watchdog = Watchdog(WatchdogSettings(max_observation_age_s=0.5), start_s=0.0)
    assert watchdog.stale({"state": 9.9, "top": 9.6}, 10.0) is None
    assert watchdog.stale({"state": 9.9, "top": 9.4}, 10.0) == (
        "top: expected it to be at most 0.5 s old, got 0.60 s. Look at its cable and rate."
    )


def test_patience_ends() -> None:
    watchdog = Watchdog(WatchdogSettings(patience_s=10.0, robot_patience_s=2.0), start_s=0.0)
    assert not watchdog.overdue(0.0, 10.0)
    assert watchdog.overdue(0.0, 10.1)
    watchdog.tell("robot", "unplugged", 10.0)
    assert not watchdog.overdue(9.0, 11.9)
    assert watchdog.overdue(9.0, 12.1)


def test_settings_that_cannot_be() -> None:
    with pytest.raises(ContractError, match="patience_s: expected seconds above 0, got 0"):
        WatchdogSettings(patience_s=0)


def test_what_others_raise_is_put_in_words() -> None:
    def refuse() -> None:
        raise DataError("disk:\n full")

    assert attempt(lambda: 3) == (3, None)
    assert attempt(refuse) == (None, "disk: full")
    assert attempt(lambda: 1 / 0) == (None, "ZeroDivisionError: division by zero")
