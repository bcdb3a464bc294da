"""GR00T's wire: what its clients pack is read, and nothing else can be built from bytes."""

from __future__ import annotations

import contextlib
import io
import tracemalloc
from typing import Any

import msgpack
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from menura.serving import codec
from menura.serving.codec import MAX_CONTAINERS, CodecError
from menura.serving.doors.groot_codec import modality, pack, unpack

DTYPES = st.sampled_from(["u1", "<i8", "<f4", ">f8", "?"])


def groot_bytes(value: Any) -> bytes:
    """As documented of `MsgSerializer.to_bytes`."""

    def custom(obj: Any) -> Any:
        output = io.BytesIO()
        np.save(output, obj, allow_pickle=False)
        return {"__ndarray_class__": True, "as_npy": output.getvalue()}

    return msgpack.packb(value, default=custom)


def groot_value(message: bytes) -> Any:
    """As documented of `MsgSerializer.from_bytes`."""

    def custom(obj: Any) -> Any:
        return np.load(io.BytesIO(obj["as_npy"]), allow_pickle=False) if "__ndarray_class__" in obj else obj

    return msgpack.unpackb(message, object_hook=custom)


@given(hnp.arrays(dtype=DTYPES.map(np.dtype), shape=hnp.array_shapes(min_dims=0, max_dims=5, min_side=0, max_side=4)))
def test_arrays_come_back_equal(array: np.ndarray) -> None:
    for back in (unpack(groot_bytes({"x": [array]}))["x"][0], groot_value(pack({"x": [array]}))["x"][0]):
        assert back.dtype == array.dtype
        assert back.shape == array.shape
        np.testing.assert_array_equal(back, array)


def test_arrays_by_columns() -> None:
    array = np.asfortranarray(np.arange(6.0).reshape(2, 3))
    np.testing.assert_array_equal(unpack(groot_bytes(array)), array)


def test_a_modality_is_what_groot_builds_its_own_of() -> None:
    assert groot_value(pack(modality(["front"], [-1, 0]))) == {
        "__ModalityConfig_class__": True,
        "as_json": {
            "delta_indices": [-1, 0],
            "modality_keys": ["front"],
            "sin_cos_embedding_keys": None,
            "mean_std_embedding_keys": None,
            "action_configs": None,
        },
    }


def npy(header: str, data: bytes = b"", version: bytes = b"\x01\x00") -> bytes:
    text = header.encode() + b"\n"
    size = len(text).to_bytes(2 if version == b"\x01\x00" else 4, "little")
    return msgpack.packb({"__ndarray_class__": True, "as_npy": b"\x93NUMPY" + version + size + text + data})


GOOD = "{'descr': '<f4', 'fortran_order': False, 'shape': (2,)}"


def test_a_file_by_hand() -> None:
    for version in (b"\x01\x00", b"\x02\x00", b"\x03\x00"):
        np.testing.assert_array_equal(unpack(npy(GOOD, np.ones(2, np.float32).tobytes(), version)), [1, 1])


@pytest.mark.parametrize(
    "message",
    [
        npy(GOOD, b"1234567"),
        npy(GOOD, b"123456789"),
        npy(GOOD.replace("<f4", "|O"), b"12345678"),
        npy(GOOD.replace("'<f4'", "[('a', '<f4')]"), b"12345678"),
        npy(GOOD.replace("'<f4'", "'<c8'"), b"1" * 16),
        npy(GOOD.replace("'<f4'", "'<V4'"), b"12345678"),
        npy(GOOD.replace("'<f4'", "'<U1'"), b"\xff" * 8),
        npy(GOOD.replace("(2,)", "(10**12,)"), b"12345678"),
        npy(GOOD.replace("(2,)", "(1000000000000,)"), b"12345678"),
        npy(GOOD.replace("(2,)", "(-2,)"), b"12345678"),
        npy(GOOD.replace("(2,)", "(0, " + "1, " * 60 + ")")),
        npy("(" * 5000),
        npy("(" * 300),
        npy("{" * 90 + "\x00"),
        npy(" " * 20_000),
        msgpack.packb({"__ndarray_class__": True, "as_npy": 3}),
        msgpack.packb({"__ndarray_class__": True}),
        msgpack.packb({"__ndarray_class__": True, "as_npy": b"\x80\x04\x95"}),  # a pickle
        msgpack.packb({"__ndarray_class__": True, "as_npy": b"PK\x03\x04"}),  # an .npz
        msgpack.packb({3: 4}),
        b"\x91" * 5000,
        b"\xdd\xff\xff\xff\xff",
        b"\xc1",
        b"",
    ],
)
def test_what_is_refused(message: bytes) -> None:
    with pytest.raises(CodecError, match="reading a message"):
        unpack(message)


@pytest.mark.parametrize("unpack", [unpack, codec.unpack])
@pytest.mark.parametrize("part", [b"\x90", b"\x80", b"\x91\x90"])
def test_a_bomb_of_parts_is_stopped_early(part: bytes, unpack: Any) -> None:
    count = 2**20
    message = b"\xdd" + count.to_bytes(4, "big") + part * count
    tracemalloc.start()
    try:
        with pytest.raises(CodecError, match=f"at most {MAX_CONTAINERS} lists and maps"):
            unpack(message)
        assert tracemalloc.get_traced_memory()[1] < 32 * 2**20
    finally:
        tracemalloc.stop()


@given(st.binary(max_size=300))
def test_any_bytes_are_read_or_refused(message: bytes) -> None:
    with contextlib.suppress(CodecError):
        unpack(message)
    with contextlib.suppress(CodecError):
        unpack(msgpack.packb({"__ndarray_class__": True, "as_npy": b"\x93NUMPY" + message}))
