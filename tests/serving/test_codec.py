"""Frames survive the wire, and nothing but plain data is ever built from bytes."""

from __future__ import annotations

import contextlib

import msgpack
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from menura.serving.codec import CodecError, pack, unpack

DTYPES = st.sampled_from(["u1", "i8", "<f4", "<f8", "?"])


@given(hnp.arrays(dtype=DTYPES.map(np.dtype), shape=hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5)))
def test_arrays_come_back_equal(array: np.ndarray) -> None:
    back = unpack(pack({"observation": [array]}))["observation"][0]
    assert back.dtype == array.dtype
    assert back.shape == array.shape
    np.testing.assert_array_equal(back, array)


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
        {b"__npgeneric__": True, b"data": 1, b"dtype": "|O"},
    ],
)
def test_malformed_arrays(raw: dict[bytes, object]) -> None:
    with pytest.raises(CodecError, match="reading a frame"):
        unpack(msgpack.packb(raw))


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(frame: bytes) -> None:
    with contextlib.suppress(CodecError):
        unpack(frame)
