"""Frames survive the wire, and nothing but plain data is ever built from bytes."""

from __future__ import annotations

import contextlib
from typing import Any

import msgpack
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from menura.serving.codec import CodecError, pack, unpack

DTYPES = st.sampled_from(
    ["u1", "i8", "<f4", "<f8", "?", ">f4", ">i2", "<f2", "u8", "<U3", "|S4", "<M8[ns]", "<m8[us]", "<M8[D]"]
)
NAMES = st.text(max_size=8)
PLAIN = st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False) | NAMES
ARRAYS = hnp.arrays(dtype=DTYPES.map(np.dtype), shape=hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4))
MESSAGES = st.recursive(
    PLAIN | st.binary(max_size=8) | ARRAYS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES | st.binary(max_size=4), inner, max_size=3),
    max_leaves=8,
)


def same(one: Any, other: Any) -> bool:
    """Equal values of equal types and dtypes, NaN too."""
    if isinstance(one, np.ndarray):
        parts = (other.dtype, other.shape, other.tobytes()) if isinstance(other, np.ndarray) else None
        return (one.dtype, one.shape, one.tobytes()) == parts
    if isinstance(one, dict):
        return isinstance(other, dict) and list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return isinstance(other, list) and len(one) == len(other) and all(map(same, one, other))
    return type(one) is type(other) and one == other


@given(MESSAGES)
def test_messages_come_back_equal(message: Any) -> None:
    assert same(message, unpack(pack(message)))


@given(ARRAYS, st.sampled_from(["C", "F", "strided", "reversed"]))
def test_arrays_come_back_however_they_lie_in_memory(array: np.ndarray, lies: str) -> None:
    if lies == "F":
        array = np.asfortranarray(array)
    elif lies == "strided" and array.ndim:
        array = np.repeat(array, 2, axis=-1)[..., ::2]
    elif lies == "reversed":
        array = array.T
    back = unpack(pack(array))
    assert same(np.ascontiguousarray(array).reshape(array.shape), back)
    assert not back.flags.writeable


@given(st.dictionaries(NAMES, ARRAYS | PLAIN.filter(lambda value: value is not None), max_size=3))
def test_openpi_s_own_codec_reads_and_writes_the_same(message: dict[str, Any]) -> None:
    theirs = pytest.importorskip("openpi_client.msgpack_numpy")
    assert same(message, theirs.unpackb(pack(message)))
    assert same(message, unpack(theirs.packb(message)))


@pytest.mark.parametrize("scalar", [np.float32(1.5), np.uint8(7), np.int64(-3), np.bool_(True), np.float16(0.5)])
def test_openpi_s_scalars(scalar: np.generic) -> None:
    theirs = pytest.importorskip("openpi_client.msgpack_numpy")
    for back in (unpack(theirs.packb(scalar)), theirs.unpackb(pack(scalar)), unpack(pack(scalar))):
        assert type(back) is type(scalar)
        assert back == scalar


def test_the_wire_is_openpi_s() -> None:
    raw = msgpack.unpackb(pack(np.arange(3, dtype=np.float32)))
    assert raw == {
        b"__ndarray__": True,
        b"data": np.arange(3, dtype=np.float32).tobytes(),
        b"dtype": "<f4",
        b"shape": [3],
    }


def test_text_keys_are_read_too() -> None:
    raw = {"__ndarray__": True, "data": np.ones(2, np.float32).tobytes(), "dtype": "<f4", "shape": [2]}
    np.testing.assert_array_equal(unpack(msgpack.packb(raw)), np.ones(2, np.float32))


def test_scalars() -> None:
    assert unpack(pack({"x": np.float32(1.5)}))["x"] == np.float32(1.5)


@pytest.mark.parametrize("value", [np.array([object()]), np.array([1j]), {"x": object()}])
def test_what_cannot_be_sent(value: object) -> None:
    with pytest.raises(CodecError, match="packing a frame"):
        pack(value)


