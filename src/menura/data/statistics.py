"""Statistics of vectors, per dimension: exact moments and extremes in one pass, quantiles from a sketch. Torch-free.

Means and squared deviations of parts are joined as in Chan, Golub & LeVeque, "Updating formulae and a pairwise
algorithm for computing sample variances" (1979), equations 1.5a and 1.5b.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from menura.errors import DataError, StatisticsError

Float64 = NDArray[np.float64]
Floats = NDArray[np.floating[Any]]

_FIELDS = ("mean", "std", "min", "max", "q01", "q99")
# Rows per level of the sketch, so also the number of rows up to which quantiles are exact.
_CAPACITY = 2**18


@dataclass(frozen=True, eq=False)
class Statistics:
    """Statistics of a vector feature over all frames. Every array is (D,) float64, finite.

    Attributes:
        count: frames.
        mean, std: the population's (divided by `count`).
        min, max: extremes.
        q01, q99: the values below which 1 % and 99 % of the frames lie.
    """

    count: int
    mean: Float64
    std: Float64
    min: Float64
    max: Float64
    q01: Float64
    q99: Float64

    def __post_init__(self) -> None:
        if self.count < 1:
            raise StatisticsError(f"Statistics.count: expected at least 1 frame, got {self.count}.")
        for name in _FIELDS:
            value = np.asarray(getattr(self, name), np.float64)
            if value.ndim != 1 or value.shape != np.shape(self.mean):
                raise StatisticsError(
                    f"Statistics.{name}: expected shape ({np.size(self.mean)},) as mean has, got {value.shape}."
                )
            if not np.isfinite(value).all():
                wrong = int(np.flatnonzero(~np.isfinite(value))[0])
                raise StatisticsError(f"Statistics.{name}[{wrong}]: expected a finite number, got {value[wrong]}.")
            object.__setattr__(self, name, value)

    @property
    def dim(self) -> int:
        return len(self.mean)

    def to_dict(self) -> dict[str, Any]:
        """A JSON-able dict; `from_dict` reads it back equal."""
        return {"count": self.count, **{name: getattr(self, name).tolist() for name in _FIELDS}}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Statistics:
        missing = [name for name in ("count", *_FIELDS) if name not in data]
        if missing:
            raise StatisticsError(f"Statistics: expected {['count', *_FIELDS]}, {missing} missing.")
        return cls(count=int(data["count"]), **{name: np.asarray(data[name], np.float64) for name in _FIELDS})


def compute_statistics(rows: ArrayLike, *, feature: str = "rows", names: Sequence[str] | None = None) -> Statistics:
    """The statistics of (N, D) rows. `feature` and `names` (one per dimension) appear in messages."""
    builder = StatisticsBuilder(feature=feature, names=names)
    builder.update(rows)
    return builder.result()


class StatisticsBuilder:
    """Gathers statistics from parts, in any order and grouping.

    Moments and extremes do not depend on order or grouping, but for the last bits. Quantiles are exact up to 262,144
    rows (linear interpolation between neighbours). Beyond, a quantile's rank is off by at most L / 262,144 of N rows,
    with L = 1 + log2(N / 262,144): by 0.003 % for ten million.
    """

    def __init__(self, *, feature: str = "rows", names: Sequence[str] | None = None) -> None:
        self._feature = feature
        self._names = names
        self._count = 0
        self._mean: Float64 = np.zeros(0)
        self._squares: Float64 = np.zeros(0)  # sums of squared deviations from the mean
        self._min: Float64 = np.zeros(0)
        self._max: Float64 = np.zeros(0)
        self._sketch = QuantileSketch()

    def update(self, rows: ArrayLike) -> None:
        """Adds (N, D) rows.

        Raises:
            DataError: another width than before, or a value that is not finite; names the feature, dimension and row.
        """
        table = np.asarray(rows)
        if table.ndim != 2 or (self._count and table.shape[1] != len(self._mean)):
            width = len(self._mean) if self._count else "D"
            raise DataError(f"Statistics of {self._feature}: expected shape (N, {width}), got {table.shape}.")
        for start in range(0, len(table), _CAPACITY):
            given = table[start : start + _CAPACITY]
            part = given.astype(np.float64)
            self._require_finite(part, self._count)
            mean = part.mean(axis=0)
            squares = np.square(part - mean).sum(axis=0)
            self._join(len(part), mean, squares, part.min(axis=0), part.max(axis=0))
            # The same numbers, sorted in less than half the time.
            self._sketch.add(given.copy() if given.dtype == np.float32 else part)

    def merge(self, other: StatisticsBuilder) -> None:
        """Adds everything `other` has seen."""
        if not other._count:
            return
        if self._count and len(other._mean) != len(self._mean):
            raise DataError(
                f"Statistics of {self._feature}: expected {len(self._mean)} dimensions, got {len(other._mean)}."
            )
        self._join(other._count, other._mean, other._squares, other._min, other._max)
        self._sketch.merge(other._sketch)

    def result(self) -> Statistics:
        """Of everything seen so far; StatisticsError when that is nothing."""
        if not self._count:
            raise StatisticsError(f"Statistics of {self._feature}: expected at least 1 row, got none.")
        q01, q99 = self.quantiles((0.01, 0.99))
        # Rounding may carry the mean of a constant past its extremes by one bit.
        mean = np.clip(self._mean, self._min, self._max)
        return Statistics(
            self._count, mean, np.sqrt(self._squares / self._count), self._min.copy(), self._max.copy(), q01, q99
        )

    def quantiles(self, fractions: Sequence[float]) -> Float64:
        """(len(fractions), D): the values below which these fractions of the rows lie."""
        return self._sketch.quantiles(fractions)

    def _join(self, count: int, mean: Float64, squares: Float64, low: Float64, high: Float64) -> None:
        if not self._count:
            self._count, self._mean, self._squares, self._min, self._max = count, mean, squares, low, high
            return
        total = self._count + count
        difference = mean - self._mean
        self._mean = self._mean + difference * (count / total)
        self._squares = self._squares + squares + np.square(difference) * (self._count * count / total)
        self._min = np.minimum(self._min, low)
        self._max = np.maximum(self._max, high)
        self._count = total

    def _require_finite(self, part: Float64, first_row: int) -> None:
        finite = np.isfinite(part)
        if finite.all():
            return
        row, dimension = (int(i) for i in np.argwhere(~finite)[0])
        name = f" ({self._names[dimension]})" if self._names else ""
        raise DataError(
            f"Statistics of {self._feature}: dimension {dimension}{name}, row {first_row + row}: "
            f"expected a finite number, got {part[row, dimension]}. Mend or leave out that episode."
        )


class QuantileSketch:
    """Quantiles of each column of a stream of (N, D) rows.

    Level h holds up to `capacity` values a column, each standing for 2^h. A level that overflows is sorted and every
    second value moves up, from the first or the second one in turn. One such step changes a rank by at most 2^h and
    takes at least `capacity` · 2^h rows, so all ranks are right but for (levels - 1) / capacity of N.
    After the deterministic buffers of Manku, Rajagopalan & Lindsay (SIGMOD 1998).
    """

    def __init__(self, capacity: int = _CAPACITY) -> None:
        self._capacity = capacity
        self._levels: list[list[Floats]] = [[]]
        self._odd = False

    def add(self, rows: Floats) -> None:
        """Takes (N, D) rows, which must not change afterwards."""
        self._levels[0].append(rows)
        self._compact()

    def merge(self, other: QuantileSketch) -> None:
        """Takes everything `other` holds."""
        while len(self._levels) < len(other._levels):
            self._levels.append([])
        for mine, theirs in zip(self._levels, other._levels, strict=False):
            mine.extend(theirs)
        self._compact()

    def quantiles(self, fractions: Sequence[float]) -> Float64:
        """(len(fractions), D); by linear interpolation while nothing was dropped."""
        levels = [(np.concatenate(parts), 2**height) for height, parts in enumerate(self._levels) if parts]
        if len(self._levels) == 1:
            return np.quantile(levels[0][0].astype(np.float64), fractions, axis=0)
        values = np.concatenate([rows for rows, _ in levels])
        weights = np.concatenate([np.full(len(rows), weight) for rows, weight in levels])
        order = np.argsort(values, axis=0, kind="stable")
        found = np.empty((len(fractions), values.shape[1]))
        for column in range(values.shape[1]):
            ranks = np.cumsum(weights[order[:, column]])
            places = np.searchsorted(ranks, np.asarray(fractions) * ranks[-1])
            found[:, column] = values[order[np.minimum(places, len(ranks) - 1), column], column]
        return found

    def _compact(self) -> None:
        for height in range(64):
            if height == len(self._levels):
                return
            rows = self._levels[height]
            if sum(map(len, rows)) <= self._capacity:
                continue
            ordered = np.sort(np.concatenate(rows), axis=0)
            even = len(ordered) - len(ordered) % 2  # an odd one out stays
            if height + 1 == len(self._levels):
                self._levels.append([])
            self._levels[height + 1].append(ordered[int(self._odd) : even : 2])
            self._levels[height] = [ordered[even:]] if even < len(ordered) else []
            self._odd = not self._odd
