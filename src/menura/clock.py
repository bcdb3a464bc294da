"""The time that loops live by: seconds of one clock that never goes back, real or virtual. Torch-free."""

from __future__ import annotations

import time
from typing import Protocol

#: The system wakes a sleeper up to this much late (s); the last of a wait is spent looking at the clock.
_SPIN_S = 0.0005


class Clock(Protocol):
    """What a loop asks for the time. Its zero means nothing: only differences do."""

    def now(self) -> float:
        """Seconds."""
        ...

    def sleep_until(self, time_s: float) -> None:
        """Returns at `time_s`, at once when that has passed."""
        ...


class WallClock:
    """Real time, of `time.monotonic`: neither an administrator nor daylight saving sets it."""

    def now(self) -> float:
        return time.monotonic()

    def sleep_until(self, time_s: float) -> None:
        if (rest := time_s - time.monotonic() - _SPIN_S) > 0:
            time.sleep(rest)
        while time.monotonic() < time_s:
            pass


class VirtualClock:
    """Time that passes only when it is told to: `sleep_until` is there at once."""

    def __init__(self, start_s: float = 0.0) -> None:
        self._now_s = start_s

    def now(self) -> float:
        return self._now_s

    def sleep_until(self, time_s: float) -> None:
        self._now_s = max(self._now_s, time_s)

    def advance(self, seconds: float) -> None:
        self._now_s += seconds
