"""GR00T's wire format: MessagePack with arrays as `.npy` files. Torch-free.

An array is a map `{"__ndarray_class__": True, "as_npy": bytes of np.save}`, and the description of a modality
`{"__ModalityConfig_class__": True, "as_json": {…}}` (Isaac-GR00T N1.6, `gr00t/policy/server_client.py`; N1.5 differs in
the latter alone, which it writes as text). Of a `.npy` file only its header is interpreted, and checked against its
length before anything is allocated.
"""

from __future__ import annotations

import io
import math
import tokenize
from collections.abc import Mapping, Sequence
from typing import Any

import msgpack
import numpy as np
from numpy.typing import NDArray

from menura.serving.codec import CodecError, unpack_bounded

_MAX_HEADER = 1000
_KINDS = "biuf"  # truth values and numbers


def pack(value: Any) -> bytes:
    """A message of nested dicts, lists, numbers, text and arrays."""
    try:
        message: bytes = msgpack.packb(value, default=_encode)
    except (TypeError, ValueError, OverflowError) as error:
        raise CodecError(f"packing a message: expected numbers, text, lists, dicts and arrays; {error}.") from error
    return message


def unpack(message: bytes) -> Any:
    """What a client packed. Arrays are read-only views of the message.

    Raises:
        CodecError: it is not MessagePack, too many parts, or an array is damaged or of objects.
    """
    try:
        return unpack_bounded(message, _decode)
    except (ValueError, TypeError, OverflowError, msgpack.UnpackException) as error:
        raise CodecError(f"reading a message of {len(message)} bytes: expected MessagePack, {error}.") from error


def modality(keys: Sequence[str], offsets: Sequence[int]) -> dict[str, Any]:
    """How GR00T describes one modality: its keys, and the steps it is given or answered at."""
    config = {
        "delta_indices": list(offsets),
        "modality_keys": list(keys),
        "sin_cos_embedding_keys": None,
        "mean_std_embedding_keys": None,
        "action_configs": None,
    }
    return {"__ModalityConfig_class__": True, "as_json": config}


def _decode(value: dict[Any, Any]) -> Any:
    return _array(value.get("as_npy")) if "__ndarray_class__" in value else value


def _encode(value: Any) -> Mapping[str, Any]:
    if isinstance(value, np.ndarray) and value.dtype.kind in _KINDS:
        written = io.BytesIO()
        np.save(written, value, allow_pickle=False)
        return {"__ndarray_class__": True, "as_npy": written.getvalue()}
    raise TypeError(f"a {type(value).__name__} cannot be sent")


def _array(data: Any) -> NDArray[Any]:
    """The array of a `.npy` file (format 1.0 to 3.0)."""
    if not isinstance(data, bytes):
        raise TypeError("an array must be bytes")
    file = io.BytesIO(data)
    try:
        version = np.lib.format.read_magic(file)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, by_columns, dtype = read(file, max_header_size=_MAX_HEADER)
    except (SyntaxError, tokenize.TokenError, RecursionError, MemoryError) as error:  # of a header that is no literal
        raise ValueError(f"an array's header cannot be read: {error}") from error
    if dtype.kind not in _KINDS:
        raise TypeError(f"arrays of dtype {dtype} are refused")
    if len(shape) > 32 or any(size < 0 for size in shape):
        raise ValueError(f"an array's shape must be up to 32 sizes, not {shape}")
    if len(data) - file.tell() != math.prod(shape) * dtype.itemsize:
        raise ValueError(f"an array of shape {shape} and dtype {dtype} does not have {len(data) - file.tell()} bytes")
    flat: NDArray[Any] = np.frombuffer(data, dtype, offset=file.tell()) if math.prod(shape) else np.empty(0, dtype)
    return flat.reshape(shape, order="F" if by_columns else "C")
