"""Single pictures as bytes, PNG and JPEG, by PyAV's codecs. Torch-free."""

from __future__ import annotations

from fractions import Fraction
from threading import local
from typing import Any

import numpy as np

from menura.data.episode import UInt8
from menura.data.rgb import converter, rgb_converter
from menura.errors import DataError

# FFmpeg's scale for MJPEG, 1 (best) to 31.
_JPEG_QUANTIZER = 1
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


def encode_jpeg(frame: UInt8) -> bytes:
    """The JPEG of a (H, W, 3) uint8 RGB frame, colours at full resolution, of what is mostly called quality 95."""
    height, width = frame.shape[:2]
    if _kept.jpeg_encoder is None or _kept.jpeg_encoder.size != (height, width):
        _kept.jpeg_encoder = _JpegEncoder(height, width)
    return _kept.jpeg_encoder.encode(frame)


class _JpegEncoder:
    """A codec that encodes one picture of a size after the other."""

    def __init__(self, height: int, width: int) -> None:
        import av

        self.size = (height, width)
        self._codec: Any = av.CodecContext.create("mjpeg", "w")
        self._codec.height, self._codec.width = height, width
        self._codec.pix_fmt = "yuvj444p"
        self._codec.time_base = Fraction(1)
        self._codec.qmin = self._codec.qmax = _JPEG_QUANTIZER
        self._codec.thread_count = 1
        self._convert = converter("yuvj444p")
        self._count = 0

    def encode(self, frame: UInt8) -> bytes:
        import av

        picture = self._convert(av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24"))
        picture.pts = self._count
        self._count += 1
        return b"".join(bytes(packet) for packet in self._codec.encode(picture))


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
    """The JPEG codecs of each thread: setting one up takes longer than decoding a picture."""

    jpeg: _Decoder | None = None
    jpeg_encoder: _JpegEncoder | None = None


_kept = _Kept()


def _decoder(name: str) -> _Decoder:
    if name != "mjpeg":
        return _Decoder(name)  # FFmpeg's PNG decoder takes a second picture for the next one of an animation
    if _kept.jpeg is None:
        _kept.jpeg = _Decoder(name)
    return _kept.jpeg
