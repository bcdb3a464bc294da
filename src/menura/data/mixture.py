"""Several datasets as one, each with its share of the samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Dataset

from menura.data.permutation import permute
from menura.data.statistics import Statistics
from menura.data.windows import Batch, Windows
from menura.errors import DataError, FeatureMismatch
from menura.features import Features

Int64 = NDArray[np.int64]


class Mixture(Dataset[Batch]):
    """A map-style dataset that draws from several `Windows`; items say by `dataset_id` which part they come from.

    An epoch has as many draws as the parts have items together. Each part gets its share of them, to the nearest
    draw. A part is drawn without replacement: all its items in a random order, and when they are through, again in
    another. Index n is draw n of an endless sequence, a pure function of the seed: an `EpochSampler` gives the indices
    `epoch * len(self) …`, so that what one epoch left out comes in the next. (A plain sampler repeats epoch 0's draws.)

    Args:
        parts: windows that deliver equal shapes and have different names.
        weights: the share of each part, in any unit; None for shares as the sizes are, each item once an epoch.
        seed: of the draws.
    """

    def __init__(self, parts: Sequence[Windows], weights: Sequence[float] | None = None, seed: int = 0) -> None:
        self.parts = list(parts)
        self.seed = seed
        if not self.parts:
            raise DataError("Mixture.parts: expected one or more windows, got none.")
        require_different_names([part.name for part in self.parts])
        for part in self.parts[1:]:
            _require_equal_shapes(self.parts[0], part)
        sizes = np.array([len(part) for part in self.parts], np.float64)
        checked = sizes if weights is None else _weights(weights, self.parts)
        self._draws = _divide(int(sizes.sum()), checked, self.parts)
        self._ends: Int64 = np.cumsum(self._draws)

    @property
    def features(self) -> Features:
        """Of the first part; the others deliver equal shapes."""
        return self.parts[0].features

    @property
    def fps(self) -> float:
        return self.features.fps

    @property
    def shares(self) -> list[float]:
        """The part of an epoch that each dataset gets; their sum is 1."""
        return [float(share) for share in self._draws / len(self)]

    def statistics(self) -> dict[str, dict[str, Statistics]]:
        """Each part's own statistics, by its name, in the order of `dataset_id`."""
        return {part.name: part.statistics() for part in self.parts}

    def __len__(self) -> int:
        """Draws of an epoch."""
        return int(self._ends[-1])

    def __getitem__(self, index: int) -> Batch:
        number, item = self.draw([index])
        return {**self.parts[number[0]][int(item[0])], "dataset_id": number[0]}

    def __getitems__(self, indices: Sequence[int] | Int64) -> Batch:
        """The draws at `indices` (≥ 0, beyond `len(self)` in later epochs) as one batch, B first."""
        numbers, items = self.draw(indices)
        places = {number: np.flatnonzero(numbers == number) for number in np.unique(numbers).tolist()}
        batches = {number: self.parts[number].__getitems__(items[at]) for number, at in places.items()}
        batch = _merge([(places[number], batches[number]) for number in places], len(numbers))
        batch["dataset_id"] = numbers
        return batch

    def draw(self, indices: Sequence[int] | Int64) -> tuple[Int64, Int64]:
        """(B,) the part and (B,) the item in it of each draw."""
        draws = np.asarray(indices, np.int64)
        if len(draws) and draws.min() < 0:
            raise IndexError(f"Mixture: expected indices ≥ 0, got {int(draws.min())}.")
        epochs, places = np.divmod(draws, len(self))
        numbers = self._ends.searchsorted(places, side="right")
        # The how-manieth draw of its part, over all epochs.
        of_part = epochs * self._draws[numbers] + places - (self._ends - self._draws)[numbers]
        sizes = np.array([len(part) for part in self.parts])
        passes, positions = np.divmod(of_part, sizes[numbers])
        items = np.empty_like(draws)
        for number, turn in sorted(set(zip(numbers.tolist(), passes.tolist(), strict=True))):
            chosen = (numbers == number) & (passes == turn)
            items[chosen] = permute(positions[chosen], int(sizes[number]), (self.seed, number, turn))
        return numbers, items


def _weights(weights: Sequence[float], parts: Sequence[Windows]) -> NDArray[np.float64]:
    values = np.asarray(weights, np.float64)
    if values.shape != (len(parts),) or not np.isfinite(values).all() or (values <= 0).any():
        raise DataError(f"Mixture.weights: expected {len(parts)} numbers > 0, one a part, got {list(weights)}.")
    return values


def _divide(total: int, weights: NDArray[np.float64], parts: Sequence[Windows]) -> Int64:
    """`total` draws in proportion to the weights, by largest remainders."""
    exact = weights / weights.sum() * total
    draws: Int64 = np.floor(exact).astype(np.int64)
    by_remainder = np.argsort(draws - exact, kind="stable")
    draws[by_remainder[: total - int(draws.sum())]] += 1
    for part, count, share in zip(parts, draws, exact / total, strict=True):
        if count == 0:
            raise DataError(
                f"Mixture.weights: expected a share of {part.name!r} that gives it one of {total} draws, "
                f"got {share:.2g}. Raise its weight or leave it out."
            )
    return draws


def require_different_names(names: Sequence[str]) -> None:
    """DataError: two parts of a mixture have one name."""
    for name in names:
        if names.count(name) > 1:
            raise DataError(f"Mixture: expected a name for each part, got {name!r} twice. Set `name` of the datasets.")


def _require_equal_shapes(first: Windows, other: Windows) -> None:
    for what, mine in first.shapes().items():
        theirs = other.shapes()[what]
        if mine != theirs:
            raise FeatureMismatch(
                f"Mixture: expected {what} {mine} of part {other.name!r} as of {first.name!r}, got {theirs}. "
                "Choose the same cameras, image size and offsets, or leave the part out."
            )


def _merge(pieces: Sequence[tuple[Int64, Mapping[str, Any]]], size: int) -> Batch:
    """One batch of `size` rows from batches and the places their rows go to."""
    if len(pieces) == 1:  # in order, for places are sorted
        return dict(pieces[0][1])
    merged: Batch = {}
    for key, value in pieces[0][1].items():
        if isinstance(value, Mapping):
            merged[key] = _merge([(places, batch[key]) for places, batch in pieces], size)
        elif isinstance(value, np.ndarray):
            merged[key] = np.empty((size, *value.shape[1:]), value.dtype)
            for places, batch in pieces:
                merged[key][places] = batch[key]
        else:
            merged[key] = [None] * size
            for places, batch in pieces:
                for place, text in zip(places.tolist(), batch[key], strict=True):
                    merged[key][place] = text
    return merged
