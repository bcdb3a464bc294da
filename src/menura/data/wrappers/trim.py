"""Episodes without their first or last frames."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from menura.data.episode import Episode
from menura.data.frames import part
from menura.data.motion import Motion
from menura.data.readers.base import Reader
from menura.data.wrappers.base import Wrapper
from menura.errors import DataError

Int64 = NDArray[np.int64]


class Trim(Wrapper):
    """Frames cut off the beginnings and the ends of episodes.

    Args:
        reader: what is wrapped.
        start, stop: so many frames off the beginning and the end, ≥ 0.
        idle: cut off, before that, what lies before the first and after the last movement (`menura.data.motion`).

    Raises:
        DataError: nothing would be left of an episode.
    """

    def __init__(self, reader: Reader, start: int = 0, stop: int = 0, idle: bool = False) -> None:
        super().__init__(reader)
        if start < 0 or stop < 0:
            raise DataError(f"Trim: expected start and stop ≥ 0, got {start} and {stop}.")
        lengths = np.asarray(reader.lengths())
        self._first, self._last = np.zeros_like(lengths), lengths.copy()  # (E,), half open
        if idle:
            motion = Motion.of(reader)
            for index in range(len(reader)):
                self._first[index], self._last[index] = motion.span(reader.episode(index))
        self._first += start
        self._last -= stop
        for index in np.flatnonzero(self._last <= self._first)[:1]:
            raise DataError(
                f"Trim: episode {index} of {reader.name!r}: expected frames to be left of its {lengths[index]}, got "
                "none. Cut off less, or leave the episode out."
            )

    def lengths(self) -> Int64:
        lengths: Int64 = self._last - self._first
        return lengths

    def tasks(self) -> list[str]:
        return self.reader.tasks()

    def episode(self, index: int) -> Episode:
        episode = self.reader.episode(index)
        first, last = int(self._first[index]), int(self._last[index])
        times = np.asarray(episode.timestamps)
        return replace(
            episode,
            state=episode.state[first:last],
            action=episode.action[first:last],
            images={camera: part(frames, first, last) for camera, frames in episode.images.items()},
            timestamps=times[first:last] - times[first],
        )
