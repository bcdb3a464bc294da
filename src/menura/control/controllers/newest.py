"""The newest chunk, begun when it arrives. Torch-free."""

from __future__ import annotations

from menura.chunks import ActionChunk
from menura.control.controllers.base import Command, Controller
from menura.features import Features


class Newest(Controller):
    """The newest chunk from its first action on, as if it were meant for the moment at which it arrived.

    The delay is not made up for: every action is sent as late as its chunk arrived. It is what most loops do, and here
    to be compared with; where inference takes no time, nothing is simpler. An inference is wanted always.
    """

    def begin(self, features: Features, control_period_s: float) -> None:
        super().begin(features, control_period_s)
        self._plan: ActionChunk | None = None
        self._began_s = 0.0

    def _take(self, chunk: ActionChunk, now_s: float) -> bool:
        self._start(chunk, now_s)
        return True

    def _start(self, chunk: ActionChunk, now_s: float) -> None:
        self._plan, self._began_s = chunk, now_s

    def command(self, now_s: float) -> Command | None:
        if self._plan is None:
            return None
        # The chunk's own time at which it would be as far as it is now.
        index = self._index(self._plan, self._plan.start_s + now_s - self._began_s)
        return None if index is None else self._command(self._plan, index)

    def next_wanted_s(self, now_s: float) -> float:
        return now_s
