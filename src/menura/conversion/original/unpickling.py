"""Reading other people's pickles without running what is in them.

A pickle names functions to call. Here a name is looked up in a short table, whose functions make tensors, arrays and
plain values and check what they are given, or it belongs to a library whose objects are read as mere data (`Inert`);
any other name ends the reading with an error that says it. Nothing is imported for a name, ever.
"""

from __future__ import annotations

import io
import math
import pickle
import re
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch

from menura.errors import CheckpointError

#: Their objects become `Inert`: what they hold is read, and nothing of them runs.
INERT_PACKAGES = ("omegaconf", "typing", "pathlib", "dill")
_BUILTIN_TYPES = (
    "bool",
    "dict",
    "float",
    "int",
    "list",
    "long",
    "object",
    "set",
    "str",
    "tuple",
    "type",
    "unicode",
)
# The beginning of what `torch.save` wrote before 1.6: https://github.com/pytorch/pytorch, torch/serialization.py.
_LEGACY_MAGIC, _LEGACY_VERSION = 0x1950A86A20F9469CFC6C, 1001
_DTYPE = re.compile(r"[<>|=]?[biufc]\d{1,2}")
_STORAGES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}


class Inert:
    """An object of another library as data: the name of its class, what it was made with, and what it holds."""

    name = ""

    def __init__(self, *arguments: Any) -> None:
        self.arguments = arguments
        self.state: Any = None
        self.items: list[Any] = []

    def __new__(cls, *arguments: Any) -> Inert:
        self = super().__new__(cls)
        self.__init__(*arguments)  # type: ignore[misc]  # pickle makes objects without it
        return self

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def append(self, item: Any) -> None:
        self.items.append(item)

    def extend(self, items: Sequence[Any]) -> None:
        self.items.extend(items)

    def __setitem__(self, key: Any, value: Any) -> None:
        self.items.append((key, value))


def load_torch(path: Path) -> Any:
    """What `torch.save` wrote, in a zip archive or, before 1.6, in its older form; tensors on the CPU.

    Raises:
        CheckpointError: it is none, is damaged, or asks for anything but tensors, arrays and plain values.
    """
    with _opened(path) as file:
        if zipfile.is_zipfile(file):
            return _guarded(path, lambda: _load_zip(file, path))
        file.seek(0)
        return _guarded(path, lambda: _load_legacy(file, path))


def load_pickle(path: Path) -> Any:
    """What `pickle.dump` wrote of NumPy arrays and plain values. Raises as `load_torch` does."""
    with _opened(path) as file:
        return _guarded(path, lambda: _settled(_Unpickler(file, path).load()))


def plain(value: Any) -> Any:
    """The same with OmegaConf's containers as dicts and lists; other inert objects become their class's name."""
    if isinstance(value, Inert):
        state = value.state if isinstance(value.state, Mapping) else {}
        for content in ("_content", "_val"):  # of a container, of a node
            if content in state:
                return plain(state[content])
        return value.name
    if isinstance(value, type) and issubclass(value, Inert):
        return value.name
    if isinstance(value, Mapping):
        return {plain(key): plain(own) for key, own in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(own) for own in value]
    return value


class _Unpickler(pickle.Unpickler):
    """Makes nothing but what `_known` allows.

    Args:
        storage: `(dtype, key, numel) -> (numel,) tensor`, for the numbers that lie outside of the pickle.
    """

    def __init__(
        self, file: IO[bytes], path: Path, storage: Callable[[torch.dtype, str, int], torch.Tensor] | None = None
    ) -> None:
        super().__init__(file)
        self._path = path
        self._storage = storage

    def find_class(self, module: str, name: str) -> Any:
        known = _known(module, name)
        if known is None:
            raise CheckpointError(
                f"{self._path}: expected tensors, arrays and plain values, got a pickle that asks for {module}.{name}, "
                "which could run anything. It was not called; open the file only where that may happen."
            )
        return known

    def persistent_load(self, pid: Any) -> torch.Tensor:
        if self._storage is None or not isinstance(pid, tuple) or len(pid) < 5 or pid[0] != "storage":
            raise CheckpointError(f"{self._path}: expected a tensor's storage, got a {type(pid).__name__}.")
        if len(pid) > 5 and pid[5] is not None:
            raise CheckpointError(f"{self._path}: expected storages of their own, got a view of another. Save it anew.")
        dtype, key, numel = pid[1], pid[2], pid[4]
        if not isinstance(dtype, torch.dtype) or type(numel) is not int or numel < 0:
            raise CheckpointError(f"{self._path}: expected a storage's type and size, got others.")
        return self._storage(dtype, str(key), numel)


