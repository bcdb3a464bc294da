"""JPEG and PNG out of messages: looked through before a decoder sees them, for they come from anyone. Torch-free.

A picture's header is believed only after its whole structure was walked: what is truncated, has a second header, or
holds more than a picture is refused, and only a picture of allowed size is decoded.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from menura.data.pictures import decode_picture
from menura.errors import DataError
from menura.serving.engine.errors import RequestRefused

_PNG = b"\x89PNG\r\n\x1a\n"
_JPEG = b"\xff\xd8\xff"
_HEADER_BYTES = 13  # of a PNG's IHDR
# What a PNG's pixels are made of. Texts and profiles are left out: they may be compressed without bound.
_PIXEL_CHUNKS = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND")
# Frame headers (ITU T.81, table B.1): C0 to CF without DHT, JPG and DAC.
_FRAME_MARKERS = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_SCAN, _END, _START = 0xDA, 0xD9, 0xD8
# In the entropy-coded data of a scan 0xFF stands before 0 (stuffed) or a restart marker; anything else ends the scan.
_AFTER_SCAN = re.compile(rb"\xff+[^\x00\xff\xd0-\xd7]")
# A scan costs as much as the whole picture, however short it is. Progressive pictures have about ten.
_MOST_SCANS = 32
# Segments or chunks: a PNG of 8 million pixels has a few thousand.
_MOST_PARTS = 10_000


def read_picture(key: str, encoded: bytes, check_size: Callable[[int, int], None]) -> NDArray[np.uint8]:
    """(H, W, 3) uint8 RGB of a JPEG or a PNG.

    Args:
        key: names it in messages.
        check_size: given height and width before anything is decoded; raises where they are refused.

    Raises:
        RequestRefused: it is neither, truncated or otherwise damaged.
    """
    size, encoded = _looked_through(key, encoded)
    check_size(*size)
    try:
        picture = decode_picture(encoded, key)
    except (DataError, ValueError) as error:
        raise RequestRefused(f"{key}: expected a whole JPEG or PNG, got one that cannot be decoded.") from error
    if picture.shape != (*size, 3):
        raise RequestRefused(f"{key}: expected {size} as its header says, got {picture.shape[:2]}.")
    return picture


def _looked_through(key: str, encoded: bytes) -> tuple[tuple[int, int], bytes]:
    """The size that the header says, and what the decoder is to see."""
    if encoded.startswith(_PNG):
        walk = _walk_png
    elif encoded.startswith(_JPEG):
        walk = _walk_jpeg
    else:
        raise RequestRefused(f"{key}: expected a JPEG or a PNG, got {len(encoded)} bytes that begin {encoded[:4]!r}.")
    try:
        size, whole = walk(encoded)
    except (struct.error, IndexError):
        raise RequestRefused(f"{key}: expected a whole picture, got a truncated one of {len(encoded)} bytes.") from None
    except ValueError as error:
        raise RequestRefused(f"{key}: expected one whole picture, got one with {error}.") from None
    return size, whole


def _walk_png(encoded: bytes) -> tuple[tuple[int, int], bytes]:
    size = (0, 0)
    kept = [_PNG]
    at = len(_PNG)
    for _ in range(_MOST_PARTS):
        length, kind = struct.unpack_from(">I4s", encoded, at)
        end = at + 12 + length
        (checksum,) = struct.unpack_from(">I", encoded, end - 4)
        if (kind == b"IHDR") != (at == len(_PNG)):
            raise ValueError("headers where none belong")
        if kind == b"IHDR":
            if length != _HEADER_BYTES:
                raise ValueError("a damaged header")
            width, height = struct.unpack_from(">II", encoded, at + 8)
            size = (height, width)
        if kind in _PIXEL_CHUNKS:
            if zlib.crc32(encoded[at + 4 : end - 4]) != checksum:
                raise ValueError(f"a damaged {kind.decode()} chunk")
            kept.append(encoded[at:end])
        if kind == b"IEND":
            return size, b"".join(kept)
        at = end
    raise ValueError(f"more than {_MOST_PARTS} chunks")


def _walk_jpeg(encoded: bytes) -> tuple[tuple[int, int], bytes]:
    size: tuple[int, int] | None = None
    scans = 0
    at = 2
    for _ in range(_MOST_PARTS):
        if encoded[at] != 0xFF:
            raise ValueError("a damaged segment")
        while (marker := encoded[at + 1]) == 0xFF:  # fill bytes
            at += 1
        if marker == _END:
            if size is None or not scans:
                raise ValueError("no pixels")
            return size, encoded[: at + 2]
        if marker == _START:
            raise ValueError("another one inside")
        (length,) = struct.unpack_from(">H", encoded, at + 2)
        if marker in _FRAME_MARKERS:
            if size is not None:
                raise ValueError("two headers")
            size = struct.unpack_from(">HH", encoded, at + 5)
        at += 2 + length
        if marker == _SCAN:
            scans += 1
            if scans > _MOST_SCANS:
                raise ValueError(f"more than {_MOST_SCANS} scans")
            found = _AFTER_SCAN.search(encoded, at)
            if found is None:
                raise IndexError
            at = found.start()
    raise ValueError(f"more than {_MOST_PARTS} segments")
