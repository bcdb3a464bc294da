"""What a controlled episode says of itself, while it runs and afterwards. Torch-free."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from menura.control.timing import Timing
from menura.control.watchdog import Fault

Float32 = NDArray[np.float32]

#: How an episode ended (`over`: by itself); `quit`, `emergency stop` and `fault` end the run as well.
Ended = Literal["success", "failure", "time", "over", "next", "quit", "emergency stop", "fault"]
#: What the robot does at a tick. Before the first command of an episode it rests: nothing is sent.
Mode = Literal["rest", "policy", "teleoperator", "hold"]


@dataclass(frozen=True)
class Status:
    """Where the loop stands at a tick, for those who look on.

    Attributes:
        time_s: since the episode began.
        mode: what the robot does; `reason`: why it holds or rests, empty when it does not.
        observation_age_s: of the oldest stream; None before the first observation.
        number: of the inference that the command stems from; None without one.
        plan_age_s: since the capture of that inference's observation.
        plan_rest: the share of the newest chunk that is still to come, in [0, 1].
        action: (A,) what was sent; None when nothing was.
        faults: of the episode so far.
        timing: says how time was kept so far.
    """

    time_s: float
    mode: Mode
    reason: str
    observation_age_s: float | None
    number: int | None
    plan_age_s: float | None
    plan_rest: float
    action: Float32 | None
    faults: Sequence[Fault]
    timing: Callable[[], Timing]


@dataclass(frozen=True)
class ControlledEpisode:
    """How an episode went.

    Attributes:
        steps: commands that were sent, those that hold among them.
        success: whether the task was solved; None where nobody said.
        ended: what ended it; `reason`: in words.
        timing: how time was kept.
        faults: what was wrong meanwhile, from when to when.
        recorded: frames that were saved, 0 where that failed; None where nothing was to be.
    """

    steps: int
    success: bool | None
    ended: Ended
    reason: str
    timing: Timing
    faults: tuple[Fault, ...]
    recorded: int | None = None

    def to_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return {
            "steps": self.steps,
            "success": self.success,
            "ended": self.ended,
            "reason": self.reason,
            "timing": self.timing.to_dict(),
            "faults": [fault.to_dict() for fault in self.faults],
            "recorded": self.recorded,
        }
