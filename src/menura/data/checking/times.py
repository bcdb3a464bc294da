"""Timestamps against the rate the dataset says. Torch-free."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from menura.data.checking.places import Places
from menura.data.checking.remedies import delete
from menura.data.checking.report import Finding, Place, Severity
from menura.data.checking.tables import Context, Tables

#: How far the median interval may be from 1 / fps: timestamps in milliseconds are within 2 % up to 40 fps.
WRONG_RATE = 0.05
#: A gap is so many intervals long: one frame is missing, and not only late.
GAP = 1.75
#: Jitter: so many of the intervals are so far from the median one. A queue that empties at once makes pairs of both.
JITTERY, JITTER_SHARE = 0.25, 0.1


class Times:
    """A rate that is not what it is said to be, gaps, jitter, and time that runs backwards."""

    def __init__(self, context: Context) -> None:
        self._places: Places[str] = Places()
        self._fps = context.features.fps
        self._rates: list[float] = []
        self._episodes = 0

    def see(self, tables: Tables) -> None:
        self._episodes += 1
        if len(tables) < 3:
            return
        intervals = np.diff(tables.timestamps) * tables.fps  # 1 each, when all is well
        if not np.isfinite(intervals).all() or (intervals <= 0).any():
            wrong = np.flatnonzero(~(intervals > 0))
            self._places.add("backwards", tables.index, (int(wrong[0]) + 1, int(wrong[-1]) + 2))
            return
        median = float(np.median(intervals))
        if abs(median - 1) > WRONG_RATE:
            self._places.add("rate", tables.index)
            self._rates.append(tables.fps / median)
        for at in np.flatnonzero(intervals > GAP * median):
            self._places.add("gap", tables.index, (int(at) + 1, int(at) + 2))
        if (np.abs(intervals / median - 1) > JITTERY).mean() > JITTER_SHARE:
            self._places.add("jitter", tables.index)

    def findings(self) -> Iterable[Finding]:
        for kind, places in self._places.items():
            if kind == "backwards":
                yield _finding(kind, "error", "time stands still or runs backwards", places, 0.95)
            elif kind == "rate":
                rate = float(np.median(self._rates))
                everywhere = len(places) == self._episodes
                message = f"timestamps say {rate:.4g} frames per second, the dataset {self._fps:g}"
                remedy = "Say the true fps (wrapper DeclareFeatures): a policy acts as fast as its data say."
                where = () if everywhere else places
                yield Finding("wrong_fps", "warning", message, remedy, 0.9, where)
            elif kind == "gap":
                yield _finding(kind, "warning", "time passed without frames before these", places, 0.9)
            else:
                message = f"more than {JITTER_SHARE:.0%} of the frames came {JITTERY:.0%} too early or too late"
                yield _finding(kind, "warning", message, places, 0.8)


def _finding(kind: str, severity: Severity, message: str, places: tuple[Place, ...], confidence: float) -> Finding:
    name = {"backwards": "time_backwards", "gap": "time_gap", "jitter": "time_jitter"}[kind]
    remedy = f"Record anew, or leave them out: {delete(places)}"
    return Finding(name, severity, message, remedy, confidence, places)
