"""What stands between every command and the robot: nothing leaves the limits, whatever it was told. Torch-free."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from menura.control.bounds import Bounds, unbounded
from menura.control.hold import hold_action, measured
from menura.control.turns import Turn, Turns, angle, between
from menura.control.workspace import IntegratedWorkspace
from menura.errors import ContractError
from menura.features import Features
from menura.processing.rotations import neutral
from menura.robots.base import Limits, RobotError

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]

#: Reasons for which the robot holds instead of doing what was asked.
HOLDS = ("no_plan", "stale_plan", "not_finite", "no_rotation")

_TOLERANCE_RAD = 1e-6


@dataclass(frozen=True)
class Checked:
    """What may be sent, and what was changed for it.

    Attributes:
        action: (A,) float32; None: nothing is to be sent, as no command surely holds.
        reasons: why it is not what was asked for. Held: one of `HOLDS`. Limited: some of `range`, `workspace`, `step`
            (or velocity), `slow_start`.
    """

    action: Float32 | None
    reasons: tuple[str, ...] = ()

    @property
    def held(self) -> bool:
        return any(reason in HOLDS for reason in self.reasons)


class Safety:
    """Limits every command by the limits and by what was sent before it.

    Absolute actions lie in the range and in the workspace, and differ from the last one that was sent (at first: from
    what the state says of the same joints) by at most `step`, and by at most `velocity` * the time since then, of
    which no more than one control period counts. Differences are steps themselves; grippers among them are absolute.
    Where they lead stays in the workspace; what is outside of it comes no further out.

    A rotation turns from the last one (a difference: from none) on the shortest way, by at most the smallest step and
    velocity of its numbers, in rad and rad/s, and is always a rotation. Where angles that have a range would leave it,
    they are clipped, or stay where clipping would be too large a turn.

    Args:
        features: what actions and states mean; they must say the control type.
        limits: the robot's.
        control_period_s: between two commands.
        max_plan_age_s: a plan is not executed when its observation is older.
        slow_start_s: over so many seconds from the first command on, the steps allowed grow to the whole; 0: at once.

    Attributes:
        counts: how often each reason was given since this was made.
        notes: what these limits do not bound, in words: to be told before the robot moves.

    Raises:
        ContractError: settings or limits that cannot be kept, or features that do not say what an action does.
    """

    def __init__(
        self,
        features: Features,
        limits: Limits,
        control_period_s: float,
        *,
        max_plan_age_s: float,
        slow_start_s: float,
    ) -> None:
        for name, value in (("control_period_s", control_period_s), ("max_plan_age_s", max_plan_age_s)):
            if not value > 0:
                raise ContractError(f"safety: expected {name} above 0, got {value}.")
        if not slow_start_s >= 0:
            raise ContractError(f"safety: expected slow_start_s of at least 0, got {slow_start_s}.")
        if features.control_type is None:
            raise ContractError(
                "safety: expected features that say what an action does (control_type abs or delta), got none: what "
                "holds the robot is not known. Say it where the robot is configured."
            )
        self.features = features
        self.control_period_s = control_period_s
        self.max_plan_age_s = max_plan_age_s
        self.slow_start_s = slow_start_s
        self.counts: Counter[str] = Counter()
        self.notes = tuple(unbounded(features, limits))
        self._turns = Turns(features.action)
        self._bounds = Bounds(features, limits)
        self._neutral: Float32 = neutral(features.action)
        self._differences: list[int] = []  # dimensions that are compared with none, not with the last command
        self._workspace: IntegratedWorkspace | None = None
        if features.control_type == "delta":
            action = features.action
            self._differences = [place for place, name in enumerate(action.names) if name not in action.grippers]
            if limits.workspace:
                self._workspace = IntegratedWorkspace(features, limits.workspace)
        self.begin(None)

    def begin(self, state: Float32 | None) -> None:
        """A new episode: nothing was sent yet, and `state` (D,) was measured just now. None: nothing was.

        Raises:
            RobotError: the robot stands further outside its limits than one step.
        """
        self._state = state
        self._sent = False
        self._last_s: float | None = None
        self._started_s: float | None = None
        if self._workspace is not None:
            self._workspace.begin(state)
        # NaN where it is not known; what is not known is compared with nothing.
        start = measured(self.features, state)
        start[self._differences] = self._neutral[self._differences]
        self._last = self._bounds.start(start, self.control_period_s)
        self._last_turns: list[Turn | None] = [
            None if np.isnan(self._last[places]).any() else self._turns.one(index, self._last)
            for index, places in enumerate(self._turns.places)
        ]

    def observe(self, state: Float32, captured_s: float) -> None:
        """A newer state (D,), captured at `captured_s`: where differences lead is counted from there."""
        if self._workspace is not None:
            self._workspace.observe(state, captured_s)

    def check(self, action: Float32 | None, now_s: float, *, captured_s: float | None = None) -> Checked:
        """What may be sent instead of `action` (A,), of which None says that nothing is meant for now.

        It counts on that being sent; where a robot's own clipping changed it, say so by `sent`. `captured_s` is when
        the observation behind the action was captured; None: it is of no plan, but a person's.

        Raises:
            ContractError: an action of another width.
        """
        refused = self._refusal(action, now_s, captured_s)
        turns = None if action is None or refused is not None else self._turns.read(action)
        if action is None or turns is None:
            safe, reasons = self._hold(), [refused or "no_rotation"]
        else:
            safe, reasons = self._limited(action, turns, now_s)
        self.counts.update(reasons)
        if safe is not None:
            self._compare_with(safe)
            self._sent, self._last_s = True, now_s
            if self._workspace is not None:
                self._workspace.sent(safe[self._workspace.places].astype(np.float64), now_s)
        return Checked(safe, tuple(reasons))

    def sent(self, action: Float32) -> None:
        """(A,) what a robot's own clipping made of the last command: the next one is compared with it, and it is held.

        Where it is a little outside the limits (rounding of units) the nearest within them stands for it.

        Raises:
            RobotError: it is no action.
        """
        if action.shape != self._last.shape or not np.isfinite(action).all() or self._turns.read(action) is None:
            raise RobotError(f"robot: expected the {len(self._last)} numbers that were sent, got {action.tolist()}.")
        self._compare_with(self._bounds.clip(action))

    def _compare_with(self, action: Float32) -> None:
        """The next command's step is from here; a difference's from none."""
        self._last = np.array(action, np.float32)
        self._last[self._differences] = self._neutral[self._differences]
        if self.features.control_type == "abs":
            self._last_turns = [self._turns.one(index, self._last) for index in range(len(self._turns))]

    def _refusal(self, action: Float32 | None, now_s: float, captured_s: float | None) -> str | None:
        """Why what is asked for is not done."""
        if action is None:
            return "no_plan"
        if action.shape != self._last.shape:
            raise ContractError(f"safety: expected an action of {len(self._last)} numbers, got shape {action.shape}.")
        if captured_s is not None and now_s - captured_s > self.max_plan_age_s:
            return "stale_plan"
        return None if np.isfinite(action).all() else "not_finite"

    def _hold(self) -> Float32 | None:
        """None also where the robot stands outside its limits before anything was sent: that must not be commanded."""
        held = hold_action(self.features, self._last if self._sent else None, self._state)
        return held if held is None or self._sent or self._bounds.contains(held) else None

    def _limited(self, action: Float32, turns: list[Turn], now_s: float) -> tuple[Float32, list[str]]:
        numbers = self._turns.numbers
        allowed, cause = self._allowed(now_s)
        asked = action.astype(np.float64)
        ranged = np.clip(asked, self._bounds.low, self._bounds.high)
        boxed = np.clip(ranged, self._bounds.box_low, self._bounds.box_high)
        before = np.where(np.isnan(self._last), boxed, self._last)
        limited = np.clip(boxed, before - allowed, before + allowed)
        reasons = [
            reason
            for reason, old, new in (("range", asked, ranged), ("workspace", ranged, boxed), (cause, boxed, limited))
            if (old[numbers] != new[numbers]).any()
        ]
        if self._workspace is not None:
            places = self._workspace.places
            inside = self._workspace.clip(limited[places])
            if (inside != limited[places]).any():
                reasons.append("workspace")
            limited[places] = inside
        safe: Float32 = limited.astype(np.float32)
        for index, (turn, places) in enumerate(zip(turns, self._turns.places, strict=True)):
            safe[places], why = self._turned(index, turn, float(allowed[places].min()), cause)
            reasons += why
        return safe, list(dict.fromkeys(reasons))

    def _allowed(self, now_s: float) -> tuple[Float64, str]:
        """(A,) the step that is allowed now, and what it is called when it was too short."""
        if self._started_s is None:
            self._started_s = now_s
        period_s = self.control_period_s
        since_s = period_s if self._last_s is None else min(max(now_s - self._last_s, 0.0), period_s)
        allowed = self._bounds.steps(since_s)
        if (running_s := now_s - self._started_s + period_s) < self.slow_start_s:
            return allowed * (running_s / self.slow_start_s), "slow_start"
        return allowed, "step"

    def _turned(self, index: int, turn: Turn, allowed_rad: float, cause: str) -> tuple[Float32, list[str]]:
        """The numbers of one rotation of what is sent, and why they are not those asked for."""
        places = self._turns.places[index]
        before, reasons = self._last_turns[index], list[str]()
        if before is not None and (far := angle(before, turn)) > allowed_rad + _TOLERANCE_RAD:
            turn, reasons = between(before, turn, allowed_rad / far), [cause]
        numbers = self._turns.numbers_of(index, turn)
        clipped = np.clip(numbers, self._bounds.low[places], self._bounds.high[places]).astype(np.float32)
        if (clipped == numbers).all():
            return numbers, reasons
        safe = self._last.copy()
        safe[places] = clipped
        if before is not None and angle(before, self._turns.one(index, safe)) > allowed_rad + _TOLERANCE_RAD:
            clipped = self._last[places]
        return clipped, [*reasons, "range"]
