"""MessagePack with numpy arrays, as openpi's clients and servers write it. Torch-free.

An array is a map `{b"__ndarray__": True, b"data": bytes, b"dtype": dtype.str, b"shape": [...]}`, a numpy scalar
`{b"__npgeneric__": True, b"data": value, b"dtype": dtype.str}` (openpi-client 0.1.2, `msgpack_numpy.py`). Maps with the
same keys as text are read too. Nothing but plain data is ever built from bytes: no pickle, no objects.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import msgpack
import numpy as np

from ..errors import MenuraError

# Truth values, numbers, bytes, text, times. Not complex numbers, records and objects, which the protocol refuses too,
# nor numpy 2's text of any length, whose memory holds addresses.
_ARRAY_KINDS = "biufSUMm"
_SCALAR_KINDS = "biuf"
#: numpy 1 has no array of more.
_MAX_DIMENSIONS = 32
_MAX_DTYPE_NAME = 32
_DTYPE_NAME = re.compile(r"[<>=|]?(\?|[A-Za-z]+\d*(\[\d*[A-Za-z]+\])?)")  # <f4, |b1, ?, float32, <M8[ns]
#: Lists and maps of one frame, and what they hold together. Each costs far more than the byte it may be written in.
MAX_CONTAINERS = 2**14
MAX_VALUES = 2**20


class CodecError(MenuraError):
    """A frame of the protocol cannot be written or read."""


def pack(value: Any) -> bytes:
    """A MessagePack frame of nested dicts (keys are text or bytes), lists, numbers, text, bytes and numpy arrays."""
    with _explained():
        frame: bytes = msgpack.packb(value, default=_encode)
    return frame


class Packer:
    """Packs one frame after the other into the same memory: new memory for pictures costs more than filling it."""

    def __init__(self) -> None:
        self._packer = msgpack.Packer(default=_encode, autoreset=False)

    @contextmanager
    def packed(self, value: Any) -> Iterator[memoryview]:
        """What `pack` answers, until the block ends. Not for several threads at once."""
        self._packer.reset()
        with _explained():
            self._packer.pack(value)
        with self._packer.getbuffer() as frame:
            yield frame


@contextmanager
def _explained() -> Iterator[None]:
    try:
        yield
    except (TypeError, ValueError, OverflowError) as error:
        raise CodecError(
            f"packing a frame: expected numbers, text, bytes, lists, dicts and arrays; {error}."
        ) from error


def unpack(frame: bytes) -> Any:
    """What `pack` was given, tuples as lists. Arrays are read-only views of the frame's bytes."""
    try:
        # Keys are text or bytes: numbers as keys can be chosen so that a map takes hours to build.
        return unpack_bounded(frame, _decode)
    except (ValueError, TypeError, OverflowError, msgpack.UnpackException) as error:
        raise CodecError(f"reading a frame of {len(frame)} bytes: expected MessagePack, {error}.") from error


def unpack_bounded(frame: bytes, decode: Callable[[dict[Any, Any]], Any]) -> Any:
    """MessagePack of a bounded number of parts, each map `decode`d: a bomb is a short frame of millions of parts.

    Raises:
        ValueError, TypeError, OverflowError, msgpack.UnpackException: it is damaged, too much, or `decode` refuses it.
    """
    containers = values = 0

    def counted(held: int) -> None:
        nonlocal containers, values
        containers, values = containers + 1, values + held
        if containers > MAX_CONTAINERS or values > MAX_VALUES:
            raise ValueError(f"at most {MAX_CONTAINERS} lists and maps of {MAX_VALUES} values")

    def map_(value: dict[Any, Any]) -> Any:
        counted(len(value))
        return decode(value)

    def list_(value: list[Any]) -> list[Any]:
        counted(len(value))
        return value

    return msgpack.unpackb(
        frame, object_hook=map_, list_hook=list_, max_array_len=MAX_VALUES, max_map_len=MAX_CONTAINERS
    )


def _encode(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        if value.dtype.kind not in _ARRAY_KINDS:
            raise TypeError(f"an array of dtype {value.dtype} cannot be sent")
        flat = np.ascontiguousarray(value).reshape(-1)
        # A view, which msgpack copies once into the frame. It does not take numpy's own types as a buffer.
        data = flat.view(np.uint8).data if flat.dtype.itemsize else b""
        return {b"__ndarray__": True, b"data": data, b"dtype": value.dtype.str, b"shape": value.shape}
    if isinstance(value, np.generic):
        plain = value.item()
        if value.dtype.kind not in _SCALAR_KINDS or isinstance(plain, np.generic):
            raise TypeError(f"a scalar of dtype {value.dtype} cannot be sent")
        return {b"__npgeneric__": True, b"data": plain, b"dtype": value.dtype.str}
    raise TypeError(f"a {type(value).__name__} cannot be sent")


def _decode(value: dict[Any, Any]) -> Any:
    for tag, build in (("__ndarray__", _array), ("__npgeneric__", _scalar)):
        for as_key in (str.encode, str):
            if as_key(tag) in value:
                return build(value.get(as_key("data")), value.get(as_key("dtype")), value.get(as_key("shape")))
    return value


def _dtype(name: Any, kinds: str) -> np.dtype[Any]:
    text = name.decode() if isinstance(name, bytes) else name
    # A plain name: of others numpy reads Python, and its errors.
    if not isinstance(text, str) or len(text) > _MAX_DTYPE_NAME or not _DTYPE_NAME.fullmatch(text):
        raise TypeError("a dtype must be a plain name, such as <f4")
    dtype = np.dtype(text)
    if dtype.kind not in kinds:
        raise TypeError(f"data of dtype {dtype} is refused")
    return dtype


def _array(data: Any, dtype_name: Any, shape: Any) -> Any:
    dtype = _dtype(dtype_name, _ARRAY_KINDS)
    if not isinstance(shape, list) or len(shape) > _MAX_DIMENSIONS:
        raise ValueError(f"an array's shape must be a list of up to {_MAX_DIMENSIONS} sizes")
    if not all(type(size) is int and size >= 0 for size in shape):
        raise ValueError("an array's shape must be a list of sizes")
    if not isinstance(data, bytes) or len(data) != math.prod(shape) * dtype.itemsize:
        raise ValueError(f"an array of shape {shape} and dtype {dtype} does not have {len(data or b'')} bytes")
    return np.ndarray(shape, dtype, data)


def _scalar(data: Any, dtype_name: Any, _shape: Any) -> Any:
    if not isinstance(data, (bool, int, float)):
        raise TypeError(f"a scalar's data must be a number, not a {type(data).__name__}")
    return _dtype(dtype_name, _SCALAR_KINDS).type(data)
