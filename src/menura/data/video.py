"""Frames of video files by exact number. Torch-free; PyAV is imported when first needed.

A file is addressed by its table of presentation stamps, never by float seconds: frame k is the k-th picture shown.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import chain, pairwise
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from menura.data.episode import UInt8
from menura.data.rgb import rgb_converter
from menura.data.threads import in_threads
from menura.data.video_index import Run, Version, VideoIndex, open_video, video_index
from menura.errors import DataError

__all__ = ["VideoIndex", "Wanted", "iterate_frames", "read_frames", "read_into", "video_index"]

# Files that stay open in a process: opening takes as long as decoding one to four frames; each holds some pictures.
_OPEN_FILES = 32
# Parts that the frames wanted of a file are divided into for several threads: more than one a thread, to end together.
_PARTS = 8


@dataclass(frozen=True)
class Wanted:
    """Frames of one file, and where they go.

    Attributes:
        path: the file.
        frames: (n,) int64 numbers of the frames, in any order, repeats allowed.
        rows: (n,) int64 the row of each in the result.
    """

    path: Path
    frames: NDArray[np.int64]
    rows: NDArray[np.int64]

    @classmethod
    def joined(cls, parts: Sequence[Wanted]) -> Wanted:
        """One for several of the same file."""
        frames, rows = (np.concatenate([getattr(part, name) for part in parts]) for name in ("frames", "rows"))
        return cls(parts[0].path, frames, rows)


def iterate_frames(path: Path, start: int = 0, stop: int | None = None) -> Iterator[UInt8]:
    """Frames `start … stop - 1` as (H, W, 3) uint8 RGB, decoded one after the other."""
    index = video_index(path)
    frames = np.arange(start, len(index) if stop is None else stop)
    if len(frames):
        _require(path, index, start, int(frames[-1]))
        with _opened(path) as decoder:
            for run in index.runs(frames):
                yield from decoder.run(run, index.pts[run.first + start : run.stop + start].tolist())


def read_frames(path: Path, frames: Sequence[int] | NDArray[np.int64]) -> UInt8:
    """The frames of these numbers, in this order, repeats allowed: (n, H, W, 3) uint8 RGB."""
    index = video_index(path)
    numbers = np.asarray(frames, np.int64)
    decoded = np.empty((len(numbers), index.height, index.width, 3), np.uint8)
    read_into(decoded, [Wanted(path, numbers, np.arange(len(numbers)))])
    return decoded


def read_into(out: UInt8, wanted: Sequence[Wanted], threads: int = 1) -> None:
    """Put frames of several files into the rows of `out` (n, H, W, 3).

    Each frame is decoded once, in its file's order, and nothing is decoded that no wanted frame needs.

    Args:
        out: where they go; H and W must be those of the files.
        wanted: which; each file once is best.
        threads: 1 to decode in this thread alone, more for one a core.

    Raises:
        DataError: a file is absent, damaged, of another size, or holds fewer frames.
    """
    work = [part for each in wanted if len(each.frames) for part in _parts(out, each, threads)]
    in_threads(lambda part: part(), work, threads)


def _parts(out: UInt8, wanted: Wanted, threads: int) -> Iterator[Callable[[], None]]:
    """The work, in parts that different threads may do."""
    index = video_index(wanted.path)
    frames, places = np.unique(wanted.frames, return_inverse=True)
    _require(wanted.path, index, int(frames[0]), int(frames[-1]))
    if (index.height, index.width) != out.shape[1:3]:
        raise DataError(
            f"Video {wanted.path}: expected {out.shape[1]} x {out.shape[2]} pixels, "
            f"got {index.height} x {index.width}. Fetch it again or remove its episodes."
        )
    by_place = np.argsort(places, kind="stable")
    # The rows of each frame: mostly one, more where a frame was asked for more than once.
    bounds = [0, *np.cumsum(np.bincount(places)).tolist()]
    rows = [wanted.rows[by_place[start:stop]].tolist() for start, stop in pairwise(bounds)]
    runs, stamps = index.runs(frames), index.pts[frames].tolist()
    size = -(-len(runs) // (1 if threads == 1 else _PARTS))
    for first in range(0, len(runs), size):
        yield partial(_read_runs, out, wanted.path, runs[first : first + size], stamps, rows)


def _read_runs(out: UInt8, path: Path, runs: Sequence[Run], stamps: list[int], rows: list[list[int]]) -> None:
    with _opened(path) as decoder:
        for run in runs:
            places = range(run.first, run.stop)
            for place, pixels in zip(places, decoder.run(run, stamps[run.first : run.stop]), strict=True):
                for row in rows[place]:
                    out[row] = pixels


def _require(path: Path, index: VideoIndex, first: int, last: int) -> None:
    if first < 0 or last >= len(index):
        raise DataError(f"Video {path}: expected frames 0 … {len(index) - 1}, got {first} … {last}.")


class _Decoder:
    """An open file. One thread at a time may use it."""

    def __init__(self, version: Version) -> None:
        self.version = version
        self._path = version.path
        self._index = video_index(version.path)
        self._container = open_video(version.path)
        self._stream = self._container.streams.video[0]
        self._codec = self._stream.codec_context
        # Files and runs are decoded in parallel; threads inside the codec cost more than they give on small frames.
        self._codec.thread_count = 1
        self._to_rgb = rgb_converter()
        keys = zip(self._index.key_pts.tolist(), self._index.keyframes.tolist(), strict=True)
        self._keyframe_at = dict(keys)

    def run(self, run: Run, stamps: Sequence[int]) -> Iterator[UInt8]:
        """(H, W, 3) uint8 RGB of the frames of a run, shown at these increasing stamps."""
        import av

        wanted = iter(stamps)
        stamp = next(wanted)
        left = len(stamps)
        try:
            for picture in self._pictures(run.start, run.last):
                if picture.pts < stamp:
                    continue
                if picture.pts > stamp:
                    break
                yield self._to_rgb(picture)
                left -= 1
                if not left:
                    return
                stamp = next(wanted)
        except av.FFmpegError as error:
            raise DataError(f"Video {self._path}: damaged ({error}). Fetch it again or remove its episodes.") from error
        frame = int(np.searchsorted(self._index.pts, stamp))
        raise DataError(f"Video {self._path}: frame {frame} cannot be decoded. Fetch it again or remove its episodes.")

    def _pictures(self, start: int, last: int) -> Iterator[Any]:
        """The pictures of packets `start … last`, in the order shown."""
        position, packets = self._seek(start)
        for number, packet in enumerate(packets, position):
            if number < start:
                continue
            yield from self._codec.decode(packet)
            if number == last:
                break
        # A codec holds pictures back until it has seen those that may be shown before them: there are none.
        yield from self._codec.decode(None)

    def _seek(self, start: int) -> tuple[int, Iterator[Any]]:
        """The packets from the keyframe `start` on, or from one a little before: the number of the first, and all."""
        key = int(np.searchsorted(self._index.keyframes, start))
        # Some containers seek by presentation stamps and some by decode stamps.
        for stamp in (self._index.key_pts[key], self._index.key_dts[key], self._index.key_dts[0]):
            self._container.seek(int(stamp), stream=self._stream, backward=True)
            packets = self._container.demux(self._stream)
            for packet in packets:
                found = self._keyframe_at.get(packet.pts) if packet.is_keyframe else None
                if found is not None and found <= start:
                    return found, chain([packet], packets)
                if found is not None or not packet.size:
                    break
        raise DataError(
            f"Video {self._path}: expected to find its keyframe at packet {start}, got past it. Convert it to mp4."
        )


class _OpenFiles:
    """The files used last, kept open for the next use. A decoder in use is not in here."""

    def __init__(self) -> None:
        self._idle: list[_Decoder] = []
        self._lock = Lock()

    def take(self, version: Version) -> _Decoder:
        with self._lock:
            for place, decoder in enumerate(self._idle):
                if decoder.version == version:
                    return self._idle.pop(place)
        return _Decoder(version)

    def put(self, decoder: _Decoder) -> None:
        with self._lock:
            self._idle.append(decoder)
            del self._idle[:-_OPEN_FILES]


_open_files = _OpenFiles()
_inherited: list[_OpenFiles] = []


def _after_fork() -> None:
    """A forked process shares its position in each file with its parent, and another thread may hold the lock."""
    global _open_files
    _inherited.append(_open_files)  # never freed: the parent's threads may have been at work in them
    _open_files = _OpenFiles()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


@contextmanager
def _opened(path: Path) -> Iterator[_Decoder]:
    files = _open_files
    decoder = files.take(Version.of(path))
    try:
        yield decoder
    finally:
        files.put(decoder)
