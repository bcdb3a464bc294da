"""Videos one after the other in one file, without encoding anything again. Torch-free."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from menura.data.video_index import VideoIndex, open_video, video_index
from menura.errors import DataError

_TIME_TOLERANCE = 1e-3  # of a frame


def coding(path: Path) -> tuple[str, str]:
    """The codec (`h264`, `av1`) and the pixel format of a video."""
    with open_video(path) as container:
        context: Any = container.streams.video[0].codec_context
        return context.codec.canonical_name, context.pix_fmt


def obstacle(path: Path, start: int, length: int, fps: float) -> str | None:
    """What keeps frames `start … start + length - 1` from being copied as packets: `expected …, got …`; or None.

    They must be there, at `fps`, begin with a keyframe and need no packet but their own.
    """
    index = video_index(path)
    if start + length > len(index):
        return f"expected them, got a file of {len(index)} frames. Fetch the dataset again."
    again = "Encode it again by `menura data convert`."
    if index.starts[start] != index.packets[start]:
        return f"expected a keyframe first, got none. {again}"
    if not index.stands_alone(start, start + length):
        return f"expected frames that need no others, got some that do. {again}"
    tick = _tick(index, fps)
    regular = np.arange(length) * tick + index.pts[start]
    close = tick >= 1 and abs(tick * index.time_base * fps - 1) * length <= 0.5
    if not close or (index.pts[start : start + length] != regular).any():
        return f"expected one frame each 1/{fps:g} s, got other times. {again}"
    return None


def _tick(index: VideoIndex, fps: float) -> int:
    """The stamps from one frame to the next."""
    return round(1 / fps / index.time_base)


class JoinedVideo:
    """An mp4 made of parts of other files by copying their packets. Every part begins with a keyframe.

    Args:
        path: the new file.
        fps: frames per second, of the parts and of the whole.

    Attributes:
        frames: how many it holds.
        nbytes: their size.
    """

    def __init__(self, path: Path, fps: float) -> None:
        import av

        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self.frames = 0
        self.nbytes = 0
        self._fps = fps
        # The index goes to the front of the file, so that it can be played while it is fetched.
        self._container: Any = av.open(str(path), "w", format="mp4", options={"movflags": "+faststart"})
        self._stream: Any = None
        self._begins: list[int] = []
        self._header: bytes | None = None
        self._time_base: Any = None

    def continues(self, source: Path) -> bool:
        """Whether `source` was encoded as what is here was, so that one decoder reads both."""
        import av

        with av.open(str(source)) as container:
            stream: Any = container.streams.video[0]
            return self._stream is None or (stream.codec_context.extradata, stream.time_base) == (
                self._header,
                self._time_base,
            )

    def append(self, source: Path, start: int, length: int) -> None:
        """Adds frames `start … start + length - 1` of `source`, which this file must continue.

        Raises:
            DataError: a damaged file, or an `obstacle`.
        """
        import av

        what = f"{source}: frames {start} … {start + length - 1}"
        problem = obstacle(source, start, length, self._fps)
        if problem is not None:
            raise DataError(f"{what}: {problem}")
        index = video_index(source)
        tick, stamps = _tick(index, self._fps), index.pts[start : start + length]
        shift = self.frames * tick - int(stamps[0])
        copied = 0
        with av.open(str(source)) as container:
            stream: Any = container.streams.video[0]
            if self._stream is None:
                self._stream = self._container.add_stream_from_template(stream, opaque=True)
                self._header, self._time_base = stream.codec_context.extradata, stream.time_base
            container.seek(int(stamps[0]), stream=stream, backward=True)
            for packet in container.demux(stream):
                if packet.pts is None or not stamps[0] <= packet.pts <= stamps[-1]:
                    if copied == length:
                        break
                    continue
                packet.pts, packet.dts, packet.duration = packet.pts + shift, packet.dts + shift, tick
                packet.stream = self._stream
                self.nbytes += packet.size
                self._container.mux(packet)
                copied += 1
        if copied != length:
            raise DataError(f"{what}: expected {length} packets, got {copied}. Fetch the dataset again.")
        self._begins.append(self.frames)
        self.frames += length

    def close(self) -> None:
        """Finishes the file; DataError when it does not hold every frame at its time."""
        self._container.close()
        index = video_index(self.path)
        last = index.seconds(len(index) - 1) * self._fps
        missing = set(self._begins) - set(index.keyframes.tolist())
        if len(index) != self.frames or missing or abs(last - (self.frames - 1)) > _TIME_TOLERANCE * self.frames:
            raise DataError(
                f"{self.path}: expected {self.frames} frames at {self._fps:g} a second, got {len(index)} and the last "
                f"at frame {last:.3f}. Encode the dataset again by `menura data convert`."
            )
