"""What the checks look at: one episode's tables at a time, and how the dataset usually moves. Torch-free."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from menura.data.checking.report import Finding
from menura.data.episode import Episode, Float32
from menura.data.statistics import Float64
from menura.features import Features, VectorFeature

Bool = NDArray[np.bool_]
FEATURES = ("state", "action")
_GRIPPER_WORDS = ("gripper", "finger", "claw", "jaw")
# Correlation of a step with the next one: 0.6 and more in people's teleoperation at 10 Hz, 0.9 at 50 Hz; about 0 and
# less in noise, and in velocities, which contacts throw to and fro.
_SMOOTH = 0.4
_FOLLOWS = 0.8  # correlation of a joint with its target: 0.95 and more where it follows, about 0 for deltas
_UNIT_ROUNDING = 1e-6  # float32 keeps 24 bits: differences below this share of the range are rounding


@dataclass(frozen=True)
class Tables:
    """One episode without its pictures.

    Attributes:
        index: its number in the dataset.
        state, action: (T, D) and (T, A) float32; rows that are not finite are repeated from the row before.
        finite: feature -> (T, D) bool, false where the number was not finite.
        timestamps: (T,) seconds.
        fps: steps a second.
        task: in words.
    """

    index: int
    state: Float32
    action: Float32
    finite: dict[str, Bool]
    timestamps: Float64
    fps: float
    task: str

    @classmethod
    def of(cls, index: int, episode: Episode) -> Tables:
        finite = {name: np.isfinite(getattr(episode, name)) for name in FEATURES}
        state, action = (_filled(getattr(episode, name), finite[name]) for name in FEATURES)
        assert episode.timestamps is not None  # Episode fills them in
        return cls(index, state, action, finite, episode.timestamps, episode.fps, episode.task)

    def __len__(self) -> int:
        return len(self.action)

    def table(self, feature: str) -> Float32:
        """`state` or `action`."""
        return self.state if feature == "state" else self.action


def _filled(table: Float32, finite: Bool) -> Float32:
    """Numbers that are not finite replaced by the last finite one above them (0 where there is none)."""
    if finite.all():
        return table
    rows = np.where(finite, np.arange(len(table))[:, None], -1)
    last = np.maximum.accumulate(rows, axis=0)
    filled = np.take_along_axis(table, np.maximum(last, 0), axis=0)
    return np.where(last >= 0, filled, np.float32(0))


@dataclass(frozen=True)
class Scale:
    """How one feature usually is and moves, each (D,) float64. Robust: a few wrong frames do not change it.

    Attributes:
        low, high: 0.5 % and 99.5 % quantiles of the values.
        min, max: extremes of the values.
        fast: 95 % quantile of the absolute steps from frame to frame.
        step: the same; of a dimension that mostly stands still the 90 % quantile of the steps that are not zero.
        stepped: whether it has few levels (a command that is open or closed): steps as large as its range are usual.
        smooth: whether a step is like the one before, as those of positions are; not so those of velocities and noise.
    """

    low: Float64
    high: Float64
    min: Float64
    max: Float64
    fast: Float64
    step: Float64
    stepped: Bool
    smooth: Bool

    @property
    def range(self) -> Float64:
        """Usual range of the values; that of the extremes where the usual one is empty."""
        usual = self.high - self.low
        return np.asarray(np.where(usual > 0, usual, self.max - self.min))

    @property
    def rounding(self) -> Float64:
        """Differences that mean nothing."""
        return _UNIT_ROUNDING * np.maximum(np.maximum(np.abs(self.min), np.abs(self.max)), self.range)

    @classmethod
    def of(cls, parts: Sequence[Float32]) -> Scale:
        """Of the tables of some episodes."""
        values = np.concatenate(parts).astype(np.float64)
        signed = [np.diff(part.astype(np.float64), axis=0) for part in parts]
        steps = np.abs(np.concatenate(signed))
        low, high = np.quantile(values, (0.005, 0.995), axis=0)
        fast = np.quantile(steps, 0.95, axis=0) if len(steps) else np.zeros(values.shape[1])
        step = _usual_step(steps, fast)
        ends = values.min(axis=0), values.max(axis=0)
        return cls(low, high, *ends, fast, step, _stepped(values, low, high), _smooth(signed, step))


def _usual_step(steps: Float64, fast: Float64) -> Float64:
    usual = fast.copy()
    for dimension in np.flatnonzero(fast == 0):
        moving = steps[:, dimension][steps[:, dimension] > 0]
        usual[dimension] = np.quantile(moving, 0.9) if len(moving) else 0.0
    return np.asarray(usual, np.float64)


def _smooth(signed: Sequence[Float64], step: Float64) -> Bool:
    """(D,) whether the correlation of a step with the next is high; cut at the usual step, so that no glitch rules."""
    cut = [np.clip(steps, -step, step) for steps in signed]
    together = sum((steps[1:] * steps[:-1]).sum(axis=0) for steps in cut)
    alone = sum(np.square(steps).sum(axis=0) for steps in cut)
    return np.asarray(together > _SMOOTH * alone)


def _stepped(values: Float64, low: Float64, high: Float64) -> Bool:
    """(D,) whether 95 % of the values lie at the two ends (within 2 % of the range), or there are at most 8."""
    near = 0.02 * (high - low)
    at_ends = ((values <= low + near) | (values >= high - near)).mean(axis=0) >= 0.95
    few = np.array([len(np.unique(column[:: max(1, len(column) // 2000)])) <= 8 for column in values.T], bool)
    return np.asarray(at_ends | few)


@dataclass(frozen=True)
class Context:
    """What a check is made with.

    Attributes:
        features: of the dataset.
        scales: feature -> how it usually moves, from `sampled` episodes.
        sampled: those episodes.
    """

    features: Features
    scales: dict[str, Scale]
    sampled: list[Tables]

    @classmethod
    def of(cls, features: Features, sampled: list[Tables]) -> Context:
        scales = {name: Scale.of([tables.table(name) for tables in sampled]) for name in FEATURES} if sampled else {}
        return cls(features, scales, sampled)

    def vector(self, feature: str) -> VectorFeature:
        """The meaning of `state` or `action`; without dimensions where there is no state."""
        if feature == "action":
            return self.features.action
        return self.features.state or VectorFeature(())

    def names(self, feature: str) -> tuple[str, ...]:
        """Of the dimensions of `state` or `action`."""
        return self.vector(feature).names

    def grippers(self, feature: str) -> Bool:
        """(D,) which dimensions are grippers, by declaration or by name."""
        vector = self.vector(feature)
        said = [
            name in vector.grippers or any(word in name.lower() for word in _GRIPPER_WORDS) for name in vector.names
        ]
        return np.array(said, bool)

    def rotated(self, feature: str) -> Bool:
        """(D,) which dimensions are part of an orientation."""
        vector = self.vector(feature)
        parts = {name for rotation in vector.rotations for name in rotation.names}
        return np.array([name in parts for name in vector.names], bool)

    @cached_property
    def pairs(self) -> list[tuple[int, int]]:
        """(state dimension, action dimension) that may be one joint or axis: by name, or by place in equal widths."""
        state, action = self.names("state"), self.names("action")
        shared = [(state.index(name), number) for number, name in enumerate(action) if name in state]
        if shared or len(state) != len(action):
            return shared
        return [(number, number) for number in range(len(action))]

    @cached_property
    def followed(self) -> list[tuple[int, int]]:
        """The pairs whose state follows the action: positions commanded absolutely. By their correlation."""
        if not self.sampled:
            return []
        state = np.concatenate([tables.state for tables in self.sampled])
        action = np.concatenate([tables.action for tables in self.sampled])
        return [(s, a) for s, a in self.pairs if correlation(state[:, s], action[:, a]) > _FOLLOWS]


def correlation(one: Float32 | Float64, other: Float32 | Float64) -> float:
    """Pearson's, of two (N,); 0 where one does not change."""
    x, y = one.astype(np.float64), other.astype(np.float64)
    x, y = x - x.mean(), y - y.mean()
    size = float(np.sqrt((x @ x) * (y @ y)))
    return float(x @ y) / size if size > 0 else 0.0


class Check(Protocol):
    """One family of faults: shown every episode once, in order, then asked what it found."""

    def see(self, tables: Tables) -> None: ...

    def findings(self) -> Iterable[Finding]: ...


def runs(mask: Bool) -> Iterator[tuple[int, int]]:
    """(start, stop) of each stretch of true in (T,)."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], mask, [False]]).astype(np.int8)))
    yield from zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True)


def long_runs(mask: Bool, least: int) -> list[tuple[int, int]]:
    """Those of at least so many frames."""
    return [(start, stop) for start, stop in runs(mask) if stop - start >= least]
