"""Deadlines are absolute, what is missed is counted, and nothing is caught up."""

from __future__ import annotations

import json
import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from menura.clock import VirtualClock
from menura.control.timing import Samples, Spread, Tally, Ticks, Timing


@given(st.lists(st.floats(0.0, 0.019), min_size=1, max_size=50))
def test_ticks_do_not_drift(work_s: list[float]) -> None:
    clock = VirtualClock(3.0)
    ticks = Ticks(clock, 0.02)
    for number, seconds in enumerate(work_s):
        tick = ticks.wait()
        assert tick.due_s == pytest.approx(3.0 + number * 0.02)
        assert tick.now_s == pytest.approx(tick.due_s)
        clock.advance(seconds)
    assert (ticks.count, ticks.missed, ticks.overruns) == (len(work_s), 0, 0)


@given(st.lists(st.floats(0.0, 0.3), min_size=1, max_size=50))
def test_every_deadline_is_a_tick_or_missed(work_s: list[float]) -> None:
    clock = VirtualClock()
    ticks = Ticks(clock, 0.02)
    for seconds in work_s:
        tick = ticks.wait()
        assert 0 <= tick.now_s - tick.due_s < 0.02 + 1e-6  # never a command for a time that is long past
        clock.advance(seconds)
    assert ticks.count + ticks.missed == round(tick.due_s / 0.02) + 1


def test_work_that_takes_too_long() -> None:
    clock = VirtualClock()
    ticks = Ticks(clock, 0.02)
    ticks.wait()
    clock.advance(0.05)  # past the deadlines at 0.02 and 0.04
    tick = ticks.wait()
    assert (tick.due_s, tick.now_s) == (pytest.approx(0.04), pytest.approx(0.05))
    assert (ticks.missed, ticks.overruns) == (1, 1)
    assert ticks.jitter_ms.spread().max == pytest.approx(10.0)
    assert ticks.work_ms.spread().max == pytest.approx(50.0)
    assert ticks.wait().due_s == pytest.approx(0.06)  # on time again


def test_samples() -> None:
    samples = Samples()
    assert samples.spread() == Spread(0, 0.0, 0.0, 0.0, 0.0)
    for value in range(101):
        samples.add(value)
    assert samples.spread() == Spread(101, 50.0, 90.0, 99.0, 100.0)
    assert len(samples) == 101


def test_samples_are_looked_at_while_more_come() -> None:
    samples = Samples()
    ends = threading.Event()

    def look() -> None:
        while not ends.is_set():
            samples.spread()

    looker = threading.Thread(target=look)
    looker.start()
    for value in np.random.default_rng(0).random(20_000):
        samples.add(float(value))
    ends.set()
    looker.join()
    assert len(samples) == 20_000


def test_timing_can_be_written() -> None:
    clock = VirtualClock()
    ticks, tally = Ticks(clock, 0.02), Tally()
    ticks.wait()
    tally.holds["paused"] += 2
    timing = Timing.of(
        ticks, tally, seconds=0.02, observations=3, observation_errors=1, inference_errors=0, reconnects=0
    )
    read = json.loads(json.dumps(timing.to_dict()))
    assert (read["control_hz"], read["ticks"], read["observations"], read["holds"]) == (50.0, 1, 3, {"paused": 2})
    assert read["jitter_ms"]["count"] == 1
