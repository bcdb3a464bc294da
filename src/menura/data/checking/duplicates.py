"""Episodes that are in the dataset twice. Torch-free."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable
from itertools import pairwise

import numpy as np

from menura.data.checking.remedies import delete
from menura.data.checking.report import Finding, Place
from menura.data.checking.tables import FEATURES, Context, Tables
from menura.data.statistics import Float64

#: An episode's shape is what it is like at so many moments, from start to end.
MOMENTS = 16
#: Alike when nowhere farther apart than this share of each dimension's range: people repeat themselves to a few
#: percent, a copy that was coded again to a thousandth.
ALIKE = 0.002


class Duplicates:
    """Equal to the last bit, or so alike that one is a copy of the other."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._exact: dict[bytes, list[int]] = defaultdict(list)
        self._shapes: list[Float64] = []
        self._lengths: list[int] = []
        self._indices: list[int] = []

    def see(self, tables: Tables) -> None:
        digest = hashlib.sha1(usedforsecurity=False)
        for feature in FEATURES:
            digest.update(np.ascontiguousarray(tables.table(feature)).data)
        self._exact[digest.digest()].append(tables.index)
        if len(self._exact[digest.digest()]) == 1:
            self._shapes.append(self._shape(tables))
            self._lengths.append(len(tables))
            self._indices.append(tables.index)

    def _shape(self, tables: Tables) -> Float64:
        """(MOMENTS · (D + A),) values at evenly spaced moments, in shares of the ranges."""
        moments = np.linspace(0, len(tables) - 1, MOMENTS).round().astype(int)
        parts = []
        for feature in FEATURES:
            scale = self._context.scales[feature]
            width = np.where(scale.range > 0, scale.range, 1.0)
            parts.append((tables.table(feature)[moments] / width).reshape(-1))
        return np.concatenate(parts)

    def findings(self) -> Iterable[Finding]:
        equal = [group for group in self._exact.values() if len(group) > 1]
        if equal:
            yield _twice(equal, "equal to the last bit in state and action", 1.0)
        alike = self._alike()
        if alike:
            yield _twice(alike, f"the same within {ALIKE:.1%} of the ranges", 0.8)

    def _alike(self) -> list[list[int]]:
        """Groups of episodes that are nearly equal: only those of nearly one length and sum can be."""
        if len(self._shapes) < 2:
            return []
        shapes, lengths = np.stack(self._shapes).astype(np.float32), np.array(self._lengths)
        order = np.lexsort((shapes.mean(axis=1), lengths))
        groups: list[list[int]] = []
        for one, other in pairwise(order):
            if lengths[one] != lengths[other] or np.abs(shapes[one] - shapes[other]).max(initial=0) > ALIKE:
                continue
            first, second = self._indices[one], self._indices[other]
            if groups and first in groups[-1]:
                groups[-1].append(second)
            else:
                groups.append([first, second])
        return groups


def _twice(groups: list[list[int]], message: str, confidence: float) -> Finding:
    """The first of each group is the original."""
    copies = tuple(Place(index) for index in sorted(index for group in groups for index in sorted(group)[1:]))
    told = "; ".join(" = ".join(map(str, sorted(group))) for group in groups[:5]) + (" …" if len(groups) > 5 else "")
    return Finding(
        "duplicate",
        "warning",
        f"{message}: episodes {told}",
        f"One of each is enough, and a copy must not be held out for validation: {delete(copies)}",
        confidence,
        copies,
    )
