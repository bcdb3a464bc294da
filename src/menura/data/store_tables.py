"""The files of a store's rows and pictures, written by several processes."""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

# How often what was written is brought to the disk while more is decoded.
_FLUSH_S = 0.5


class TableFile:
    """A `.npy` file of which several processes write rows.

    Rows are written, not assigned to a memory map: a full disk is then an OSError and not the end of the process.
    """

    def __init__(self, path: Path, dtype: Any, shape: tuple[int, ...]) -> None:
        self.path = path
        self.dtype: np.dtype[Any] = np.dtype(dtype)
        self.shape = shape
        with open(path, "wb") as file:
            header = {"descr": self.dtype.str, "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(file, header)
            self._offset = file.tell()
            file.truncate(self._offset + self._row_bytes * shape[0])

    @property
    def _row_bytes(self) -> int:
        return math.prod((*self.shape[1:], self.dtype.itemsize))

    def write(self, row: int, values: NDArray[Any]) -> None:
        """Put values (n, *shape[1:]) at the rows from `row` on."""
        assert values.dtype == self.dtype
        assert values.shape[1:] == self.shape[1:]
        with open(self.path, "r+b") as file:
            file.seek(self._offset + row * self._row_bytes)
            file.write(np.ascontiguousarray(values).data.cast("B") if values.size else b"")

    def write_column(self, row: int, place: int, cells: Iterable[NDArray[Any]]) -> None:
        """Put cells (*shape[2:]) at `[row, place]`, `[row + 1, place]`, …, each straight from where it lies."""
        cell_bytes = self._row_bytes // self.shape[1]
        with open(self.path, "r+b", buffering=0) as file:
            for number, cell in enumerate(cells, row):
                file.seek(self._offset + number * self._row_bytes + place * cell_bytes)
                left = np.ascontiguousarray(cell).data.cast("B")
                while left:
                    left = left[file.write(left) :]


class JpegFiles:
    """The pictures of each camera, one after the other in a file, and where each lies."""

    def __init__(self, directory: Path, cameras: Iterable[str]) -> None:
        self._paths = {camera: directory / f"images.{number}" for number, camera in enumerate(cameras)}
        self._sizes: dict[str, list[int]] = {camera: [] for camera in self._paths}

    def append(self, jpegs: Mapping[str, list[bytes]]) -> None:
        for camera, pictures in jpegs.items():
            with open(f"{self._paths[camera]}.jpeg", "ab") as file:
                file.writelines(pictures)
            self._sizes[camera].extend(len(picture) for picture in pictures)

    def finish(self) -> None:
        for camera, path in self._paths.items():
            np.save(f"{path}.offsets.npy", np.cumsum([0, *self._sizes[camera]], dtype=np.int64))


@contextmanager
def flushing(paths: Sequence[Path]) -> Iterator[None]:
    """Brings files to the disk while the block writes them, so that the disk does not begin when the block ends."""
    done = threading.Event()

    def flush() -> None:
        while not done.wait(_FLUSH_S):
            for path in paths:
                with open(path, "rb") as file:
                    os.fsync(file.fileno())

    thread = threading.Thread(target=flush, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
