"""The frames of a store that are not raw: JPEG pictures, and frames read from the source each time.

Both act like the (N, H, W, 3) uint8 array of a raw store.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import cast

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import get_worker_info

from menura.data.episode import Frames, UInt8
from menura.data.frames import LazyFrames, VideoFrames
from menura.data.pictures import decode_picture
from menura.data.readers.base import Reader
from menura.data.threads import available_cores, in_threads
from menura.data.video import Wanted, iterate_frames, read_into
from menura.errors import DataError
from menura.processing.images import Resize, resize_images

# Frames that are decoded and resized together while a store is built: few enough for memory, enough for speed.
BLOCK = 32
# What is decoded at a time before it is resized, and what is remembered of sources that are not video files.
_BLOCK_BYTES = 256_000_000
_KEPT_BYTES = 512_000_000
_KEPT_EPISODES = 4096


class JpegFrames(LazyFrames):
    """Frames kept as JPEG pictures, one after the other in a file; decoded by a thread a core.

    Args:
        blob: (bytes,) uint8, memory-mapped: every picture.
        offsets: (N + 1,) int64: picture i is `blob[offsets[i] : offsets[i + 1]]`.
        height, width: of every frame.
        source: the file, for messages.
    """

    def __init__(self, blob: UInt8, offsets: NDArray[np.int64], height: int, width: int, source: str) -> None:
        super().__init__(len(offsets) - 1, height, width)
        self._blob = np.asarray(blob)
        self._offsets = np.asarray(offsets)
        self._source = source

    def read(self, numbers: NDArray[np.int64]) -> UInt8:
        frames = np.empty((len(numbers), *self.shape[1:]), np.uint8)
        self.read_into(frames, numbers)
        return frames

    def read_into(self, out: UInt8, numbers: NDArray[np.int64]) -> None:
        def decode(row: int) -> None:
            number = int(numbers[row])
            encoded = self._blob[self._offsets[number] : self._offsets[number + 1]].tobytes()
            out[row] = decode_picture(encoded, f"{self._source}, frame {number}")

        in_threads(decode, range(len(numbers)), reading_threads())


class SourceFrames(LazyFrames):
    """Frames that the reader decodes and `resize_images` shapes whenever they are asked for.

    Frames of video files are found by file and number, each file's in the file's order, straight into their place;
    other sources are asked episode by episode, and those used last stay in memory.

    Args:
        reader: the dataset's.
        camera: which of its cameras.
        starts: (E + 1,) int64: episode e has the frames `starts[e] … starts[e + 1] - 1`.
        size: (height, width) to deliver.
        resize: `stretch` or `pad`; None for frames as they are.
    """

    def __init__(
        self, reader: Reader, camera: str, starts: NDArray[np.int64], size: tuple[int, int], resize: Resize | None
    ) -> None:
        super().__init__(int(starts[-1]), *size)
        self._reader = reader
        self._camera = camera
        self._starts = np.asarray(starts)
        self._resize = resize
        source = reader.features.cameras[camera]
        self._source_shape = (source.height, source.width, 3)
        self._block = max(1, _BLOCK_BYTES // math.prod(self._source_shape))
        self._episodes: OrderedDict[int, Frames] = OrderedDict()

    def read(self, numbers: NDArray[np.int64]) -> UInt8:
        frames = np.empty((len(numbers), *self.shape[1:]), np.uint8)
        self.read_into(frames, numbers)
        return frames

    def read_into(self, out: UInt8, numbers: NDArray[np.int64]) -> None:
        if self._resize is None or self.shape[1:] == self._source_shape:
            self._read_as_they_are(out, numbers)
            return
        wanted, places = np.unique(numbers, return_inverse=True)
        by_place = np.argsort(places, kind="stable")
        bounds = np.searchsorted(places[by_place], np.arange(len(wanted) + 1))
        for first in range(0, len(wanted), self._block):
            last = min(first + self._block, len(wanted))
            block = np.empty((last - first, *self._source_shape), np.uint8)
            self._read_as_they_are(block, wanted[first:last])
            rows = by_place[bounds[first] : bounds[last]]
            out[rows] = resized(block, self.shape[1:3], self._resize)[places[rows] - first]

    def _read_as_they_are(self, out: UInt8, numbers: NDArray[np.int64]) -> None:
        """Frames at the size of the source."""
        episodes = np.searchsorted(self._starts, numbers, side="right") - 1
        in_files: dict[Path, list[Wanted]] = {}
        for episode in np.unique(episodes).tolist():
            rows = np.flatnonzero(episodes == episode)
            local, source = numbers[rows] - self._starts[episode], self._episode(episode)
            if isinstance(source, VideoFrames):
                source.verify()
                in_files.setdefault(source.path, []).append(Wanted(source.path, source.start + local, rows))
            elif source.shape[1:] == self._source_shape:
                out[rows] = source[local]
            else:
                raise DataError(
                    f"Dataset {self._reader.name!r}, episode {episode}, camera {self._camera!r}: expected frames "
                    f"{self._source_shape} as its features say, got {source.shape[1:]}. Fetch it again."
                )
        read_into(out, [Wanted.joined(parts) for parts in in_files.values()], reading_threads())

    def _episode(self, index: int) -> Frames:
        """The frames of an episode; those used last are kept, in bounds of number and memory."""
        if index in self._episodes:
            self._episodes.move_to_end(index)
        else:
            self._episodes[index] = self._reader.images(index)[self._camera]
            while len(self._episodes) > _KEPT_EPISODES or (len(self._episodes) > 1 and self._held() > _KEPT_BYTES):
                self._episodes.popitem(last=False)
        return self._episodes[index]

    def _held(self) -> int:
        return sum(int(getattr(frames, "nbytes", 0)) for frames in self._episodes.values())


def reading_threads() -> int:
    """Threads that decode a batch: one a core, but one in a worker of a DataLoader, which has siblings."""
    return 1 if get_worker_info() is not None else available_cores()


def resized(frames: UInt8, size: Sequence[int], mode: Resize | None) -> UInt8:
    """(n, H, W, 3) uint8 at the size (height, width), or as they are when `mode` is None."""
    if mode is None or tuple(frames.shape[1:3]) == tuple(size):
        return frames
    return resize_images(frames, (size[0], size[1]), mode)


class Passage:
    """Goes through the frames of one camera, episode after episode.

    An episode that goes on in the video file where the one before it ended is decoded on: nothing is decoded twice
    that lies between two keyframes.
    """

    def __init__(self) -> None:
        self._next: tuple[Path, int] | None = None
        self._pictures: Iterator[UInt8] = iter(())

    def through(self, frames: Frames, start: int, stop: int) -> Iterator[UInt8]:
        """Frames `start … stop - 1`, (H, W, 3) uint8 each, decoded once."""
        if not isinstance(frames, VideoFrames):
            yield from _in_order(frames, start, stop)
            return
        frames.verify()
        first, end = frames.start + start, frames.start + stop
        if self._next != (frames.path, first):
            self._pictures = iterate_frames(frames.path, first)
        yield from islice(self._pictures, stop - start)
        self._next = (frames.path, end)


def _in_order(frames: Frames, start: int, stop: int) -> Iterator[UInt8]:
    if (start, stop) == (0, len(frames)):
        yield from cast(Iterable[UInt8], frames)
    else:
        for first in range(start, stop, BLOCK):
            yield from frames[first : min(first + BLOCK, stop)]


def shaped(frames: Iterable[UInt8], size: Sequence[int], mode: Resize | None) -> Iterator[UInt8]:
    """The frames (H, W, 3), each `resized`."""
    if mode is None:
        yield from frames
        return
    iterator = iter(frames)
    while block := list(islice(iterator, BLOCK)):
        if tuple(block[0].shape[:2]) == tuple(size):
            yield from block
        else:
            yield from resized(np.stack(block), size, mode)
