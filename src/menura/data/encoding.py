"""Encoding of frames as a video file, one frame after the other. Torch-free."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from menura.data.episode import UInt8
from menura.data.video import video_index
from menura.errors import DataError, did_you_mean

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@dataclass(frozen=True)
class Encoder:
    """Settings of one codec.

    Attributes:
        library: the encoder as FFmpeg calls it.
        name: the codec as datasets call it (`h264`, `av1`).
        pixels: pixel format.
        options: what the encoder is given; `g` is the distance of keyframes, small for random access.
    """

    library: str
    name: str
    pixels: str
    options: Mapping[str, str]


# x264 takes half the time of SVT-AV1 on small pictures, at less error. Without chroma subsampling (4:4:4) small
# coloured things in 84 x 84 pixels keep their colour (worst pixel off by 60 of 255, not 120), at the same file size.
# A 480 x 640 frame takes 6 to 11 ms of one core by veryfast, 2.3 to 3.4 ms by ultrafast, which needs up to twice the
# room for the same error: for a robot whose processor has more to do than to record (benchmarks/recording.py).
# Browsers and most players show 4:2:0 alone, and other programs' h264 is mostly that.
ENCODERS: Mapping[str, Encoder] = MappingProxyType(
    {
        "libx264": Encoder("libx264", "h264", "yuv444p", {"g": "2", "crf": "14", "preset": "veryfast", "bf": "0"}),
        "libx264-ultrafast": Encoder(
            "libx264", "h264", "yuv444p", {"g": "2", "crf": "18", "preset": "ultrafast", "bf": "0"}
        ),
        "libx264-420": Encoder("libx264", "h264", "yuv420p", {"g": "2", "crf": "14", "preset": "veryfast", "bf": "0"}),
        "libsvtav1": Encoder("libsvtav1", "av1", "yuv420p", {"g": "2", "crf": "20", "preset": "10"}),
    }
)


def encoder(codec: str) -> Encoder:
    """The settings of a codec; DataError where it is not one of `ENCODERS`."""
    if codec not in ENCODERS:
        raise DataError(f"codec: expected one of {list(ENCODERS)}, got {codec!r}{did_you_mean(codec, ENCODERS) or '.'}")
    return ENCODERS[codec]


def encoder_like(coding: tuple[str, str]) -> str | None:
    """The first of `ENCODERS` that makes videos of this codec and pixel format; None where none does."""
    return next((name for name, each in ENCODERS.items() if (each.name, each.pixels) == coding), None)


class VideoEncoder:
    """Writes frames (H, W, 3) uint8 RGB as an mp4 at `path`; any suffix will do.

    Raises:
        DataError: an unknown codec, or pictures that it cannot encode.
        OSError: no room on the disk; in `add` and `close` too.
    """

    def __init__(self, path: Path, *, fps: float, height: int, width: int, codec: str) -> None:
        import av
        from av.video.reformatter import VideoReformatter

        settings = encoder(codec)
        os.environ.setdefault("SVT_LOG", "1")  # errors only: SVT-AV1 prints its settings otherwise
        self._path = path
        self._what = f"Encoding {height} x {width} pixels by {codec}"
        self._count = 0
        self._pixels = settings.pixels
        self._convert: Any = VideoReformatter().reformat  # one for all frames, as in menura.data.video
        self._wrap: Any = av.VideoFrame.from_numpy_buffer
        self._container: Any = av.open(str(path), "w", format="mp4")
        with self._explaining():
            stream: Any = self._container.add_stream(
                settings.library, rate=Fraction(fps).limit_denominator(1001), options=dict(settings.options)
            )
            stream.height, stream.width, stream.pix_fmt = height, width, settings.pixels
            stream.codec_context.thread_count = 1
            self._stream = stream

    def __len__(self) -> int:
        """Frames so far."""
        return self._count

    def add(self, frame: UInt8) -> None:
        """The next frame, C-contiguous; it may be changed as soon as this returns."""
        with self._explaining():
            picture = self._convert(self._wrap(frame, format="rgb24"), format=self._pixels)
            self._container.mux(self._stream.encode(picture))
        self._count += 1

    def close(self) -> None:
        """Finishes the file; DataError when it does not hold every frame."""
        with self._explaining():
            self._container.mux(self._stream.encode(None))
            self._container.close()
        written = len(video_index(self._path))
        if written != self._count:
            raise DataError(f"{self._what}: expected {self._count} frames written, got {written}.")

    def abandon(self) -> None:
        """Closes the file, whatever is in it."""
        import av

        with contextlib.suppress(av.FFmpegError):
            self._container.close()

    def _explaining(self) -> contextlib.AbstractContextManager[None]:
        next_step = f"Choose another codec of {list(ENCODERS)}, or video=False."
        return explaining(self._what, self._path.parent, next_step)


@contextlib.contextmanager
def explaining(what: str, directory: Path, next_step: str) -> Iterator[None]:
    """FFmpeg's errors as ours, but those that the system raises for want of room in `directory`."""
    import av

    try:
        yield
    except (av.FFmpegError, ValueError) as error:
        if isinstance(error, OSError) and error.errno in _NO_ROOM:
            raise OSError(error.errno, error.strerror, str(directory)) from error
        raise DataError(f"{what}: {error}. {next_step}") from error


def encode_video(path: Path, frames: Iterable[UInt8], *, fps: float, height: int, width: int, codec: str) -> None:
    """Writes a whole video by `VideoEncoder`."""
    video = VideoEncoder(path, fps=fps, height=height, width=width, codec=codec)
    for frame in frames:
        video.add(np.ascontiguousarray(frame))
    video.close()