@pytest.mark.parametrize(
    "raw",
    [
        {b"__ndarray__": True, b"data": b"1234", b"dtype": "|O", b"shape": [1]},
        {b"__ndarray__": True, b"data": b"1234", b"dtype": "<f4", b"shape": [2]},
        {b"__ndarray__": True, b"data": b"1234", b"dtype": "<f4", b"shape": [-1]},
        {b"__ndarray__": True, b"data": b"1234", b"dtype": "nonsense", b"shape": [1]},
        {b"__ndarray__": True, b"data": b"1234", b"dtype": "f4,,", b"shape": [1]},
        {b"__ndarray__": True, b"data": b"1234", b"dtype": "(1,2)f4", b"shape": [1]},
        {b"__ndarray__": True, b"dtype": "<f4", b"shape": [1]},
        {b"__ndarray__": True, b"data": b"12345678", b"shape": [1]},
        {b"__ndarray__": True, b"data": b"12345678", b"dtype": None, b"shape": [1]},
        {b"__ndarray__": True, b"data": b"12345678", b"dtype": ["<f8"], b"shape": [1]},
        {b"__ndarray__": True, b"data": b"12345678", b"dtype": "f4,f4", b"shape": [1]},
        {b"__ndarray__": True, b"data": b"12345678", b"dtype": "(2,)f4", b"shape": [1]},
        {b"__ndarray__": True, b"data": b"12345678", b"dtype": "<c8", b"shape": [1]},
        {b"__ndarray__": True, b"data": b"12345678", b"dtype": "T", b"shape": [1]},
        {b"__ndarray__": True, b"data": b"12345678", b"dtype": b"\xff", b"shape": [1]},
        {b"__ndarray__": True, b"data": "12345678", b"dtype": "<f4", b"shape": [2]},
        {b"__ndarray__": True, b"data": [1, 2], b"dtype": "<f4", b"shape": [2]},
        {b"__ndarray__": True, b"data": b"1234567", b"dtype": "<f4", b"shape": [2]},
        {b"__ndarray__": True, b"data": b"1234", b"dtype": "<f4", b"shape": 1},
        {b"__ndarray__": True, b"data": b"1234", b"dtype": "<f4", b"shape": [True]},
        {b"__ndarray__": True, b"data": b"1234", b"dtype": "<f4", b"shape": [1.0]},
        {b"__ndarray__": True, b"data": b"", b"dtype": "<f4", b"shape": [2**40]},
        {b"__ndarray__": True, b"data": b"", b"dtype": "<f4", b"shape": [2**32, 2**32]},
        {b"__ndarray__": True, b"data": b"", b"dtype": "<f4", b"shape": [2**63, 0]},
        {b"__ndarray__": True, b"data": b"1234", b"dtype": "<f4", b"shape": [1] * 33},
        {b"__npgeneric__": True, b"data": 1, b"dtype": "|O"},
        {b"__npgeneric__": True, b"data": 10**9, b"dtype": "|S9"},
        {b"__npgeneric__": True, b"data": "1", b"dtype": "<f4"},
        {b"__npgeneric__": True, b"data": [1], b"dtype": "<f4"},
        {1: 2},
    ],
)
def test_malformed_arrays(raw: dict[bytes, object]) -> None:
    with pytest.raises(CodecError, match="reading a frame"):
        unpack(msgpack.packb(raw))


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(frame: bytes) -> None:
    with contextlib.suppress(CodecError):
        unpack(frame)


def test_what_is_nested_without_end() -> None:
    with pytest.raises(CodecError, match="reading a frame"):
        unpack(b"\x91" * 100_000 + b"\xc0")
    endless: list[Any] = []
    endless.append(endless)
    with pytest.raises(CodecError, match="packing a frame"):
        pack(endless)


@given(MESSAGES, st.data())
def test_a_frame_cut_short_is_refused(message: Any, data: st.DataObject) -> None:
    frame = pack(message)
    with pytest.raises(CodecError, match="reading a frame"):
        unpack(frame[: data.draw(st.integers(0, len(frame) - 1))])
