"""Normalizing vectors by the statistics of the dataset they came from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from menura.errors import FeatureMismatch, StatisticsError, did_you_mean

Kind = Literal["zscore", "minmax", "percentile", "identity", "affine"]
KINDS: tuple[Kind, ...] = ("zscore", "minmax", "percentile", "identity")  # those a task may choose
FIELDS = ("mean", "std", "min", "max", "q01", "q99")
AFFINE_FIELDS = ("centre", "scale", "base", "inverse_scale", "inverse_base")
# A dimension that moves less than this, relative to its magnitude (or absolutely, below magnitude 1: a micrometre, a
# microradian), is noise of the recording. Dividing by it would blow that noise up to the size of a signal.
CONSTANT = 1e-6

Float64 = NDArray[np.float64]


class StatisticsLike(Protocol):
    """What `menura.data.statistics.Statistics` offers: one number per dimension, (D,)."""

    @property
    def mean(self) -> Float64: ...
    @property
    def std(self) -> Float64: ...
    @property
    def min(self) -> Float64: ...
    @property
    def max(self) -> Float64: ...
    @property
    def q01(self) -> Float64: ...
    @property
    def q99(self) -> Float64: ...


@dataclass(frozen=True)
class Rows:
    """Statistics read back from a file: each (D,) float64."""

    mean: Float64
    std: Float64
    min: Float64
    max: Float64
    q01: Float64
    q99: Float64


@dataclass(frozen=True)
class Affine:
    """Numbers of another program, whose own rules (an epsilon, its constants) made them: each (D,) float64.

    `(x - centre) * scale + base` is normalized, `y * inverse_scale + inverse_base` physical again.
    """

    centre: Float64
    scale: Float64
    base: Float64
    inverse_scale: Float64
    inverse_base: Float64


class Normalizer:
    """One vector feature; several datasets: row k of each statistic belongs to dataset k.

    `zscore`: mean 0, deviation 1. `minmax`: the least and greatest value become -1 and 1. `percentile`: the 1 % and
    99 % quantiles become -1 and 1, and what lies beyond is not clipped; a dimension whose two quantiles coincide though
    it varies (a gripper that seldom moves) takes its least and greatest value instead. `identity`: unchanged.
    `affine`: by the numbers of another program, as they are (`Affine`); none of what follows is said of them.

    A dimension that is constant in the data becomes 0, and comes back as that constant whatever the model answers: it
    carries nothing to learn from, and nothing was learnt about it. A masked dimension (mask False) passes unchanged.
    Everything else comes back as it was: `unnormalize(normalize(x)) == x` up to float32 rounding.

    Args:
        kind: one of `KINDS`.
        statistics: of one dataset, or of each dataset in order; of `affine`, `Affine` each.
        feature: what is normalized (`state`, `action`), for messages.
        mask: (D,) True where a dimension is normalized; all, when None.

    Raises:
        StatisticsError: a statistic is missing, of the wrong width, not finite, or contradicts itself.
    """

    def __init__(
        self,
        kind: Kind,
        statistics: StatisticsLike | Affine | Sequence[StatisticsLike | Affine],
        *,
        feature: str,
        mask: Sequence[bool] | None = None,
    ) -> None:
        if kind not in KINDS and kind != "affine":
            raise StatisticsError(
                f"{feature}: expected a normalization of {', '.join(KINDS)}, got {kind!r}"
                f"{did_you_mean(kind, KINDS) or '.'}"
            )
        rows: list[StatisticsLike | Affine] = list(statistics) if isinstance(statistics, Sequence) else [statistics]
        self.kind = kind
        self.feature = feature
        self.tables = _tables(rows, feature, fields_of(kind))
        self.dim = self._any_table.shape[1]
        self.mask = None if mask is None else tuple(bool(value) for value in mask)
        if self.mask is not None and len(self.mask) != self.dim:
            raise StatisticsError(f"{feature} mask: expected {self.dim} values, got {len(self.mask)}.")
        # (2, K, D): factor and addend of each direction, so that either is one multiply-add.
        self._forward, self._backward = (torch.from_numpy(table.astype(np.float32)) for table in self._affine())
        # (1, K, D), taken off first: beside a scale of 1e8, which others give constants, x * scale would lose it all.
        self._centre = torch.from_numpy(self._centres().astype(np.float32)) if kind == "affine" else None

    @property
    def datasets(self) -> int:
        """K, the number of datasets."""
        return len(self._any_table)

    @property
    def _any_table(self) -> Float64:
        return next(iter(self.tables.values()))

    def normalize(self, x: torch.Tensor, dataset_id: torch.Tensor | int = 0) -> torch.Tensor:
        """(B, ..., D) float32 in physical units -> the same shape, normalized.

        `dataset_id`: of all rows, or (B,) int64 one per row.
        """
        self._check_width(x)
        if self._centre is not None:
            x = x - self._rows(self._centre, x, dataset_id)[0]
        return self._apply(self._forward, x, dataset_id)

    def unnormalize(self, x: torch.Tensor, dataset_id: torch.Tensor | int = 0) -> torch.Tensor:
        """(B, ..., D) float32, normalized -> the same shape in physical units."""
        self._check_width(x)
        return self._apply(self._backward, x, dataset_id)

    def affine(self, dataset_id: int = 0) -> Affine:
        """What is computed for one dataset, as plain numbers, whatever the kind."""
        forward, backward = self._affine()
        centre = self._centres()[0] if self.kind == "affine" else np.zeros_like(forward[0])
        return Affine(*(table[dataset_id] for table in (centre, *forward, *backward)))

    def to(self, device: torch.device | str) -> Normalizer:
        """Move the tables to where the data is."""
        self._forward, self._backward = self._forward.to(device), self._backward.to(device)
        self._centre = None if self._centre is None else self._centre.to(device)
        return self

    def _check_width(self, x: torch.Tensor) -> None:
        if x.shape[-1] != self.dim:
            raise FeatureMismatch(f"{self.feature}: expected width {self.dim}, got {x.shape[-1]}.")

    def _apply(self, table: torch.Tensor, x: torch.Tensor, dataset_id: torch.Tensor | int) -> torch.Tensor:
        factor, addend = self._rows(table, x, dataset_id)
        return torch.addcmul(addend, x, factor)

    def _rows(self, table: torch.Tensor, x: torch.Tensor, dataset_id: torch.Tensor | int) -> tuple[torch.Tensor, ...]:
        """What of (n, K, D) holds for the rows of `x` (B, ..., D): n tensors (D,) or (B, 1 …, D)."""
        if isinstance(dataset_id, int):
            return table[:, dataset_id].unbind()
        if self.datasets == 1:
            return table[:, 0].unbind()
        rows = table[:, dataset_id]  # (n, B, D)
        return rows.reshape(len(table), rows.shape[1], *(1,) * (x.dim() - 2), self.dim).unbind()

    def _centres(self) -> Float64:
        """(1, K, D) of `affine`: nothing is taken off a masked dimension."""
        centres = self.tables["centre"].copy()
        if self.mask is not None:
            centres[:, ~np.array(self.mask)] = 0.0
        stacked: Float64 = centres[None]
        return stacked

    def _affine(self) -> tuple[Float64, Float64]:
        """(2, K, D) of normalize and of unnormalize: factor and addend."""
        tables = self.tables
        if self.kind == "identity":
            one, zero = np.ones_like(tables["mean"]), np.zeros_like(tables["mean"])
            return np.stack([one, zero]), np.stack([one, zero])
        if self.kind == "affine":
            given = np.stack([tables["scale"], tables["base"]])
            return self._masked(given, np.stack([tables["inverse_scale"], tables["inverse_base"]]))
        if self.kind == "zscore":
            centre, spread = tables["mean"], tables["std"]
        else:
            low, high = tables["min"], tables["max"]
            if self.kind == "percentile":
                quantiles_differ = ~_is_constant(tables["q99"] - tables["q01"], tables)
                low = np.where(quantiles_differ, tables["q01"], low)
                high = np.where(quantiles_differ, tables["q99"], high)
            centre, spread = (low + high) / 2, (high - low) / 2
        constant = _is_constant(spread, tables)
        factor = np.where(constant, 0.0, 1 / np.where(constant, 1.0, spread))
        forward = np.stack([factor, -centre * factor])
        return self._masked(forward, np.stack([np.where(constant, 0.0, spread), centre]))

    def _masked(self, forward: Float64, backward: Float64) -> tuple[Float64, Float64]:
        """Masked dimensions pass unchanged."""
        if self.mask is not None:
            untouched = ~np.array(self.mask)
            for table in (forward, backward):
                table[0][:, untouched], table[1][:, untouched] = 1.0, 0.0
        return forward, backward


def _is_constant(spread: Float64, tables: dict[str, Float64]) -> NDArray[np.bool_]:
    magnitude = np.maximum(np.abs(tables["min"]), np.abs(tables["max"]))
    result: NDArray[np.bool_] = spread <= CONSTANT * np.maximum(1.0, magnitude)
    return result


def fields_of(kind: Kind) -> tuple[str, ...]:
    """The tables that a kind of normalization keeps, one row a dataset."""
    return AFFINE_FIELDS if kind == "affine" else FIELDS


def _tables(rows: list[StatisticsLike | Affine], feature: str, fields: tuple[str, ...]) -> dict[str, Float64]:
    """Each statistic as (K, D) float64, checked."""
    if not rows:
        raise StatisticsError(f"{feature} statistics: expected those of at least one dataset, got none.")
    width: int | None = None
    tables: dict[str, list[Float64]] = {name: [] for name in fields}
    for index, row in enumerate(rows):
        for name in fields:
            where = f"{feature} statistics of dataset {index}, {name}"
            value = getattr(row, name, None)
            if value is None:
                raise StatisticsError(f"{where}: expected one number per dimension, got nothing.")
            array = np.asarray(value, dtype=np.float64)
            width = array.size if width is None else width
            if array.shape != (width,):
                raise StatisticsError(f"{where}: expected shape ({width},), got {array.shape}.")
            if not np.isfinite(array).all():
                bad = int(np.flatnonzero(~np.isfinite(array))[0])
                raise StatisticsError(f"{where}: expected finite numbers, got {array[bad]} in dimension {bad}.")
            tables[name].append(array)
    stacked = {name: np.stack(arrays) for name, arrays in tables.items()}
    if fields == AFFINE_FIELDS:
        return stacked
    for name, wrong in (
        ("std >= 0", stacked["std"] < 0),
        ("min <= max", stacked["min"] > stacked["max"]),
        ("q01 <= q99", stacked["q01"] > stacked["q99"]),
    ):
        if wrong.any():
            dataset, dimension = (int(value) for value in np.argwhere(wrong)[0])
            raise StatisticsError(
                f"{feature} statistics of dataset {dataset}: expected {name}, not so in dimension {dimension}."
            )
    return stacked
