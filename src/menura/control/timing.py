"""When the ticks of a loop are due, and how well time was kept. Torch-free."""

from __future__ import annotations

import math
from array import array
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from menura.clock import Clock

#: In periods: far above the rounding of times.
_TOLERANCE = 1e-6


@dataclass(frozen=True)
class Spread:
    """How measured numbers are spread, in their unit; all 0 where there are none."""

    count: int
    p50: float
    p90: float
    p99: float
    max: float

    def __str__(self) -> str:
        return f"p50 {self.p50:.1f}, p99 {self.p99:.1f}, max {self.max:.1f}"


class Samples:
    """Measured numbers; 8 bytes each, so that an hour of ticks is no burden."""

    def __init__(self) -> None:
        self._values = array("d")

    def add(self, value: float) -> None:
        self._values.append(value)

    def __len__(self) -> int:
        return len(self._values)

    def spread(self) -> Spread:
        if not self._values:
            return Spread(0, 0.0, 0.0, 0.0, 0.0)
        values = np.frombuffer(self._values[:], np.float64)  # a copy: others may go on adding
        p50, p90, p99 = np.percentile(values, (50, 90, 99))
        return Spread(len(values), float(p50), float(p90), float(p99), float(values.max()))


@dataclass(frozen=True)
class Tick:
    """One turn of a loop: when it was due, which is the time that commands are reckoned for, and when it began."""

    due_s: float
    now_s: float


class Ticks:
    """Waits for absolute deadlines, one a period, so that no error adds up.

    A deadline that has passed by a whole period is skipped and counted, and never caught up: two commands at once would
    be a jump.

    Args:
        clock: whose time it is.
        period_s: from one deadline to the next; the first one is now.

    Attributes:
        count: ticks so far.
        missed: deadlines that passed without a tick.
        overruns: ticks whose work was not done when the next one was due.
        jitter_ms: how late each tick began.
        work_ms: how long each tick's work took.
    """

    def __init__(self, clock: Clock, period_s: float) -> None:
        self.period_s = period_s
        self.count = self.missed = self.overruns = 0
        self.jitter_ms, self.work_ms = Samples(), Samples()
        self._clock = clock
        self._start_s = clock.now()
        self._next = 0  # number of the deadline
        self._began_s: float | None = None

    def wait(self) -> Tick:
        """Returns when the next tick is due."""
        if self._began_s is not None:
            self._finish(self._clock.now(), self._began_s)
        due_s = self._deadline(self._next)
        self._clock.sleep_until(due_s)
        now_s = self._clock.now()
        self.jitter_ms.add(1e3 * max(now_s - due_s, 0.0))
        self.count += 1
        self._next += 1
        self._began_s = now_s
        return Tick(due_s, now_s)

    def _finish(self, now_s: float, began_s: float) -> None:
        """The work of a tick is done: how long did it take, and which deadlines went by?"""
        self.work_ms.add(1e3 * (now_s - began_s))
        self.overruns += now_s > self._deadline(self._next)
        passed = math.floor((now_s - self._start_s) / self.period_s + _TOLERANCE)
        if passed > self._next:
            self.missed += passed - self._next
            self._next = passed

    def _deadline(self, number: int) -> float:
        return self._start_s + number * self.period_s


@dataclass
class Tally:
    """What is counted while an episode runs."""

    observation_age_ms: Samples = field(default_factory=Samples)
    inference_ms: Samples = field(default_factory=Samples)
    delay_ms: Samples = field(default_factory=Samples)
    stale: int = 0
    holds: Counter[str] = field(default_factory=Counter)
    clipped: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    interventions: int = 0


@dataclass(frozen=True)
class Timing:
    """How an episode kept time: `timing.json`, and a fact of the recorded episode.

    Attributes:
        control_hz: what was asked for.
        seconds: the episode took, from the first tick to the last.
        ticks, missed, overruns, jitter_ms, work_ms: as of `Ticks`.
        observations: how many the robot gave; `observation_errors`: attempts that failed.
        observation_age_ms: of the oldest stream, at each tick.
        stale: ticks at which it was too old to go on.
        inferences: chunks that arrived; `inference_errors`: requests without one.
        refused: reason -> chunks that the controller could not use, as of `Controller`.
        reconnects: how often the connection to the policy's server was made anew.
        inference_ms: how long the policy took.
        delay_ms: from the capture of an observation to the tick that has its chunk.
        holds: reason -> ticks at which the robot held.
        clipped: reason -> ticks at which safety changed the action.
        interventions: ticks that a teleoperator drove.
    """

    control_hz: float
    seconds: float
    ticks: int
    missed: int
    overruns: int
    jitter_ms: Spread
    work_ms: Spread
    observations: int
    observation_errors: int
    observation_age_ms: Spread
    stale: int
    inferences: int
    inference_errors: int
    refused: Mapping[str, int]
    reconnects: int
    inference_ms: Spread
    delay_ms: Spread
    holds: Mapping[str, int]
    clipped: Mapping[str, int]
    interventions: int

    @classmethod
    def of(
        cls,
        ticks: Ticks,
        tally: Tally,
        *,
        seconds: float,
        observations: int,
        observation_errors: int,
        inference_errors: int,
        reconnects: int,
    ) -> Timing:
        return cls(
            control_hz=1.0 / ticks.period_s,
            seconds=seconds,
            ticks=ticks.count,
            missed=ticks.missed,
            overruns=ticks.overruns,
            jitter_ms=ticks.jitter_ms.spread(),
            work_ms=ticks.work_ms.spread(),
            observations=observations,
            observation_errors=observation_errors,
            observation_age_ms=tally.observation_age_ms.spread(),
            stale=tally.stale,
            inferences=len(tally.inference_ms),
            inference_errors=inference_errors,
            refused=dict(tally.refused),
            reconnects=reconnects,
            inference_ms=tally.inference_ms.spread(),
            delay_ms=tally.delay_ms.spread(),
            holds=dict(tally.holds),
            clipped=dict(tally.clipped),
            interventions=tally.interventions,
        )

    def to_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return asdict(self)
