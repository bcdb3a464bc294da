"""The episodes that are looked at, kept open: one reader for all threads of the server. Torch-free."""

from __future__ import annotations

from collections import OrderedDict
from contextlib import AbstractContextManager, nullcontext
from threading import RLock

import numpy as np

from menura.data.episode import Episode, Frames, UInt8
from menura.data.frames import LazyFrames, VideoFrames
from menura.data.readers.base import Reader
from menura.errors import DataError

_KEPT = 8


class Episodes:
    """Episodes by number, the last eight kept. A reader is asked by one thread at a time."""

    def __init__(self, reader: Reader) -> None:
        self.reader = reader
        self.lock = RLock()
        self._kept: OrderedDict[int, Episode] = OrderedDict()

    def __getitem__(self, index: int) -> Episode:
        with self.lock:
            episode = self._kept.pop(index, None)
            if episode is None:
                episode = self.reader.episode(index)
            self._kept[index] = episode
            while len(self._kept) > _KEPT:
                self._kept.popitem(last=False)
            return episode

    def frames(self, index: int, camera: str, start: int, stop: int) -> list[UInt8]:
        """Frames `start … stop - 1` of a camera, each (H, W, 3) uint8."""
        images = self[index].images
        if camera not in images:
            raise DataError(f"Episode {index}: expected a camera {camera!r} as the dataset says, got {list(images)}.")
        frames = images[camera]
        with self._guard(frames):
            if isinstance(frames, (LazyFrames, np.ndarray)):
                return list(frames[start:stop])
            return [np.asarray(frames[number]) for number in range(start, stop)]

    def _guard(self, frames: Frames) -> AbstractContextManager[object]:
        """Videos are decoded by any number of threads; of others nothing is known."""
        return nullcontext() if isinstance(frames, VideoFrames) else self.lock
