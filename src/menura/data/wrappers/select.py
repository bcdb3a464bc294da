"""Some of the episodes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from menura.data.episode import Episode
from menura.data.readers.base import Reader
from menura.data.wrappers.base import Wrapper
from menura.errors import DataError


class Select(Wrapper):
    """Some of a dataset's episodes, in the order given.

    Args:
        reader: what is wrapped.
        episodes: their numbers.

    Raises:
        DataError: none, or a number that the dataset does not have.
    """

    def __init__(self, reader: Reader, episodes: Sequence[int] | NDArray[np.int64]) -> None:
        super().__init__(reader)
        self.episodes = np.asarray(episodes, np.int64).reshape(-1)
        outside = self.episodes[(self.episodes < 0) | (self.episodes >= len(reader))]
        if not len(self.episodes) or len(outside):
            got = outside.tolist() or "none"
            raise DataError(f"Episodes of {reader.name!r}: expected some of 0 … {len(reader) - 1}, got {got}.")

    def __len__(self) -> int:
        return len(self.episodes)

    def episode(self, index: int) -> Episode:
        return self.reader.episode(self._inner(index))

    def lengths(self) -> NDArray[np.int64]:
        return self.reader.lengths()[self.episodes]

    def shards(self) -> NDArray[np.int64]:
        return self.reader.shards()[self.episodes]

    def tasks(self) -> list[str]:
        tasks = self.reader.tasks()
        return [tasks[index] for index in self.episodes.tolist()]

    def metadata(self, index: int) -> dict[str, Any]:
        return self.reader.metadata(self._inner(index))

    def _inner(self, index: int) -> int:
        self.require_episode(index)
        return int(self.episodes[index])
