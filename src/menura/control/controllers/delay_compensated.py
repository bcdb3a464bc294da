"""Each action at the time it is meant for. Torch-free."""

from __future__ import annotations

from menura.chunks import ActionChunk
from menura.control.controllers.base import Command, Controller
from menura.errors import ContractError
from menura.features import Features


class DelayCompensated(Controller):
    """The newest chunk's action that is meant for now; those that are past when the chunk arrives are never sent.

    An inference is wanted as late as may be: so that, after the longest of the last delays and one tick more, its
    answer is there when the chunk under way has nothing left to execute. If it comes later still, the rest of the chunk
    bridges the time; after that nothing is meant for now.

    Args:
        n_action_steps: how many actions of a chunk are to be executed, counted from its observation. None: all; by
            name, as many as the policy is made for (`make_controller`).
    """

    def __init__(self, n_action_steps: int | None = None) -> None:
        if n_action_steps is not None and n_action_steps < 1:
            raise ContractError(f"{type(self).__name__}: expected n_action_steps of at least 1, got {n_action_steps}.")
        self.n_action_steps = n_action_steps

    def begin(self, features: Features, control_period_s: float) -> None:
        super().begin(features, control_period_s)
        self._plan: ActionChunk | None = None

    def _take(self, chunk: ActionChunk, now_s: float) -> bool:
        if chunk.end_s <= now_s:
            return False
        self._plan = chunk
        return True

    def command(self, now_s: float) -> Command | None:
        if self._plan is None or (index := self._index(self._plan, now_s)) is None:
            return None
        return self._command(self._plan, index)

    def next_wanted_s(self, now_s: float) -> float:
        if self._plan is None:
            return now_s
        length = min(len(self._plan), self.n_action_steps or len(self._plan))
        executed_s = self._plan.start_s + length * self._plan.period_s
        return max(now_s, executed_s - self.expected_delay_s - self.control_period_s)
