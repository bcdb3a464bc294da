"""What a controller is: chunks in, at their own times; a command out at every tick. Torch-free.

A controller is pure: no threads, no clock, no randomness. What it answers is a function of what it received and of the
times it was told, so that the same one drives a robot and is evaluated in virtual time.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections import Counter, deque
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from menura.chunks import ActionChunk, PreviousChunk
from menura.control.turns import Turns
from menura.errors import ContractError
from menura.features import Features

Float32 = NDArray[np.float32]

#: How many delays are remembered; the longest of them is expected of the next (`Q` in arXiv 2506.07339, algorithm 1).
REMEMBERED_DELAYS = 10

#: Seconds; below it two times are the same: far above the rounding of times, far below a tick.
TOLERANCE_S = 1e-6

#: Rates that differ by less are one.
_SAME_RATE = 0.01


@dataclass(frozen=True)
class Command:
    """What the robot is to be told now.

    Attributes:
        action: (A,) float32, physical units.
        meant_s: the time it was meant for; `now - meant_s` is how late it is.
        number: of the newest inference it stems from.
        captured_s: when the observation of that inference was captured; `now - captured_s` is the plan's age.
    """

    action: Float32
    meant_s: float
    number: int
    captured_s: float


class Controller(ABC):
    """Base of every controller. `begin` comes before everything else, and again before every episode.

    Times are seconds of one clock. `command` should be told the time a tick was scheduled for, not the time at which
    the system woke: then jitter neither skips an action nor sends one twice.

    Attributes:
        refused: how many chunks (or ends of chunks) were not used, by reason: `empty`; `not_finite`, `no_rotation` (cut
            where the first action stands that is none); `late` (all of it past); `superseded` (a newer one was there).
        turns: the rotations of the actions.
    """

    #: Whether commands of absolute actions are continuous across chunk switches.
    continuous: ClassVar[bool] = False
    #: Whether actions that are differences may be commanded faster than the policy's rate.
    divides_steps: ClassVar[bool] = False
    #: Whether chunks older than the newest are of use.
    uses_older: ClassVar[bool] = False

    features: Features
    control_period_s: float
    refused: Counter[str]
    turns: Turns

    def begin(self, features: Features, control_period_s: float) -> None:
        """A new episode: nothing is known. `features` are the policy's and the robot's.

        Raises:
            ContractError: a period that is none; actions that are differences, at a rate they were not made for.
        """
        if not control_period_s > 0:
            raise ContractError(f"controller: expected a control period above 0 s, got {control_period_s}.")
        self.features = features
        self.control_period_s = control_period_s
        self.refused = Counter()
        self.turns = Turns(features.action)
        self._newest = -1
        self._delays: deque[float] = deque(maxlen=REMEMBERED_DELAYS)
        if features.fps:
            self._check_rate(1 / features.fps)

    def receive(self, chunk: ActionChunk, now_s: float) -> None:
        """The answer to an inference is there, at `now_s`: late, short, empty, out of order, all that is allowed.

        Raises:
            ContractError: actions of another width, or differences at a rate they were not made for.
        """
        if chunk.actions.shape[1] != self.features.action_dim:
            raise ContractError(
                f"controller: expected chunks of {self.features.action_dim} numbers an action, got "
                f"{chunk.actions.shape[1]}."
            )
        self._check_rate(chunk.period_s)
        self.expect(now_s - chunk.start_s)
        if not len(chunk):
            self.refused["empty"] += 1
            return
        good, reason = self.turns.leading(chunk.actions)
        if reason is not None:
            self.refused[reason] += 1
            chunk = replace(chunk, actions=chunk.actions[:good])
        if not good:
            return
        if chunk.number < self._newest and not self.uses_older:
            self.refused["superseded"] += 1
            return
        if self._take(chunk, now_s):
            self._newest = max(self._newest, chunk.number)
        else:
            self.refused["late"] += 1

    @abstractmethod
    def _take(self, chunk: ActionChunk, now_s: float) -> bool:
        """`receive`, of a chunk that holds something; False where all of it is past."""

    @abstractmethod
    def command(self, now_s: float) -> Command | None:
        """What is meant for `now_s`. None: nothing is, and the robot holds."""

    @abstractmethod
    def next_wanted_s(self, now_s: float) -> float:
        """The earliest time, `now_s` or later, at which an inference should begin, as things are."""

    def wants(self, now_s: float) -> bool:
        """Whether an inference should begin now. Whoever asks runs one at a time."""
        return self.next_wanted_s(now_s) <= now_s + TOLERANCE_S

    def previous(self, capture_s: float, delay_s: float | None = None) -> PreviousChunk | None:
        """What the inference that begins now, of an observation of `capture_s`, is to agree with. None: with nothing.

        `delay_s` is how long after `capture_s` its answer is expected; None: `expected_delay_s`.
        """
        return None

    def expect(self, delay_s: float) -> None:
        """So long an answer took: one that `receive` cannot tell, as the robot rested until it was there."""
        self._delays.append(max(delay_s, 0.0))

    @property
    def expected_delay_s(self) -> float:
        """From capture to answer: the longest of the last few; 0 before any was measured."""
        return max(self._delays, default=0.0)

    def _index(self, chunk: ActionChunk, now_s: float) -> int | None:
        """Of the action meant for `now_s`; before all of them the first: a tick's own time may be a little behind."""
        return 0 if now_s < chunk.start_s else chunk.index_at(now_s)

    def _command(self, chunk: ActionChunk, index: int) -> Command:
        return Command(chunk.actions[index], chunk.start_s + index * chunk.period_s, chunk.number, chunk.start_s)

    def _check_rate(self, period_s: float) -> None:
        """Differences add up: sent at another rate than they were made for, they lead elsewhere."""
        same = math.isclose(period_s, self.control_period_s, rel_tol=_SAME_RATE)
        divided = self.divides_steps and self.control_period_s < period_s
        if self.features.control_type == "delta" and not same and not divided:
            raise ContractError(
                f"{type(self).__name__}: expected actions that are differences to be sent at the policy's rate, "
                f"{1 / period_s:g} Hz, got a control rate of {1 / self.control_period_s:g} Hz. Control at the policy's "
                "rate, or faster with a controller that divides the steps (interpolating)."
            )
