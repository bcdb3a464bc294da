"""A chunk is executed to a fixed part before the next one is begun. Torch-free."""

from __future__ import annotations

import math

from menura.chunks import ActionChunk
from menura.control.controllers.base import TOLERANCE_S, Command
from menura.control.controllers.newest import Newest
from menura.errors import ContractError
from menura.features import Features


class OldestFirst(Newest):
    """Executes the chunk under way until `fraction` of its time has passed, then the newest received, from its first.

    As with `Newest` the delay is not made up for; chunks are left alone for longer, so that the robot is pulled to and
    fro less. An inference is wanted when, after the longest of the last delays and one tick more, its answer is there
    at the switch; if it comes later, the rest of the chunk bridges the time.

    Args:
        fraction: of the chunk's time, above 0, up to 1 (all of it).
    """

    def __init__(self, fraction: float = 1.0) -> None:
        if not 0 < fraction <= 1:
            raise ContractError(f"OldestFirst: expected a fraction above 0, up to 1, got {fraction}.")
        self.fraction = fraction

    def begin(self, features: Features, control_period_s: float) -> None:
        super().begin(features, control_period_s)
        self._waiting: ActionChunk | None = None
        self._waiting_since_s = 0.0
        self._leave_s = -math.inf  # when the chunk under way may be left

    def _take(self, chunk: ActionChunk, now_s: float) -> bool:
        self._waiting, self._waiting_since_s = chunk, now_s
        return True

    def command(self, now_s: float) -> Command | None:
        if self._waiting is not None and now_s >= self._leave_s - TOLERANCE_S:
            self._start(self._waiting, now_s)
            self._leave_s = now_s + self._executed_s(self._waiting)
            self._waiting = None
        return super().command(now_s)

    def next_wanted_s(self, now_s: float) -> float:
        leave_s = self._leave_s
        if self._waiting is not None:  # what will be asked for takes over after that
            leave_s = max(leave_s, self._waiting_since_s) + self._executed_s(self._waiting)
        return max(now_s, leave_s - self.expected_delay_s - self.control_period_s)

    def _executed_s(self, chunk: ActionChunk) -> float:
        return self.fraction * len(chunk) * chunk.period_s
