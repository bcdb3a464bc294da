"""The next chunk is made while this one is executed, and agrees with it. Torch-free."""

from __future__ import annotations

import math
from typing import Literal

from menura.chunks import PreviousChunk
from menura.control.controllers.interpolating import Interpolating
from menura.errors import ContractError

_TOLERANCE = 1e-6  # in periods


class RealTimeChunking(Interpolating):
    """Real-time chunking (Black et al. 2025, arXiv 2506.07339, algorithm 1), in continuous time.

    An inference begins while much of the chunk under way is still to come, and is told that rest: what will have been
    executed before the answer is there is frozen, what overlaps after that pulls less and less (`PreviousChunk`). The
    delay it counts on is the longest of the last few, as the paper's buffer has it. The answer takes over at the action
    that is due when it arrives, interpolated as `Interpolating` has it; what gap is left, because an answer came later
    than expected or a policy does not heed what it is told, fades within `blend_s`.

    An inference is wanted `execution_horizon` actions after the observation of the chunk under way, or earlier where
    its last action would be due before the answer is there.

    Args:
        execution_horizon: how many actions are executed before the next inference begins (the paper's s_min), at least
            1. None: half of the chunk.
        kind, blend_s, grippers: as of `Interpolating`.
    """

    def __init__(
        self,
        execution_horizon: int | None = None,
        kind: Literal["linear", "cubic"] = "linear",
        blend_s: float = 0.1,
        grippers: Literal["linear", "step"] = "linear",
    ) -> None:
        super().__init__(kind, blend_s, grippers)
        if execution_horizon is not None and execution_horizon < 1:
            raise ContractError(
                f"RealTimeChunking: expected an execution_horizon of at least 1, got {execution_horizon}."
            )
        self.execution_horizon = execution_horizon

    def next_wanted_s(self, now_s: float) -> float:
        if self._plan is None:
            return now_s
        horizon = self.execution_horizon or math.ceil(len(self._plan) / 2)
        return max(now_s, min(self._plan.start_s + horizon * self._plan.period_s, super().next_wanted_s(now_s)))

    def previous(self, capture_s: float, delay_s: float | None = None) -> PreviousChunk | None:
        """The plan under way, at the times of the actions to come; None where it ends before `capture_s`."""
        plan = self._plan
        if plan is None:
            return None
        behind = (capture_s - plan.start_s) / plan.period_s
        length = math.floor(len(plan) - 1 - behind + _TOLERANCE) + 1
        if length < 1:
            return None
        if self.features.control_type == "delta":
            actions = plan.actions[max(round(behind), 0) :]
        else:
            actions = self._actions([capture_s + step * plan.period_s for step in range(length)])
        expected_s = self.expected_delay_s if delay_s is None else delay_s
        return PreviousChunk(actions, min(max(math.ceil(expected_s / plan.period_s - _TOLERANCE), 0), len(actions)))
