"""Several datasets of one kind, one after the other."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from menura.data.episode import Episode
from menura.data.readers.base import Reader
from menura.errors import DataError, FeatureMismatch


class Concatenation(Reader):
    """The episodes of several readers, in order, as one dataset.

    What one of them does not say (units, control space, …) is taken from the first that does not contradict.

    Args:
        readers: one or more; their widths, names, cameras, sizes and rates must be equal.
        name: what to call it; their names joined by `+` when not given.

    Raises:
        FeatureMismatch: they mean different things.
    """

    def __init__(self, readers: Sequence[Reader], *, name: str | None = None) -> None:
        if not readers:
            raise DataError("Concatenation: expected one or more datasets, got none.")
        self.readers = list(readers)
        self.name = name or "+".join(reader.name for reader in self.readers)
        for reader in self.readers[1:]:
            _require_same(self.readers[0], reader)
        self.features = replace(
            self.readers[0].features, language=any(reader.features.language for reader in self.readers)
        )
        self._ends = np.cumsum([len(reader) for reader in self.readers])

    def __len__(self) -> int:
        return int(self._ends[-1])

    def episode(self, index: int) -> Episode:
        reader, inner = self._place(index)
        return reader.episode(inner)

    def lengths(self) -> NDArray[np.int64]:
        return np.concatenate([reader.lengths() for reader in self.readers])

    def fingerprint(self) -> str:
        return hashlib.sha256("\n".join(reader.fingerprint() for reader in self.readers).encode()).hexdigest()

    def metadata(self, index: int) -> dict[str, Any]:
        reader, inner = self._place(index)
        return reader.metadata(inner)

    def _place(self, index: int) -> tuple[Reader, int]:
        self.require_episode(index)
        number = int(np.searchsorted(self._ends, index, side="right"))
        return self.readers[number], index - (int(self._ends[number - 1]) if number else 0)


def _require_same(first: Reader, other: Reader) -> None:
    mine, theirs = first.features, other.features
    differences = mine.differences(theirs)
    for what, here, there in (
        ("state width", mine.state_dim, theirs.state_dim),
        ("action width", mine.action_dim, theirs.action_dim),
        ("cameras", _sizes(first), _sizes(other)),
    ):
        if here != there:
            differences.append(f"{what}: {here} here, {there} there")
    if differences:
        raise FeatureMismatch(
            f"Datasets {first.name!r} and {other.name!r}: expected them to be of one kind, got "
            f"{'; '.join(differences)}. Rename, resample or choose cameras first, or train on both as a mixture."
        )


def _sizes(reader: Reader) -> dict[str, tuple[int, int]]:
    return {name: (camera.height, camera.width) for name, camera in sorted(reader.features.cameras.items())}
