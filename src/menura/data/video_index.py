"""Where each frame of a video file is: integers, read from its packets without decoding. Torch-free."""

from __future__ import annotations

import hashlib
import io
import os
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, fields
from pathlib import Path
from threading import Lock
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from menura.data.cache import cache_root
from menura.errors import DataError
from menura.files import write_bytes

Int64 = NDArray[np.int64]

# Indices are remembered up to this many frames, of all files together: about 150 MB.
_REMEMBERED_FRAMES = 4_000_000
# From so many packets on, an index is kept on the disk too: reading every packet of a large file takes long.
_KEPT_PACKETS = 2000
_VERSION = 1


class Run(NamedTuple):
    """Frames that are decoded in one go: places `first … stop - 1` of a list, from packets `start … last`."""

    first: int
    stop: int
    start: int
    last: int


@dataclass(frozen=True)
class VideoIndex:
    """Where each frame of a file is. Frame k is the k-th picture shown; packets are counted as they lie in the file.

    Attributes:
        pts: (N,) int64 presentation stamps, increasing, in units of `time_base` seconds.
        packets: (N,) int64 the packet that holds each frame: packets up to this one decode it.
        starts: (N,) int64 the packet, a keyframe's, at which decoding has to start for each frame.
        keyframes: (K,) int64 the packets at which decoding can start, increasing.
        key_pts, key_dts: (K,) int64 presentation and decode stamps of those.
        time_base: seconds per stamp.
        height, width: pixels.
    """

    pts: Int64
    packets: Int64
    starts: Int64
    keyframes: Int64
    key_pts: Int64
    key_dts: Int64
    time_base: float
    height: int
    width: int

    def __len__(self) -> int:
        return len(self.pts)

    def seconds(self, frame: int) -> float:
        """When the frame is shown, counted from the first one."""
        return float(self.pts[frame] - self.pts[0]) * self.time_base

    def stands_alone(self, start: int, stop: int) -> bool:
        """Whether frames `start … stop - 1`, one or more, can be cut out: the packets from a keyframe on, no other."""
        packets = self.packets[start:stop]
        together = int(packets.max() - packets.min()) + 1 == stop - start
        return together and self.starts[start] == packets.min() and int(self.starts[start:stop].min()) == packets.min()

    def runs(self, frames: Int64) -> list[Run]:
        """How the increasing `frames`, one or more, are decoded: a run ends where a seek spares work."""
        starts, ends = self.starts[frames], np.maximum.accumulate(self.packets[frames])
        firsts = np.flatnonzero(np.concatenate([[True], starts[1:] > ends[:-1] + 1]))
        stops = np.append(firsts[1:], len(frames))
        columns = (firsts, stops, starts[firsts], ends[stops - 1])
        return [Run(*run) for run in zip(*(column.tolist() for column in columns), strict=True)]


@dataclass(frozen=True)
class Version:
    """One version of a file's content."""

    path: Path
    size: int
    mtime_ns: int

    @classmethod
    def of(cls, path: Path) -> Version:
        """Of a video that must be there."""
        try:
            stat = path.stat()
        except OSError as error:
            raise DataError(
                f"Video {path}: expected a file, found none. Fetch it again or remove its episodes."
            ) from error
        return cls(path, stat.st_size, stat.st_mtime_ns)


def video_index(path: Path) -> VideoIndex:
    """The index of a file's first video stream, read once per process and version of the file.

    That of a large file is also kept in the cache directory.

    Raises:
        DataError: the file is absent, damaged, has no video, or shows other frames than its header counts.
    """
    return _remembered.get(Version.of(path), _kept_or_read)


class _Remembered:
    """The indices used last."""

    def __init__(self) -> None:
        self._indices: OrderedDict[Version, VideoIndex] = OrderedDict()
        self._frames = 0
        self.lock = Lock()

    def get(self, version: Version, read: Callable[[Version], VideoIndex]) -> VideoIndex:
        with self.lock:
            if version in self._indices:
                self._indices.move_to_end(version)
                return self._indices[version]
        index = read(version)
        with self.lock:
            if version not in self._indices:
                self._indices[version] = index
                self._frames += len(index)
            while self._frames > _REMEMBERED_FRAMES and len(self._indices) > 1:
                self._frames -= len(self._indices.popitem(last=False)[1])
        return index


_remembered = _Remembered()


