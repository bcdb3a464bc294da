"""Video files by exact frame number. Torch-free; PyAV is imported when first needed.

A file is addressed by its table of presentation stamps, never by float seconds: frame k is the k-th picture shown.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from menura.data.episode import UInt8
from menura.errors import DataError

# Reading on is cheaper than seeking when fewer frames than this lie between (a seek flushes the decoder).
_SEEK_COST = 4


@dataclass(frozen=True)
class VideoIndex:
    """Where each frame of a file is.

    Attributes:
        pts: (N,) int64 presentation stamps, increasing, in units of `time_base` seconds.
        keyframes: (K,) int64 numbers of the frames at which decoding can start, increasing.
        seek_stamps: (K,) int64 decode stamps of those, which seeking goes by.
        time_base: seconds per stamp.
        height, width: pixels.
    """

    pts: NDArray[np.int64]
    keyframes: NDArray[np.int64]
    seek_stamps: NDArray[np.int64]
    time_base: float
    height: int
    width: int

    def __len__(self) -> int:
        return len(self.pts)

    def seconds(self, frame: int) -> float:
        """When the frame is shown, counted from the first one."""
        return float(self.pts[frame] - self.pts[0]) * self.time_base


def video_index(path: Path) -> VideoIndex:
    """The index of a file's first video stream; read once per process and version of the file.

    Raises:
        DataError: the file is absent, damaged, or has no video.
    """
    try:
        stat = path.stat()
    except OSError as error:
        raise DataError(f"Video {path}: expected a file, found none. Fetch it again or remove its episodes.") from error
    return _read_index(path, stat.st_size, stat.st_mtime_ns)


@lru_cache(maxsize=256)
def _read_index(path: Path, _size: int, _mtime_ns: int) -> VideoIndex:
    import av

    with _open(path) as container:
        stream = container.streams.video[0]
        try:
            packets = [(packet.pts, packet.dts, packet.is_keyframe) for packet in container.demux(stream)]
        except av.FFmpegError as error:
            raise DataError(f"Video {path}: damaged ({error}). Fetch it again or remove its episodes.") from error
        stamps = [packet for packet in packets if packet[0] is not None and packet[1] is not None]
        stamps.sort()
        if not stamps:
            raise DataError(f"Video {path}: expected frames, got none. Fetch it again or remove its episodes.")
        pts = np.array([stamp[0] for stamp in stamps], np.int64)
        keyframes = np.array([number for number, stamp in enumerate(stamps) if stamp[2]], np.int64)
        seek_stamps = np.array([stamp[1] for stamp in stamps if stamp[2]], np.int64)
        if not len(keyframes) or keyframes[0] != 0:
            raise DataError(f"Video {path}: expected a keyframe first. Encode it again.")
        return VideoIndex(pts, keyframes, seek_stamps, float(stream.time_base), stream.height, stream.width)


def _open(path: Path) -> Any:
    import av

    try:
        container = av.open(str(path))
    except (av.FFmpegError, OSError) as error:
        raise DataError(f"Video {path}: cannot be opened ({error}). Fetch it again or remove its episodes.") from error
    if not container.streams.video:
        container.close()
        raise DataError(f"Video {path}: expected a video stream, got none. Fetch it again or remove its episodes.")
    return container


def iterate_frames(path: Path, start: int = 0, stop: int | None = None) -> Iterator[UInt8]:
    """Frames `start … stop - 1` as (H, W, 3) uint8 RGB, decoded one after the other."""
    count = len(video_index(path))
    yield from _decode(path, range(start, count if stop is None else stop))


def read_frames(path: Path, frames: Sequence[int] | NDArray[np.int64]) -> UInt8:
    """The frames of these numbers, in this order, repeats allowed: (n, H, W, 3) uint8 RGB.

    Each is decoded once, in the file's order, with a seek only where that saves decoding.
    """
    index = video_index(path)
    wanted, places = np.unique(np.asarray(frames, np.int64), return_inverse=True)
    decoded = np.empty((len(wanted), index.height, index.width, 3), np.uint8)
    for row, frame in enumerate(_decode(path, wanted.tolist())):
        decoded[row] = frame
    return decoded if np.array_equal(places, np.arange(len(wanted))) else decoded[places]


def _decode(path: Path, wanted: Sequence[int]) -> Iterator[UInt8]:
    """Yields the wanted frames; `wanted` increases."""
    if not len(wanted):
        return
    index = video_index(path)
    if wanted[0] < 0 or wanted[-1] >= len(index):
        raise DataError(f"Video {path}: expected frames 0 … {len(index) - 1}, got {wanted[0]} … {wanted[-1]}.")
    with _open(path) as container:
        decoder = _Decoder(path, container, index)
        for number in wanted:
            yield decoder.frame(number)


class _Decoder:
    """Goes through an open file, mostly forwards."""

    def __init__(self, path: Path, container: Any, index: VideoIndex) -> None:
        from av.video.reformatter import VideoReformatter

        self._path = path
        self._container = container
        self._stream = container.streams.video[0]
        # Files are decoded in parallel by processes; threads cost more than they give on small frames.
        self._stream.codec_context.thread_count = 1
        self._index = index
        self._convert: Any = VideoReformatter().reformat  # one for all frames: setting it up takes longer than using it
        self._pictures = container.decode(self._stream)
        self._position = 0  # the frame that comes next

    def frame(self, number: int) -> UInt8:
        """Frame `number` as (H, W, 3) uint8 RGB; it may not lie before `_position`."""
        import av

        key = int(np.searchsorted(self._index.keyframes, number, side="right")) - 1
        if self._index.keyframes[key] - self._position >= _SEEK_COST:
            self._container.seek(int(self._index.seek_stamps[key]), stream=self._stream, backward=True)
            self._pictures = self._container.decode(self._stream)
        try:
            for picture in self._pictures:
                shown = int(np.searchsorted(self._index.pts, picture.pts))
                self._position = shown + 1
                if shown >= number:
                    break
            else:
                shown = -1
        except av.FFmpegError as error:
            raise DataError(f"Video {self._path}: damaged ({error}). Fetch it again or remove its episodes.") from error
        if shown != number:
            raise DataError(
                f"Video {self._path}: frame {number} cannot be decoded. Fetch it again or remove its episodes."
            )
        frame: UInt8 = self._convert(picture, format="rgb24").to_ndarray()
        return frame
