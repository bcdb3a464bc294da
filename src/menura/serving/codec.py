"""MessagePack with numpy arrays, as openpi's clients and servers write it. Torch-free.

An array is a map `{b"__ndarray__": True, b"data": bytes, b"dtype": dtype.str, b"shape": [...]}`, a numpy scalar
`{b"__npgeneric__": True, b"data": value, b"dtype": dtype.str}` (openpi-client 0.1.2, `msgpack_numpy.py`). Maps with the
same keys as text are read too. Nothing but plain numbers is ever built from bytes: no pickle, no object arrays.
"""

from __future__ import annotations

import math
from typing import Any

import msgpack
import numpy as np

from menura.errors import MenuraError

_REFUSED_KINDS = "VOc"  # void, object, complex: refused by the protocol


class CodecError(MenuraError):
    """A frame of the protocol cannot be written or read."""


def pack(value: Any) -> bytes:
    """A MessagePack frame of nested dicts, lists, numbers, text, bytes and numpy arrays."""
    try:
        frame: bytes = msgpack.packb(value, default=_encode)
    except (TypeError, ValueError, OverflowError) as error:
        raise CodecError(
            f"packing a frame: expected numbers, text, bytes, lists, dicts and arrays; {error}."
        ) from error
    return frame


def unpack(frame: bytes) -> Any:
    """What `pack` was given. Arrays are read-only views of the frame."""
    try:
        return msgpack.unpackb(frame, object_hook=_decode, strict_map_key=False)
    except (ValueError, TypeError, msgpack.UnpackException) as error:
        raise CodecError(f"reading a frame of {len(frame)} bytes: expected MessagePack, {error}.") from error


def _encode(value: Any) -> Any:
    if isinstance(value, (np.ndarray, np.generic)) and value.dtype.kind in _REFUSED_KINDS:
        raise TypeError(f"an array of dtype {value.dtype} cannot be sent")
    if isinstance(value, np.ndarray):
        return {
            b"__ndarray__": True,
            b"data": np.ascontiguousarray(value).tobytes(),
            b"dtype": value.dtype.str,
            b"shape": value.shape,
        }
    if isinstance(value, np.generic):
        return {b"__npgeneric__": True, b"data": value.item(), b"dtype": value.dtype.str}
    raise TypeError(f"a {type(value).__name__} cannot be sent")


def _decode(value: dict[Any, Any]) -> Any:
    for tag, build in (("__ndarray__", _array), ("__npgeneric__", _scalar)):
        for as_key in (str.encode, str):
            if as_key(tag) in value:
                return build(value.get(as_key("data")), value.get(as_key("dtype")), value.get(as_key("shape")))
    return value


def _dtype(name: Any) -> np.dtype[Any]:
    dtype = np.dtype(name.decode() if isinstance(name, bytes) else name)
    if dtype.kind in _REFUSED_KINDS or dtype.fields is not None:
        raise TypeError(f"arrays of dtype {dtype} are refused")
    return dtype


def _array(data: Any, dtype_name: Any, shape: Any) -> Any:
    dtype = _dtype(dtype_name)
    if not isinstance(shape, list) or not all(isinstance(n, int) and n >= 0 for n in shape):
        raise ValueError(f"an array's shape must be a list of sizes, not {shape!r}")
    if not isinstance(data, bytes) or len(data) != math.prod(shape) * dtype.itemsize:
        raise ValueError(f"an array of shape {shape} and dtype {dtype} does not have {len(data or b'')} bytes")
    return np.frombuffer(data, dtype).reshape(shape)


def _scalar(data: Any, dtype_name: Any, _shape: Any) -> Any:
    return _dtype(dtype_name).type(data)
