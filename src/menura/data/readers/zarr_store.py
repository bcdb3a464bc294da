"""Arrays of a Zarr store, in a directory or a zip file.

Works with the packages zarr 2 and 3, imported when first needed, and both formats they write.
"""

from __future__ import annotations

import functools
import importlib.util
import itertools
import json
import os
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from menura.data.episode import UInt8
from menura.data.frames import LazyFrames
from menura.errors import DataError

_DESCRIPTIONS = (".zarray", "zarr.json")  # what an array's directory holds, of format 2 and of format 3
_BLOSC_HEADER = 16  # bytes; the last four of them say how long the chunk is
# How much is read at once when frames are asked for one after the other.
_BLOCK_BYTES = 8 << 20


class ZarrArrays:
    """The arrays below a store's root, by path (`data/action`). Opened anew in every process.

    Raises:
        DataError: zarr is not installed, or there is no such store.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._zipped = path.is_file()
        self._open_in: int | None = None  # the process that has `_store` and `_arrays`
        self._store: Any = None
        self._arrays: dict[str, Any] = {}
        names = self._names_in_zip() if self._zipped else self._names_in_directory()
        #: Paths of all arrays, sorted.
        self.names = sorted(names)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_open_in": None, "_store": None, "_arrays": {}}

    def __getitem__(self, name: str) -> Any:
        """The array of this path; DataError where it is damaged or its codec is not installed."""
        if self._open_in != os.getpid():  # a zip file's position must not be shared with a parent process
            self._store, self._arrays, self._open_in = self._open(), {}, os.getpid()
        if name not in self._arrays:
            self._arrays[name] = self._array(name)
        return self._arrays[name]

    def rows(self, name: str, index: Any) -> NDArray[Any]:
        """These rows of an array, in order; each chunk is unpacked once."""
        array = self[name]
        if not self._zipped:  # a zip file has checksums
            _require_whole_chunks(self.path / name, np.unique(np.arange(array.shape[0])[index]))
        try:
            return np.asarray(array[index] if isinstance(index, slice) else array.oindex[index])
        except (ValueError, RuntimeError, OSError, zipfile.BadZipFile) as error:
            raise DataError(f"{self.path}: {name}: damaged ({error}). Fetch it again.") from error

    def files(self, names: list[str]) -> Iterator[Path]:
        """The files that hold these arrays."""
        if self._zipped:
            yield self.path
        else:
            for name in names:
                yield from sorted(file for file in (self.path / name).rglob("*") if file.is_file())

    def _names_in_directory(self) -> list[str]:
        found = (file for name in _DESCRIPTIONS for file in self.path.glob(f"*/*/{name}"))
        return [file.parent.relative_to(self.path).as_posix() for file in found]

    def _names_in_zip(self) -> list[str]:
        try:
            with zipfile.ZipFile(self.path) as archive:
                files = archive.namelist()
        except (zipfile.BadZipFile, OSError) as error:
            raise DataError(f"{self.path}: not a whole zip file ({error}). Fetch it again.") from error
        return [file.rpartition("/")[0] for file in files if file.count("/") == 2 and file.endswith(_DESCRIPTIONS)]

    def _open(self) -> Any:
        try:
            from zarr.storage import ZipStore
        except ImportError as error:
            raise DataError(
                f"{self.path}: expected the package zarr, which reads it, found none. "
                f"Install it: pip install 'menura[zarr]'."
            ) from error
        return ZipStore(str(self.path), mode="r") if self._zipped else str(self.path)

    def _array(self, name: str) -> Any:
        import zarr

        _register_image_codecs()
        try:
            return zarr.open_array(store=self._store, path=name, mode="r")
        except (ValueError, KeyError, TypeError, FileNotFoundError) as error:
            raise DataError(
                f"{self.path}: {name}: cannot be opened ({error}). If its codec is missing, install it "
                f"(JPEG XL as UMI writes it: pip install imagecodecs); else fetch it again."
            ) from error


def _require_whole_chunks(folder: Path, rows: NDArray[np.int64]) -> None:
    """Blosc does not notice that a chunk was cut off, and reads on: its header is compared with the file's size.

    A chunk that is absent is no damage: it holds nothing but the array's fill value.
    """
    description = folder / ".zarray"
    if not description.exists():
        return  # of format 3, which describes the chunks in another way
    array = json.loads(description.read_text())
    if (array.get("compressor") or {}).get("id") != "blosc":
        return
    first, *others = zip(array["shape"], array["chunks"], strict=True)
    numbers = (np.unique(rows // first[1]).tolist(), *(range(-(-size // chunk)) for size, chunk in others))
    for key in itertools.product(*numbers):
        file = folder / array.get("dimension_separator", ".").join(map(str, key))
        if not file.exists():
            continue
        with file.open("rb") as chunk:
            size = int.from_bytes(chunk.read(_BLOSC_HEADER)[12:], "little")
        if size != file.stat().st_size or size < _BLOSC_HEADER:
            raise DataError(f"{file}: expected {size} bytes, got {file.stat().st_size}: cut off. Fetch it again.")


@functools.cache
def _register_image_codecs() -> None:
    """JPEG XL and its like, where imagecodecs is installed; once."""
    if importlib.util.find_spec("imagecodecs") is not None:
        importlib.import_module("imagecodecs.numcodecs").register_codecs()


class ZarrFrames(LazyFrames):
    """Rows `start … start + length - 1` of an array of frames: (N, H, W, 3) or (N, 3, H, W).

    Args:
        scale: what a number is multiplied by to lie in 0 … 255.
    """

    def __init__(
        self, arrays: ZarrArrays, name: str, start: int, length: int, height: int, width: int, scale: float
    ) -> None:
        super().__init__(length, height, width)
        self._arrays = arrays
        self._name = name
        self._start = start
        self._scale = scale

    def read(self, numbers: NDArray[np.int64]) -> UInt8:
        wanted, places = np.unique(numbers, return_inverse=True)
        frames = self._arrays.rows(self._name, self._start + wanted)
        if frames.dtype != np.uint8:
            frames = self._whole(frames)
        if frames.shape[1:] != self.shape[1:]:
            frames = frames.transpose(0, 2, 3, 1)  # channels came first
        ordered: UInt8 = np.ascontiguousarray(frames[places])
        return ordered

    def __iter__(self) -> Iterator[UInt8]:
        chunk = int(self._arrays[self._name].chunks[0])
        block = max(1, _BLOCK_BYTES // int(np.prod(self.shape[1:])) // chunk) * chunk
        first = 0
        while first < len(self):
            stop = min((self._start + first) // block * block + block - self._start, len(self))
            yield from self.read(np.arange(first, stop))
            first = stop

    def _whole(self, frames: NDArray[Any]) -> UInt8:
        """Numbers of 0 … 255 from those of the array's own range."""
        scaled = frames.astype(np.float32) * self._scale
        if not (scaled.min() >= -0.5 and scaled.max() < 255.5):  # NaN neither
            raise DataError(
                f"{self._arrays.path}: {self._name}: expected frames in 0 … {255 / self._scale:g}, "
                f"got {frames.min():g} … {frames.max():g}. Say what white is: args: {{white: …}}."
            )
        whole: UInt8 = np.rint(scaled).astype(np.uint8)
        return whole
