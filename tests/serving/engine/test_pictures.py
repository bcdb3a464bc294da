"""JPEG and PNG from anyone: whole ones are read, all else is refused before it costs anything."""

from __future__ import annotations

import struct
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from menura.data.pictures import decode_picture, encode_jpeg, encode_png
from menura.serving.engine import pictures
from menura.serving.engine.errors import RequestRefused

PICTURE = np.kron(np.random.default_rng(0).integers(0, 256, (6, 8, 3)), np.ones((8, 8, 1))).astype(np.uint8)
ENCODED = {"jpeg": encode_jpeg(PICTURE), "png": encode_png(PICTURE)}


def read_picture(key: str, encoded: bytes) -> np.ndarray:
    """Of at most 2 ** 20 pixels."""

    def check(height: int, width: int) -> None:
        if not 0 < height * width <= 1 << 20:
            raise RequestRefused(f"{key}: expected fewer pixels, got {height} x {width}")

    return pictures.read_picture(key, encoded, check)


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_of(width: int, height: int, *more: bytes, pixels: bytes = b"") -> bytes:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(more) + chunk(b"IDAT", zlib.compress(pixels)) + chunk(b"IEND", b"")


@pytest.mark.parametrize("kind", ENCODED)
def test_whole_pictures_are_read_as_everywhere(kind: str) -> None:
    encoded = ENCODED[kind]
    np.testing.assert_array_equal(read_picture("top", encoded), decode_picture(encoded, "top"))
    np.testing.assert_array_equal(read_picture("top", encoded + b"more"), decode_picture(encoded, "top"))


@pytest.mark.parametrize("kind", ENCODED)
@pytest.mark.parametrize("share", [0.02, 0.3, 0.7, 0.99])
def test_truncated_pictures_are_refused(kind: str, share: float) -> None:
    encoded = ENCODED[kind]
    with pytest.raises(RequestRefused, match="top: expected"):
        read_picture("top", encoded[: int(len(encoded) * share)])


@pytest.mark.parametrize("encoded", [b"", b"GIF89a", b"\x89PNG", b"\xff\xd8\xff", b"\xff\xd8\xff\xd9"])
def test_what_is_no_picture(encoded: bytes) -> None:
    with pytest.raises(RequestRefused, match="top: expected"):
        read_picture("top", encoded)


def test_bombs_are_refused_by_their_header() -> None:
    with pytest.raises(RequestRefused, match="fewer pixels, got 60000 x 60000"):
        read_picture("top", png_of(60000, 60000))
    jpeg = ENCODED["jpeg"]
    at = jpeg.index(b"\xff\xc0") + 5
    with pytest.raises(RequestRefused, match="fewer pixels, got 65535 x 65535"):
        read_picture("top", jpeg[:at] + b"\xff\xff\xff\xff" + jpeg[at + 4 :])
    with pytest.raises(RequestRefused, match="0 x 64"):
        read_picture("top", jpeg[:at] + b"\x00\x00" + jpeg[at + 2 :])


def test_a_second_header_is_refused() -> None:
    """A decoder may believe it instead of the first."""
    jpeg = ENCODED["jpeg"]
    start = jpeg.index(b"\xff\xc0")
    (length,) = struct.unpack_from(">H", jpeg, start + 2)
    header = jpeg[start : start + 2 + length]
    with pytest.raises(RequestRefused, match="two headers"):
        read_picture("top", jpeg[:start] + header + jpeg[start:])
    with pytest.raises(RequestRefused, match="another one inside"):
        read_picture("top", jpeg[:2] + jpeg)
    png = ENCODED["png"]
    with pytest.raises(RequestRefused, match="headers where none belong"):
        read_picture("top", png[:33] + png[8:33] + png[33:])


def test_a_text_that_inflates_without_end_is_not_looked_at() -> None:
    text = chunk(b"zTXt", b"a\x00\x00" + zlib.compress(b"\x00" * (1 << 24)))
    row = b"\x00" + bytes(range(12))
    picture = read_picture("top", png_of(4, 2, text, pixels=row * 2))
    np.testing.assert_array_equal(picture, np.arange(12, dtype=np.uint8).reshape(1, 4, 3).repeat(2, axis=0))


def test_scans_without_end_are_refused() -> None:
    jpeg = ENCODED["jpeg"]
    start = jpeg.index(b"\xff\xda")
    with pytest.raises(RequestRefused, match="more than 32 scans"):
        read_picture("top", jpeg[:-2] + jpeg[start:-2] * 40 + jpeg[-2:])


@given(st.data())
def test_any_damage_is_decoded_or_refused(data: st.DataObject) -> None:
    encoded = bytearray(ENCODED[data.draw(st.sampled_from(sorted(ENCODED)))])
    for _ in range(data.draw(st.integers(1, 4))):
        encoded[data.draw(st.integers(0, len(encoded) - 1))] = data.draw(st.integers(0, 255))
    del encoded[data.draw(st.integers(0, len(encoded))) :]
    try:
        assert read_picture("top", bytes(encoded)).shape[2] == 3
    except RequestRefused as error:
        assert str(error).startswith("top: expected")  # noqa: PT017  (either is right)


def test_parts_without_end_are_refused() -> None:
    with pytest.raises(RequestRefused, match="more than 10000 chunks"):
        read_picture("top", png_of(4, 4, *[chunk(b"tEXt", b"")] * 10_001))
    jpeg = ENCODED["jpeg"]
    with pytest.raises(RequestRefused, match="more than 10000 segments"):
        read_picture("top", jpeg[:2] + b"\xff\xfe\x00\x02" * 10_001 + jpeg[2:])
