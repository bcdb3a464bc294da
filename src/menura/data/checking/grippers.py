"""Grippers that never move, or open when they should close. Torch-free."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from menura.data.checking.report import Finding
from menura.data.checking.tables import FEATURES, Context, Tables, correlation
from menura.data.statistics import Float64

#: A gripper follows its command within a second.
LAG_S = 1.0
#: Correlation of how open it is with how open it is told to be, at the lag that fits best: 0.5 and more, mostly 0.9.
INVERTED = -0.5
#: What is declared as closed … open may be left by this share of it, in this share of the frames.
BEYOND, BEYOND_FRAMES = 0.25, 0.05
#: Less than this share of closed … open is no motion.
MOVES = 0.02


class Grippers:
    """Against what `grippers` of the features says: (closed, open)."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._low: dict[str, Float64] = {}
        self._high: dict[str, Float64] = {}

    def see(self, tables: Tables) -> None:
        for feature in FEATURES:
            low, high = tables.table(feature).min(axis=0), tables.table(feature).max(axis=0)
            self._low[feature] = np.minimum(self._low.get(feature, low), low)
            self._high[feature] = np.maximum(self._high.get(feature, high), high)

    def findings(self) -> Iterable[Finding]:
        if self._low:
            yield from self._still()
            yield from self._outside()
            yield from self._inverted()

    def _still(self) -> Iterable[Finding]:
        still = {feature: self._motionless(feature) for feature in FEATURES}
        command_moves = any(
            number not in still["action"] for number in np.flatnonzero(self._context.grippers("action"))
        )
        for feature, numbers in still.items():
            names = tuple(self._context.names(feature)[number] for number in numbers)
            broken = feature == "state" and command_moves
            if names:
                yield Finding(
                    "gripper_still",
                    "warning" if broken else "note",
                    "the gripper never moves, though it is told to" if broken else "the gripper never moves",
                    "Check that the gripper is recorded; if the task needs none, leave it out with `keys`.",
                    0.9 if broken else 0.5,
                    feature=feature,
                    dimensions=names,
                )

    def _motionless(self, feature: str) -> list[int]:
        """The grippers that never move by more than a little of closed … open."""
        vector = self._context.vector(feature)
        found = []
        for number in np.flatnonzero(self._context.grippers(feature)):
            closed, open_ = vector.grippers.get(vector.names[number], (0.0, 0.0))
            if self._high[feature][number] - self._low[feature][number] <= MOVES * abs(open_ - closed):
                found.append(int(number))
        return found

    def _outside(self) -> Iterable[Finding]:
        for feature in FEATURES:
            vector = self._context.vector(feature)
            for name, (closed, open_) in vector.grippers.items():
                openness = np.concatenate(
                    [_openness(tables, feature, vector.names.index(name), closed, open_) for tables in self._sampled]
                )
                share = float(((openness < -BEYOND) | (openness > 1 + BEYOND)).mean())
                if share > BEYOND_FRAMES:
                    yield Finding(
                        "gripper_range",
                        "warning",
                        f"declared closed {closed:g} … open {open_:g}, but {share:.0%} of the frames lie outside",
                        "Say the true values of closed and open in the features' `grippers`.",
                        0.9,
                        feature=feature,
                        dimensions=(name,),
                    )

    def _inverted(self) -> Iterable[Finding]:
        state, action = self._context.vector("state"), self._context.vector("action")
        for name, other in _partners(list(state.grippers), list(action.grippers)):
            fit = max(
                (self._fit(name, other, lag) for lag in range(1, round(LAG_S * self._context.features.fps) + 1)),
                key=abs,
                default=0.0,
            )
            if fit < INVERTED:
                yield Finding(
                    "gripper_inverted",
                    "warning",
                    f"{name} of the state opens when {other} of the action closes: correlation {fit:.2f}",
                    "Swap closed and open of one of them in the features' `grippers`.",
                    min(0.95, -fit),
                    feature="action",
                    dimensions=(other,),
                )

    def _fit(self, name: str, other: str, lag: int) -> float:
        """Correlation of how open the gripper is with how open it was told to be `lag` frames before."""
        state, action = self._context.vector("state"), self._context.vector("action")
        told, done = [], []
        for tables in self._sampled:
            if len(tables) > lag:
                done.append(_openness(tables, "state", state.names.index(name), *state.grippers[name])[lag:])
                told.append(_openness(tables, "action", action.names.index(other), *action.grippers[other])[:-lag])
        return correlation(np.concatenate(told), np.concatenate(done)) if told else 0.0

    @property
    def _sampled(self) -> list[Tables]:
        return self._context.sampled


def _openness(tables: Tables, feature: str, number: int, closed: float, open_: float) -> Float64:
    """(T,) 0 closed … 1 open."""
    width = open_ - closed
    return (tables.table(feature)[:, number].astype(np.float64) - closed) / (width if width else 1.0)


def _partners(state: list[str], action: list[str]) -> list[tuple[str, str]]:
    """Which gripper of the state is which of the action: by name, else by order where there are as many."""
    shared = [(name, name) for name in state if name in action]
    if shared:
        return shared
    return list(zip(state, action, strict=True)) if len(state) == len(action) else []
