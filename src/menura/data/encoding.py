"""Encoding of frames as a video file. Torch-free."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from menura.data.episode import UInt8
from menura.data.video import video_index
from menura.errors import DataError, did_you_mean


@dataclass(frozen=True)
class Encoder:
    """Settings of one codec.

    Attributes:
        name: the codec as datasets call it (`h264`, `av1`).
        pixels: pixel format.
        options: what the encoder is given; `g` is the distance of keyframes, small for random access.
    """

    name: str
    pixels: str
    options: Mapping[str, str]


# x264 takes half the time of SVT-AV1 on small pictures, at less error. Without chroma subsampling (4:4:4) small
# coloured things in 84 x 84 pixels keep their colour (worst pixel off by 60 of 255, not 120), at the same file size.
ENCODERS: Mapping[str, Encoder] = MappingProxyType(
    {
        "libx264": Encoder("h264", "yuv444p", {"g": "2", "crf": "14", "preset": "veryfast", "bf": "0"}),
        "libsvtav1": Encoder("av1", "yuv420p", {"g": "2", "crf": "20", "preset": "10"}),
    }
)


def encoder(codec: str) -> Encoder:
    """The settings of a codec; DataError where it is not one of `ENCODERS`."""
    if codec not in ENCODERS:
        raise DataError(f"codec: expected one of {list(ENCODERS)}, got {codec!r}{did_you_mean(codec, ENCODERS) or '.'}")
    return ENCODERS[codec]


def encode_video(path: Path, frames: Iterable[UInt8], *, fps: float, height: int, width: int, codec: str) -> None:
    """Writes frames (H, W, 3) uint8 RGB as an mp4 at `path`; any suffix will do.

    Raises:
        DataError: an unknown codec, one this PyAV lacks, or a file that does not hold every frame.
    """
    import av

    settings = encoder(codec)
    count = 0
    try:
        with av.open(str(path), "w", format="mp4") as container:
            stream: Any = container.add_stream(
                codec, rate=Fraction(fps).limit_denominator(1001), options=dict(settings.options)
            )
            stream.height, stream.width, stream.pix_fmt = height, width, settings.pixels
            stream.codec_context.thread_count = 1
            for frame in frames:
                picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
                container.mux(stream.encode(picture))
                count += 1
            container.mux(stream.encode(None))
    except (av.FFmpegError, ValueError) as error:
        raise DataError(
            f"Encoding {height} x {width} pixels by {codec}: {error}. "
            f"Choose another codec of {list(ENCODERS)}, or video=False."
        ) from error
    written = len(video_index(path))
    if written != count:
        raise DataError(f"Encoding by {codec}: expected {count} frames written, got {written}. Choose another codec.")
