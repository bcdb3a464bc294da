"""A chunk of actions, the time each is meant for, and what of it the next chunk must agree with. Torch-free."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from menura.errors import ContractError

Float32 = NDArray[np.float32]

#: In periods: far above the rounding of times, far below a step.
_TOLERANCE = 1e-6


@dataclass(frozen=True)
class ActionChunk:
    """What a policy answered to one observation.

    Attributes:
        actions: (T, A) float32, physical units; T may be 0.
        start_s: the time the first action is meant for: when the observation was captured.
        period_s: from one action to the next, > 0.
        number: of the inference, from 0: chunks may arrive out of order.
    """

    actions: Float32
    start_s: float
    period_s: float
    number: int = 0

    def __post_init__(self) -> None:
        if self.actions.ndim != 2:
            raise ContractError(f"chunk: expected actions (T, A), got shape {self.actions.shape}.")
        if not self.period_s > 0:
            raise ContractError(f"chunk: expected a period above 0 s, got {self.period_s}.")

    def __len__(self) -> int:
        return len(self.actions)

    @property
    def end_s(self) -> float:
        """When the last action's period is over."""
        return self.start_s + len(self.actions) * self.period_s

    def index_at(self, time_s: float) -> int | None:
        """Which action is meant for `time_s`; None before the first and after the last one's period."""
        index = math.floor((time_s - self.start_s) / self.period_s + _TOLERANCE)
        return index if 0 <= index < len(self.actions) else None

    def at(self, time_s: float) -> Float32 | None:
        """(A,) the action meant for `time_s`."""
        index = self.index_at(time_s)
        return None if index is None else self.actions[index]


@dataclass(frozen=True)
class PreviousChunk:
    """What is under way when an inference begins, and what its answer must agree with.

    Attributes:
        actions: (T', A) float32, physical units; the first is meant for the time of the new observation.
        delay: how many of them will have been executed before the answer is there, 0 to T'. These are frozen.
    """

    actions: Float32
    delay: int

    def __post_init__(self) -> None:
        if self.actions.ndim != 2:
            raise ContractError(f"previous chunk: expected actions (T, A), got shape {self.actions.shape}.")
        if not 0 <= self.delay <= len(self.actions):
            raise ContractError(
                f"previous chunk: expected a delay from 0 to its {len(self.actions)} actions, got {self.delay}."
            )

    def weights(self, chunk_size: int) -> Float32:
        """(chunk_size,) in [0, 1]: how much each action of the new chunk must agree with the old one.

        1 over the frozen ones; from there it falls exponentially to 0, which it is from where the old chunk ends on
        (Black et al. 2025, arXiv 2506.07339, equation 5).
        """
        end = min(len(self.actions), chunk_size)
        steps = np.arange(chunk_size)
        share = np.clip((end - steps) / max(end - self.delay + 1, 1), 0.0, 1.0)  # c_i
        weights = share * np.expm1(share) / np.expm1(1.0)
        weights[steps < min(self.delay, chunk_size)] = 1.0
        of_actions: Float32 = weights.astype(np.float32)
        return of_actions