def _after_fork() -> None:
    """Another thread may have held the lock when this process was forked, and is not here to release it."""
    _remembered.lock = Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def _kept_or_read(version: Version) -> VideoIndex:
    path = _kept_path(version)
    try:
        with np.load(path, allow_pickle=False) as kept:
            tables: dict[str, Any] = {key: kept[key] for key in kept.files}
        scalars = {"time_base": float, "height": int, "width": int}
        return VideoIndex(**{key: scalars[key](value) if key in scalars else value for key, value in tables.items()})
    except (OSError, EOFError, ValueError, TypeError, zipfile.BadZipFile):
        pass  # not there yet, or not to be trusted: the file itself says
    index, packets = _read(version.path)
    if packets >= _KEPT_PACKETS:
        content = io.BytesIO()
        np.savez(content, **{field.name: getattr(index, field.name) for field in fields(index)})
        with suppress(OSError):  # no room or no right to write: nothing is lost but time
            write_bytes(path, content.getvalue())
    return index


def _kept_path(version: Version) -> Path:
    key = f"{_VERSION}\0{version.path.resolve()}\0{version.size}\0{version.mtime_ns}"
    return cache_root() / "video_index" / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.npz"


def open_video(path: Path) -> Any:
    """PyAV's container of a file with a video stream; DataError where it is none."""
    import av

    try:
        container = av.open(str(path))
    except (av.FFmpegError, OSError) as error:
        raise DataError(f"Video {path}: cannot be opened ({error}). Fetch it again or remove its episodes.") from error
    if not container.streams.video:
        container.close()
        raise DataError(f"Video {path}: expected a video stream, got none. Fetch it again or remove its episodes.")
    return container


def _read(path: Path) -> tuple[VideoIndex, int]:
    """The index, and how many packets were read for it."""
    import av

    with open_video(path) as container:
        stream = container.streams.video[0]
        try:
            # The last one is empty: it only says that the file ends.
            packets = [
                # Matroska has no decode stamps for the first ones.
                (
                    packet.pts,
                    packet.pts if packet.dts is None else packet.dts,
                    packet.is_keyframe,
                    packet.is_discard,
                    packet.is_corrupt,
                )
                for packet in container.demux(stream)
                if packet.size
            ]
        except av.FFmpegError as error:
            raise DataError(f"Video {path}: damaged ({error}). Fetch it again or remove its episodes.") from error
        _check(path, packets, stream.frames)
        index = _index(path, packets, float(stream.time_base), stream.height, stream.width)
        return index, len(packets)


def _check(path: Path, packets: list[tuple[Any, ...]], counted: int) -> None:
    """`counted` is the number of frames the file's header tells; 0 where it tells none."""
    if not packets:
        raise DataError(f"Video {path}: expected frames, got none. Fetch it again or remove its episodes.")
    if any(packet[4] for packet in packets) or counted > len(packets):
        whole = sum(not packet[4] for packet in packets)
        raise DataError(
            f"Video {path}: expected {max(counted, len(packets))} frames as its header says, got {whole}; it is cut "
            "off. Fetch it again or remove its episodes."
        )
    if any(packet[0] is None for packet in packets):
        raise DataError(
            f"Video {path}: expected a time stamp on every frame, got some without. Convert it to mp4 (ffmpeg -i)."
        )


def _index(path: Path, packets: list[tuple[Any, ...]], time_base: float, height: int, width: int) -> VideoIndex:
    stamps = np.array([packet[:4] for packet in packets], np.int64)  # (M, 4): pts, dts, keyframe, discard
    keyframes = np.flatnonzero(stamps[:, 2])
    key_pts = stamps[keyframes, 0]
    order = np.argsort(stamps[:, 0], kind="stable")
    shown = order[stamps[order, 3] == 0]  # an edit list may leave some out
    pts = stamps[shown, 0]
    # A picture refers to nothing before the last keyframe shown before it: those that are sent after a keyframe but
    # shown before it (an open group of pictures) may refer to the group before.
    by_pts = np.argsort(key_pts, kind="stable")
    place = np.searchsorted(key_pts[by_pts], pts, side="right") - 1
    if not len(shown) or not len(keyframes) or place[0] < 0:
        raise DataError(f"Video {path}: expected a keyframe first. Encode it again.")
    if (np.diff(pts) <= 0).any():
        raise DataError(f"Video {path}: expected one frame at a time, got equal time stamps. Encode it again.")
    return VideoIndex(
        pts=pts,
        packets=shown,
        starts=keyframes[by_pts][place],
        keyframes=keyframes,
        key_pts=key_pts,
        key_dts=stamps[keyframes, 1],
        time_base=time_base,
        height=height,
        width=width,
    )