def _known(module: str, name: str) -> Any:
    """What a name means here; None for what is not allowed."""
    module = "builtins" if module == "__builtin__" else module  # as Python 2 called it, and protocols up to 2 do
    full = f"{module}.{name}"
    if full in _ALLOWED:
        return _ALLOWED[full]
    inert = module.partition(".")[0] in INERT_PACKAGES or (module == "builtins" and name in _BUILTIN_TYPES)
    return type("Inert", (Inert,), {"name": full}) if inert else None


def _load_zip(file: IO[bytes], path: Path) -> Any:
    with zipfile.ZipFile(file) as archive:
        names = archive.namelist()
        root = next((name.removesuffix("data.pkl") for name in names if name.endswith("/data.pkl")), None)
        if root is None:
            raise CheckpointError(f"{path}: expected what torch.save writes, got a zip archive without data.pkl.")
        if f"{root}byteorder" in names and archive.read(f"{root}byteorder") != b"little":
            raise CheckpointError(f"{path}: expected numbers in little-endian order, got big-endian. Save it anew.")
        storages: dict[str, torch.Tensor] = {}

        def storage(dtype: torch.dtype, key: str, numel: int) -> torch.Tensor:
            if key not in storages:
                storages[key] = _numbers(archive.read(f"{root}data/{key}"), dtype, numel, path)
            return storages[key]

        return _settled(_Unpickler(io.BytesIO(archive.read(f"{root}data.pkl")), path, storage).load())


def _load_legacy(file: IO[bytes], path: Path) -> Any:
    """Pickles one after the other (magic, version, machine, the object, keys), then every storage's numbers."""
    if _Unpickler(file, path).load() != _LEGACY_MAGIC or _Unpickler(file, path).load() != _LEGACY_VERSION:
        raise CheckpointError(f"{path}: expected what torch.save writes, got another pickle.")
    machine = _Unpickler(file, path).load()
    if not machine.get("little_endian", True):
        raise CheckpointError(f"{path}: expected numbers in little-endian order, got big-endian. Save it anew.")
    size = path.stat().st_size
    storages: dict[str, torch.Tensor] = {}

    def storage(dtype: torch.dtype, key: str, numel: int) -> torch.Tensor:
        if numel * dtype.itemsize > size:
            raise CheckpointError(f"{path}: expected a file of {numel} numbers, got {size} bytes: it is cut short.")
        return storages.setdefault(key, torch.zeros(numel, dtype=dtype))

    value = _Unpickler(file, path, storage).load()
    for key in _Unpickler(file, path).load():
        own = storages[str(key)]
        (numel,) = struct.unpack("<q", file.read(8))
        own.copy_(_numbers(file.read(own.nbytes), own.dtype, numel, path))
    return _settled(value)


def _numbers(content: bytes, dtype: torch.dtype, numel: int, path: Path) -> torch.Tensor:
    if len(content) != numel * dtype.itemsize:
        raise CheckpointError(f"{path}: expected {numel} numbers of {dtype}, got {len(content)} bytes: it is damaged.")
    return torch.frombuffer(bytearray(content), dtype=dtype) if numel else torch.zeros(0, dtype=dtype)


def _tensor(storage: Any, offset: int, size: Sequence[int], stride: Sequence[int], *_rest: Any) -> torch.Tensor:
    """`torch._utils._rebuild_tensor_v2`; whatever reaches beyond the storage is refused by torch itself."""
    if not isinstance(storage, torch.Tensor):
        raise CheckpointError(f"tensor: expected a storage, got {type(storage).__name__}.")
    return storage.as_strided(tuple(size), tuple(stride), offset)


def _parameter(tensor: Any, *_rest: Any) -> torch.Tensor:
    if not isinstance(tensor, torch.Tensor):
        raise CheckpointError(f"parameter: expected a tensor, got {type(tensor).__name__}.")
    return tensor


