"""Frames that are decoded only when asked for. They act like a (T, H, W, 3) uint8 array."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from menura.data.episode import Frames, UInt8
from menura.data.pictures import decode_picture
from menura.data.video import iterate_frames, read_frames
from menura.errors import DataError

# Frames that are read in one go where each is asked for after the other.
_TOGETHER = 16


class LazyFrames:
    """T frames of (height, width, 3) uint8 RGB. Index them like an array; iterate to hold one at a time in memory."""

    dtype = np.dtype(np.uint8)
    ndim = 4

    def __init__(self, length: int, height: int, width: int) -> None:
        self.shape = (length, height, width, 3)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: Any) -> UInt8:
        numbers: NDArray[np.int64] = np.arange(len(self))[index]
        if numbers.ndim == 0:
            return self.read(numbers[None])[0]  # type: ignore[no-any-return]
        return self.read(numbers)

    def __iter__(self) -> Iterator[UInt8]:
        for number in range(len(self)):
            yield self.read(np.array([number]))[0]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        frames = self[:]
        return frames if dtype is None else frames.astype(dtype, copy=False)

    def read(self, numbers: NDArray[np.int64]) -> UInt8:
        """The frames of these numbers: (n, H, W, 3)."""
        raise NotImplementedError

    def read_into(self, out: UInt8, numbers: NDArray[np.int64]) -> None:
        """Put the frames of these numbers into `out` (n, H, W, 3), which may be part of a larger array."""
        out[:] = self.read(numbers)

    @property
    def are_pictures(self) -> bool:
        """Whether they are kept as single encoded pictures (PNG, JPEG, …)."""
        return False

    @property
    def nbytes(self) -> int:
        """What these frames hold in memory now, for whoever keeps many of them."""
        return 0


class VideoFrames(LazyFrames):
    """Frames `start … start + length - 1` of a video file.

    Args:
        path: the file.
        start: number of the first frame in the file.
        length: how many.
        height, width: what the file must hold; DataError on first use when it does not.
        check: called before the first decoding; raises DataError when the file contradicts its dataset.
    """

    def __init__(
        self, path: Path, start: int, length: int, height: int, width: int, check: Callable[[], None] | None = None
    ) -> None:
        super().__init__(length, height, width)
        self._path = path
        self.start = start
        self._check = check

    @property
    def path(self) -> Path:
        """The file."""
        return self._path

    def read(self, numbers: NDArray[np.int64]) -> UInt8:
        self.verify()
        return read_frames(self.path, self.start + numbers)

    def __iter__(self) -> Iterator[UInt8]:
        self.verify()
        return iterate_frames(self.path, self.start, self.start + len(self))

    def part(self, start: int, stop: int) -> VideoFrames:
        """Frames `start … stop - 1` of these."""
        return VideoFrames(self.path, self.start + start, stop - start, *self.shape[1:3], self.verify)

    def verify(self) -> None:
        """Compare the file with what its dataset says of it, once; DataError where the two contradict each other."""
        if self._check is not None:
            self._check()
            self._check = None


class PickedFrames(LazyFrames):
    """Some frames of others, in any order, still decoded only when asked for.

    Args:
        frames: (T, H, W, 3) uint8.
        numbers: (n,) which of them.
    """

    def __init__(self, frames: Frames, numbers: NDArray[np.int64]) -> None:
        super().__init__(len(numbers), frames.shape[1], frames.shape[2])
        self._frames = frames
        self._numbers = numbers

    @property
    def are_pictures(self) -> bool:
        return isinstance(self._frames, LazyFrames) and self._frames.are_pictures

    def read(self, numbers: NDArray[np.int64]) -> UInt8:
        wanted, where = np.unique(self._numbers[numbers], return_inverse=True)
        return np.asarray(self._frames[wanted])[where]

    def __iter__(self) -> Iterator[UInt8]:
        for first in range(0, len(self), _TOGETHER):  # so that a video is not searched for every single one
            yield from self.read(np.arange(first, min(first + _TOGETHER, len(self))))


def part(frames: Frames, start: int, stop: int) -> Frames:
    """Frames `start … stop - 1`; those of a video stay frames of a video."""
    if isinstance(frames, VideoFrames):
        return frames.part(start, stop)
    return PickedFrames(frames, np.arange(start, stop))


class ImageFrames(LazyFrames):
    """Frames stored one by one as encoded pictures (PNG, JPEG, …).

    Args:
        load: gives the encoded bytes of all frames, in order; called when the first frame is asked for.
        source: where they lie, for messages.
    """

    def __init__(self, load: Callable[[], Sequence[bytes]], length: int, height: int, width: int, source: str) -> None:
        super().__init__(length, height, width)
        self._load = load
        self._encoded: Sequence[bytes] | None = None
        self._nbytes = 0
        self._source = source

    def read(self, numbers: NDArray[np.int64]) -> UInt8:
        if self._encoded is None:
            self._encoded = self._load()
            self._nbytes = sum(map(len, self._encoded))
        frames = np.empty((len(numbers), *self.shape[1:]), np.uint8)
        for row, number in enumerate(numbers):
            frame = decode_picture(self._encoded[number], f"{self._source}, frame {number}")
            if frame.shape != self.shape[1:]:
                raise DataError(
                    f"{self._source}, frame {number}: expected shape {self.shape[1:]} as declared, got {frame.shape}."
                )
            frames[row] = frame
        return frames

    @property
    def are_pictures(self) -> bool:
        return True

    @property
    def nbytes(self) -> int:
        return self._nbytes
