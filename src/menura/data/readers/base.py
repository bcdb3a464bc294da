"""What every reader of a dataset is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from menura.data.episode import Episode, Frames
from menura.features import Features


class Reader:
    """A source of episodes. Nothing is decoded before it is asked for.

    A user's own dataset need not derive from this: any class with `__len__` and `episode(i)` is wrapped by
    `menura.data.open_dataset`.

    Attributes:
        name: what the dataset is called in statistics, mixtures and checkpoints.
        features: what its observations and actions mean.
    """

    name: str
    features: Features

    def __len__(self) -> int:
        """The number of episodes."""
        raise NotImplementedError

    def episode(self, index: int) -> Episode:
        """Episode `index`, 0 ≤ index < len(self); IndexError beyond."""
        raise NotImplementedError

    def require_episode(self, index: int) -> None:
        """IndexError where there is no such episode."""
        if not 0 <= index < len(self):
            raise IndexError(f"{self.name}: expected an episode in 0 … {len(self) - 1}, got {index}.")

    def images(self, index: int) -> Mapping[str, Frames]:
        """The cameras of episode `index`. A reader whose frames are found without the episode's rows says how here."""
        return self.episode(index).images

    def lengths(self) -> NDArray[np.int64]:
        """(E,) the number of frames of each episode, without decoding any."""
        raise NotImplementedError

    def tasks(self) -> list[str]:
        """The instruction of each episode, without decoding any frame."""
        return [self.episode(index).task for index in range(len(self))]

    def shards(self) -> NDArray[np.int64]:
        """(E,) equal numbers for episodes whose frames lie in the same files."""
        return np.arange(len(self))

    def fingerprint(self) -> str:
        """A hex digest that changes when the source's content does."""
        raise NotImplementedError

    def metadata(self, index: int) -> dict[str, Any]:
        """JSON-able facts on one episode beyond its frames (seed, success, …); empty by default."""
        return {}
