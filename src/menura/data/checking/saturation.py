"""Actions that were cut off at a limit. Torch-free."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from menura.data.checking.places import Places
from menura.data.checking.report import Finding, Place
from menura.data.checking.tables import Bool, Context, Tables, long_runs
from menura.data.episode import Float32

#: Pinned for so long: a motion that turns around is at its extreme for a frame or two.
PINNED_S, PINNED_FRAMES = 0.5, 10
#: What rests in a pose slows down before; what is cut off arrives with this share of its usual fast step.
ARRIVES_WITH = 0.25
#: Share of all frames from which on it weighs.
MATTERS = 0.05


class Saturated:
    """Dimensions of the action pinned at the largest or smallest value the dataset has."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._places: Places[tuple[int, str]] = Places()
        self._pinned: dict[tuple[int, str], int] = {}
        self._frames = 0
        self._low = np.full(context.features.action_dim, np.inf)
        self._high = np.full(context.features.action_dim, -np.inf)
        looked: Bool = np.zeros(context.features.action_dim, bool)
        if context.scales:
            scale = context.scales["action"]
            looked = ~scale.stepped & ~context.grippers("action") & (scale.range > 0)
        self._looked = np.flatnonzero(looked)

    def see(self, tables: Tables) -> None:
        self._frames += len(tables)
        if not len(self._looked):
            return
        scale = self._context.scales["action"]
        self._low = np.minimum(self._low, tables.action.min(axis=0))
        self._high = np.maximum(self._high, tables.action.max(axis=0))
        least = max(PINNED_FRAMES, round(PINNED_S * tables.fps))
        for end, extreme in (("smallest", scale.min), ("largest", scale.max)):
            pinned = np.abs(tables.action - extreme) <= scale.rounding
            for dimension in self._looked[(pinned.sum(axis=0) >= least)[self._looked]]:
                if abs(extreme[dimension]) <= scale.rounding[dimension]:
                    continue  # nothing commanded
                for start, stop in long_runs(pinned[:, dimension], least):
                    arrives = _arrives(tables.action[:, dimension], start, ARRIVES_WITH * scale.step[dimension])
                    if arrives and not _others_stop(tables.action, start, int(dimension)):
                        key = (int(dimension), end)
                        self._places.add(key, tables.index, (start, stop))
                        self._pinned[key] = self._pinned.get(key, 0) + stop - start

    def findings(self) -> Iterable[Finding]:
        for (dimension, end), places in self._places.items():
            scale = self._context.scales["action"]
            extremes = (scale.min, self._low) if end == "smallest" else (scale.max, self._high)
            usual, seen = (float(extreme[dimension]) for extreme in extremes)
            if abs(usual - seen) <= scale.rounding[dimension]:  # else others go beyond: no limit
                share = self._pinned[dimension, end] / self._frames
                yield _saturated(self._context.names("action")[dimension], end, usual, share, places)


def _arrives(action: Float32, start: int, speed: float) -> bool:
    """Whether it comes to its limit, at frame `start`, while it still moves."""
    before = action[max(start - 2, 0) : start + 1]
    return len(before) > 1 and float(np.abs(np.diff(before)).max()) > speed


def _others_stop(action: Float32, start: int, dimension: int) -> bool:
    """Whether another dimension stops at the same frame: a pause, for limits are not reached together."""
    if not 1 < start < len(action) - 1:
        return False
    stops = (action[start - 1] != action[start]) & (action[start] == action[start + 1])
    stops[dimension] = False
    return bool(stops.any())


def _saturated(name: str, end: str, value: float, share: float, places: tuple[Place, ...]) -> Finding:
    return Finding(
        "saturated",
        "warning" if share >= MATTERS else "note",
        f"pinned at its {end} value {value:.4g} for long, {share:.1%} of all frames",
        "Look whether a limit of the controller cuts the demonstrator off; record with wider limits.",
        0.7,
        places,
        feature="action",
        dimensions=(name,),
    )
