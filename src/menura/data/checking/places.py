"""Places of one kind of fault, gathered while episodes go by. Torch-free."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable
from typing import Generic, TypeVar

from menura.data.checking.report import Place

Key = TypeVar("Key", bound=Hashable)
# Of one fault in one episode: more do not tell more, and a dataset of noise would fill the memory.
_PER_EPISODE = 20


class Places(Generic[Key]):
    """Key (a dimension, a camera) -> places, at most 20 an episode."""

    def __init__(self) -> None:
        self._of: dict[Key, list[Place]] = defaultdict(list)
        self._counts: dict[tuple[Key, int], int] = defaultdict(int)

    def add(self, key: Key, episode: int, frames: tuple[int, int] | None = None) -> None:
        """Notes a place; (start, stop) are frames `start … stop - 1`."""
        self._counts[key, episode] += 1
        if self._counts[key, episode] <= _PER_EPISODE:
            self._of[key].append(Place(episode, frames))

    def __getitem__(self, key: Key) -> tuple[Place, ...]:
        return tuple(self._of.get(key, ()))

    def items(self) -> list[tuple[Key, tuple[Place, ...]]]:
        """(key, places), in the order in which the keys were first met."""
        return [(key, tuple(places)) for key, places in self._of.items()]

    def episodes(self, key: Key) -> int:
        """In how many episodes it lies."""
        return len({place.episode for place in self[key]})
