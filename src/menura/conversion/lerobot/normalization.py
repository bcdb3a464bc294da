"""LeRobot's formulas of normalization, as numbers: `(x - centre) * scale + base` there, `y * scale + base` back.

The formulas: https://github.com/huggingface/lerobot, processor/normalize_processor.py (0.6.1). Its epsilon is added to
a deviation on the way there alone, and stands in the place of a range of 0 both ways.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from menura.conversion.lerobot.statistics import READS
from menura.errors import StatisticsError
from menura.processing.normalizer import Affine

Float64 = NDArray[np.float64]


@dataclass(frozen=True)
class There:
    """`(x - centre) * scale + base`: each (D,)."""

    centre: Float64
    scale: Float64
    base: Float64

    @property
    def mean(self) -> Float64:
        """The same as `(x - mean) / std`."""
        return self.centre - self.base / self.scale

    @property
    def std(self) -> Float64:
        result: Float64 = 1 / self.scale
        return result


@dataclass(frozen=True)
class Back:
    """`y * scale + base`: each (D,)."""

    scale: Float64
    base: Float64


def there(mode: str, statistics: Mapping[str, Float64], eps: float, width: int) -> There:
    """From physical to normalized."""
    zero, one = np.zeros(width), np.ones(width)
    if mode == "IDENTITY":
        return There(zero, one, zero)
    if mode == "MEAN_STD":
        return There(statistics["mean"], 1 / (statistics["std"] + eps), zero)
    low, span = _range(mode, statistics, eps)
    return There(low, 2 / span, -one)


def back(mode: str, statistics: Mapping[str, Float64], eps: float, width: int) -> Back:
    """From normalized to physical."""
    if mode == "IDENTITY":
        return Back(np.ones(width), np.zeros(width))
    if mode == "MEAN_STD":
        return Back(statistics["std"], statistics["mean"])
    low, span = _range(mode, statistics, eps)
    return Back(span / 2, low + span / 2)


def affine(parts_there: Sequence[There], parts_back: Sequence[Back]) -> Affine:
    """Several features side by side, as Menura's normalizer takes them."""
    return Affine(
        centre=np.concatenate([part.centre for part in parts_there]),
        scale=np.concatenate([part.scale for part in parts_there]),
        base=np.concatenate([part.base for part in parts_there]),
        inverse_scale=np.concatenate([part.scale for part in parts_back]),
        inverse_base=np.concatenate([part.base for part in parts_back]),
    )


def checked(statistics: Mapping[str, Float64], mode: str, width: int, what: str) -> Mapping[str, Float64]:
    """The same; StatisticsError unless those the mode reads are finite and of that width."""
    for name in READS[mode]:
        values = statistics[name]
        if values.shape != (width,):
            raise StatisticsError(f"{what}, {name}: expected {width} numbers, got {values.size}.")
        if not np.isfinite(values).all():
            bad = int(np.flatnonzero(~np.isfinite(values))[0])
            raise StatisticsError(f"{what}, {name}: expected finite numbers, got {values[bad]} in dimension {bad}.")
    return statistics


def _range(mode: str, statistics: Mapping[str, Float64], eps: float) -> tuple[Float64, Float64]:
    low, high = (statistics[name] for name in READS[mode])
    return low, np.where(high == low, eps, high - low)
