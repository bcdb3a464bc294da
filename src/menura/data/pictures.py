"""Single pictures as bytes: PNG written and PNG and JPEG read, by PyAV's codecs. Torch-free."""

from __future__ import annotations

from fractions import Fraction
from threading import local
from typing import Any

import numpy as np

from menura.data.episode import UInt8
from menura.data.rgb import rgb_converter
from menura.errors import DataError

_CODECS = {b"\x89PNG": "png", b"\xff\xd8\xff": "mjpeg"}


def encode_png(frame: UInt8) -> bytes:
    """The PNG of a (H, W, 3) uint8 RGB frame, lossless."""
    import av

    codec = av.CodecContext.create("png", "w")
    codec.height, codec.width = frame.shape[:2]
    codec.pix_fmt = "rgb24"
    codec.time_base = Fraction(1)
    codec.options = {"compression_level": "1"}
    picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
    return b"".join(bytes(packet) for packet in codec.encode(picture))


def decode_picture(encoded: bytes, what: str) -> UInt8:
    """(H, W, 3) uint8 RGB of a PNG or a JPEG; `what` names it in messages."""
    import av

    name = next((codec for magic, codec in _CODECS.items() if encoded[: len(magic)] == magic), None)
    if name is None:
        raise DataError(f"{what}: expected a PNG or a JPEG, got bytes that begin with {encoded[:4]!r}.")
    decoder = _decoder(name)
    try:
        pictures = decoder.codec.decode(av.Packet(encoded))
    except av.FFmpegError as error:
        raise DataError(f"{what}: damaged ({error}). Fetch the file again or remove its episode.") from error
    if not pictures:
        raise DataError(f"{what}: damaged (no picture in it). Fetch the file again or remove its episode.")
    return decoder.to_rgb(pictures[0])


class _Decoder:
    """A codec with the conversion to RGB."""

    def __init__(self, name: str) -> None:
        import av

        self.codec: Any = av.CodecContext.create(name, "r")
        self.codec.thread_count = 1
        # Half a JPEG is an error, not a picture whose other half is grey.
        self.codec.options = {"err_detect": "explode"}
        self.to_rgb = rgb_converter()


class _Kept(local):
    """The JPEG decoder of each thread: setting one up takes longer than decoding a picture."""

    jpeg: _Decoder | None = None


_kept = _Kept()


def _decoder(name: str) -> _Decoder:
    if name != "mjpeg":
        return _Decoder(name)  # FFmpeg's PNG decoder takes a second picture for the next one of an animation
    if _kept.jpeg is None:
        _kept.jpeg = _Decoder(name)
    return _kept.jpeg