class _DType:
    """`numpy.dtype`, of numbers alone."""

    def __init__(self, kind: Any, *_rest: Any) -> None:
        if not isinstance(kind, str) or not _DTYPE.fullmatch(kind):
            raise CheckpointError(f"array: expected numbers, got the type {kind!r}.")
        self.dtype = np.dtype(kind)

    def __setstate__(self, state: Any) -> None:
        order = state[1]
        if order in ("<", ">"):
            self.dtype = self.dtype.newbyteorder(order)


class _Array:
    """`numpy.ndarray` before it is known what is in it."""

    array: Any = None

    def __init__(self, *_rest: Any) -> None: ...

    def __setstate__(self, state: Any) -> None:
        _, shape, dtype, fortran, content = state
        self.array = _array(content, dtype, shape, "F" if fortran else "C")


def _array(content: Any, dtype: Any, shape: Any, order: Any = "C") -> Any:
    if not isinstance(dtype, _DType) or not isinstance(content, (bytes, bytearray)) or order not in ("C", "F"):
        raise CheckpointError(f"array: expected numbers and their type, got {type(content).__name__}.")
    values = np.frombuffer(content, dtype.dtype)
    if values.size != math.prod(shape):
        raise CheckpointError(
            f"array: expected {math.prod(shape)} numbers for shape {tuple(shape)}, got {values.size}."
        )
    return values.reshape(tuple(shape), order=order).astype(dtype.dtype.newbyteorder("="))


def _scalar(dtype: Any, content: Any) -> Any:
    return _array(content, dtype, (1,))[0]


def _encoded(text: Any, encoding: Any = "latin1") -> bytes:
    """`_codecs.encode`, by which bytes are written in old pickles."""
    if not isinstance(text, str) or encoding != "latin1":
        raise CheckpointError(f"bytes: expected a text of latin1, got {type(text).__name__} of {encoding!r}.")
    return text.encode("latin1")


def _no_bytes(*arguments: Any) -> bytes:
    """`bytes()`, by which old pickles write none."""
    if arguments:
        raise CheckpointError(f"bytes: expected none to be made of arguments, got {len(arguments)} of them.")
    return b""


def _settled(value: Any) -> Any:
    """The same with arrays that are ones by now, and tensors that share no storage."""
    if isinstance(value, torch.Tensor):
        return value.clone()
    if isinstance(value, _Array):
        return value.array
    if isinstance(value, _DType):
        return value.dtype
    if isinstance(value, dict):
        for key, own in value.items():
            value[key] = _settled(own)
    elif isinstance(value, list):
        value[:] = [_settled(own) for own in value]
    elif type(value) is tuple:
        return tuple(_settled(own) for own in value)
    return value


def _opened(path: Path) -> IO[bytes]:
    try:
        return path.open("rb")
    except OSError as problem:
        raise CheckpointError(f"{path}: expected a file to read, got: {problem.strerror}.") from None


def _guarded(path: Path, load: Callable[[], Any]) -> Any:
    """Whatever a damaged or hostile file makes go wrong is one error that names it."""
    try:
        return load()
    except CheckpointError as problem:
        if str(problem).startswith(str(path)):
            raise
        raise CheckpointError(f"{path}: {problem}") from None
    except (
        pickle.UnpicklingError,
        zipfile.BadZipFile,
        struct.error,
        AttributeError,
        EOFError,
        IndexError,
        KeyError,
        MemoryError,
        NotImplementedError,
        OverflowError,
        RecursionError,
        RuntimeError,
        TypeError,
        ValueError,
    ) as problem:
        raise CheckpointError(
            f"{path}: expected a sound pickle, got one that cannot be read ({type(problem).__name__}: {problem}). "
            "The file is damaged, or no checkpoint."
        ) from problem


_NUMPY = ("numpy.core", "numpy._core")  # before and from NumPy 2
_ALLOWED: dict[str, Any] = {
    "collections.OrderedDict": OrderedDict,
    "collections.defaultdict": lambda *_: {},
    "_codecs.encode": _encoded,
    "builtins.bytes": _no_bytes,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_parameter": _parameter,
    "torch.Size": tuple,
    "numpy.dtype": _DType,
    "numpy.ndarray": _Array,
    **{f"torch.{name}": dtype for name, dtype in _STORAGES.items()},
    **{f"{core}.multiarray._reconstruct": _Array for core in _NUMPY},
    **{f"{core}.multiarray.scalar": _scalar for core in _NUMPY},
    **{f"{core}.numeric._frombuffer": _array for core in _NUMPY},
}
