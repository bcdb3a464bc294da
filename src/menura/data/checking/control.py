"""What the action is, against what it is said to be: a target, a difference, or a copy of the state. Torch-free."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from menura.data.checking.places import Places
from menura.data.checking.report import Finding
from menura.data.checking.tables import Bool, Context, Tables, correlation

#: Share of the moving frames in which the action must be a copy, and how many there must be.
COPIED, MOVING_FRAMES = 0.99, 10
#: Correlation (the median joint's) of a target with the position, and of a difference with the next step: targets
#: reach 0.95 and more with the position and hardly any with the step; differences the other way round.
IS, IS_NOT = 0.8, 0.5


class Copied:
    """Actions that were not recorded but taken from the state."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._pairs = np.array(context.pairs, np.int64).reshape(-1, 2)
        self._places: Places[str] = Places()
        self._judged = 0

    def see(self, tables: Tables) -> None:
        if not len(self._pairs) or len(tables) < 2:
            return
        state, action = tables.state[:, self._pairs[:, 0]], tables.action[:, self._pairs[:, 1]]
        moving = (np.diff(state, axis=0) != 0).any(axis=1)
        if moving.sum() < MOVING_FRAMES:
            return
        self._judged += 1
        bound = self._context.scales["state"].rounding[self._pairs[:, 0]]
        for of, copied in (("next", state[1:]), ("this", state[:-1])):
            same: Bool = (np.abs(action[:-1] - copied) <= bound).all(axis=1)
            if same[moving].mean() >= COPIED:
                self._places.add(of, tables.index)

    def findings(self) -> Iterable[Finding]:
        for of, places in self._places.items():
            everywhere = len(places) == self._judged
            where = () if everywhere else places
            if of == "this":
                yield Finding(
                    "action_is_state",
                    "warning",
                    "the action is the state of the same frame: a policy learns to stay where it is",
                    "Record what was commanded; or take the next frame's state as the action.",
                    0.95,
                    where,
                    feature="action",
                )
            else:
                yield Finding(
                    "action_is_next_state",
                    "note" if everywhere else "warning",
                    "the action is the next frame's state" + ("" if everywhere else ", here and not elsewhere"),
                    "Good where a controller follows exactly; else record what was commanded.",
                    0.95,
                    where,
                    feature="action",
                )


class ControlType:
    """Absolute or delta: what the numbers look like against what the dataset says."""

    def __init__(self, context: Context) -> None:
        self._declared = context.features.control_type
        self.guess = _guess(context)

    def see(self, tables: Tables) -> None:
        """Judged by the sampled episodes."""

    def findings(self) -> Iterable[Finding]:
        if self._declared and self.guess and self._declared != self.guess:
            yield Finding(
                "control_type",
                "warning",
                f"declared {self._declared}, but it looks {self.guess}: the action follows "
                + ("the position" if self.guess == "abs" else "the position's changes"),
                "Say the true control_type, or convert (wrapper ConvertActions).",
                0.8,
                feature="action",
            )


def _guess(context: Context) -> str | None:
    """`abs`, `delta`, or None where it cannot be told."""
    if not context.sampled:
        return None
    still = context.scales["state"].stepped, context.scales["action"].stepped
    grippers = context.grippers("state"), context.grippers("action")
    pairs = [(s, a) for s, a in context.pairs if not (still[0][s] or still[1][a] or grippers[0][s] or grippers[1][a])]
    if not pairs:
        return None
    state = np.concatenate([tables.state[:-1] for tables in context.sampled])
    action = np.concatenate([tables.action[:-1] for tables in context.sampled])
    steps = np.concatenate([np.diff(tables.state, axis=0) for tables in context.sampled])
    position = float(np.median([correlation(state[:, s], action[:, a]) for s, a in pairs]))
    change = float(np.median([correlation(steps[:, s], action[:, a]) for s, a in pairs]))
    if position > IS and change < IS_NOT:
        return "abs"
    return "delta" if change > IS and position < IS_NOT else None
