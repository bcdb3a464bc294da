"""Between the actions of a chunk, by time, and smoothly from one chunk to the next. Torch-free."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from menura.chunks import ActionChunk
from menura.control.controllers.base import Command
from menura.control.controllers.delay_compensated import DelayCompensated
from menura.control.turns import IDENTITY, Turn, Turns, between, inverse, product
from menura.errors import ContractError
from menura.features import Features

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]


class Interpolating(DelayCompensated):
    """Delay-compensated, at any control rate above the policy's: what lies between two actions is made of both.

    At the time an action is meant for it is commanded exactly; between two of them numbers go linearly or along a
    cubic that is smooth in velocity and never leaves the span of the two (Fritsch and Carlson 1980), rotations on the
    shortest way at constant speed. After the last action it is held for its period.

    Chunks are joined without a jump: when one takes over, the gap between where the robot is sent and where the new
    chunk would have it is kept and fades to nothing within `blend_s`.

    Actions that are differences are divided: each command is the policy's difference times control period / policy
    period, rotations turn by that share, grippers are commanded as they are. Over a policy period that adds up to the
    policy's difference if all its ticks are sent; a tick that is missed is a motion that is missed. Nothing is blended.
    Actions of which features do not say what they are count as absolute.

    An inference is wanted as `DelayCompensated` has it.

    Args:
        kind: how numbers get from one action to the next.
        blend_s: seconds within which a gap between chunks fades, above 0.
        grippers: `linear`, as other numbers; `step`: a gripper keeps an action's value until the next is due, and
            jumps. Then it is not continuous.
        n_action_steps: as of `DelayCompensated`.
    """

    continuous = True
    divides_steps = True

    def __init__(
        self,
        kind: Literal["linear", "cubic"] = "linear",
        blend_s: float = 0.1,
        grippers: Literal["linear", "step"] = "linear",
        n_action_steps: int | None = None,
    ) -> None:
        super().__init__(n_action_steps)
        for name, value, known in (("kind", kind, ("linear", "cubic")), ("grippers", grippers, ("linear", "step"))):
            if value not in known:
                raise ContractError(f"{type(self).__name__}: expected {name} to be one of {known}, got {value!r}.")
        if not blend_s > 0:
            raise ContractError(f"{type(self).__name__}: expected blend_s above 0, got {blend_s}.")
        self.kind = kind
        self.blend_s = blend_s
        self.grippers = grippers

    def begin(self, features: Features, control_period_s: float) -> None:
        super().begin(features, control_period_s)
        self._grippers = [features.action.names.index(name) for name in features.action.grippers]
        self._motion: _Motion | None = None
        self._gap: tuple[Float64, list[Turn]] = (np.zeros(features.action_dim), [IDENTITY] * len(self.turns))
        self._switched_s = 0.0

    def _take(self, chunk: ActionChunk, now_s: float) -> bool:
        if not super()._take(chunk, now_s):
            return False
        if self.features.control_type == "delta":
            return True
        motion = _Motion(chunk, self.turns, self.kind, self._grippers if self.grippers == "step" else [])
        if self._motion is not None:
            numbers, turns = self._at(min(now_s, self._motion.end_s))
            new_numbers, new_turns = motion.at(now_s)
            gap: Float64 = numbers - new_numbers
            gap[motion.jumping] = 0.0
            apart = [product(old, inverse(new)) for old, new in zip(turns, new_turns, strict=True)]
            self._gap, self._switched_s = (gap, apart), now_s
        self._motion = motion
        return True

    def command(self, now_s: float) -> Command | None:
        command = super().command(now_s)
        if command is None:
            return None
        if self.features.control_type == "delta":
            return replace(command, action=self._divided(command.action))
        return replace(command, action=self._actions([now_s])[0], meant_s=max(now_s, command.meant_s))

    def _actions(self, times_s: Sequence[float]) -> Float32:
        """(n, A) what is commanded at these times, of absolute actions."""
        numbers, turns = zip(*map(self._at, times_s), strict=True)
        actions: Float32 = np.array(numbers, np.float32)
        self.turns.write(turns, actions)
        return actions

    def _at(self, time_s: float) -> tuple[Float64, list[Turn]]:
        """The motion under way, and what is left of the gap to the one before it."""
        assert self._motion is not None, "a chunk is received before it is executed"
        numbers, turns = self._motion.at(time_s)
        left = self._gap_left(time_s)
        if left == 0:
            return numbers, turns
        gap, apart = self._gap
        turns = [product(between(IDENTITY, one, left), turn) for one, turn in zip(apart, turns, strict=True)]
        return numbers + left * gap, turns

    def _gap_left(self, time_s: float) -> float:
        """In [0, 1]."""
        return min(max(1 - (time_s - self._switched_s) / self.blend_s, 0.0), 1.0)

    def _divided(self, action: Float32) -> Float32:
        """(A,) a difference -> that of one tick."""
        assert self._plan is not None, "a command is of a chunk"
        share = self.control_period_s / self._plan.period_s
        divided: Float32 = (action * share).astype(np.float32)
        divided[self._grippers] = action[self._grippers]
        if len(self.turns):
            turns = [between(IDENTITY, turn, share) for turn in self.turns.of(action).tolist()]
            self.turns.write(turns, divided)
        return divided


class _Motion:
    """A chunk as a motion in continuous time.

    Attributes:
        jumping: dimensions that keep an action's value until the next is due.
        end_s: the chunk's.
    """

    def __init__(self, chunk: ActionChunk, turns: Turns, kind: str, jumping: list[int]) -> None:
        self.jumping = jumping
        self.end_s = chunk.end_s
        self._start_s, self._period_s = chunk.start_s, chunk.period_s
        self._actions: Float64 = chunk.actions.astype(np.float64)
        self._slopes = _slopes(self._actions) if kind == "cubic" else None
        self._turns: list[list[Turn]] = turns.of(self._actions).tolist()

    def at(self, time_s: float) -> tuple[Float64, list[Turn]]:
        """(A,) the numbers, of which those of rotations mean nothing, and the R rotations."""
        last = len(self._actions) - 1
        position = min(max((time_s - self._start_s) / self._period_s, 0.0), float(last))
        index = min(int(position), max(last - 1, 0))
        following = min(index + 1, last)
        share = position - index
        a, b = self._actions[index], self._actions[following]
        if self._slopes is None:
            numbers: Float64 = a + share * (b - a)
        else:
            numbers = _hermite(a, b, self._slopes[index], self._slopes[following], share)
        if self.jumping:
            numbers[self.jumping] = (b if share > 1 - _DUE else a)[self.jumping]
        turns = [
            between(own, other, share) for own, other in zip(self._turns[index], self._turns[following], strict=True)
        ]
        return numbers, turns


#: In periods: an action that is due so soon is due.
_DUE = 1e-6


def _slopes(actions: Float64) -> Float64:
    """(T, A) -> (T, A) velocities per period at each action, which keep the cubic between neighbours (PCHIP).

    The harmonic mean of the steps before and after (Fritsch and Butland 1984), none where those point apart; at the
    ends of the chunk the one step there is.
    """
    steps: Any = np.diff(actions, axis=0)  # (T - 1, A)
    slopes = np.zeros_like(actions)
    if len(steps):
        slopes[0], slopes[-1] = steps[0], steps[-1]
        together = steps[:-1] * steps[1:] > 0
        total = np.where(together, steps[:-1] + steps[1:], 1.0)
        slopes[1:-1] = np.where(together, 2 * steps[:-1] * steps[1:] / total, 0.0)
    return slopes


def _hermite(a: Float64, b: Float64, slope_a: Float64, slope_b: Float64, share: float) -> Float64:
    """(A,) the cubic that leaves a with one velocity and reaches b with the other, at `share` of the way."""
    rest = 1 - share
    mixed: Float64 = rest * rest * ((1 + 2 * share) * a + share * slope_a) + share * share * (
        (1 + 2 * rest) * b - rest * slope_b
    )
    return mixed
