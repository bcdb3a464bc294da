"""The HDF5 file of an episode under way, and the frames of its cameras, which several threads add to it. Torch-free."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from menura.data.episode import UInt8
from menura.data.pictures import encode_jpeg, encode_png
from menura.data.readers.menura_hdf5 import IMAGES
from menura.files import put_in_place, temporary_beside

#: How frames are kept -> what makes their bytes; None where they are kept as they are.
CODINGS: Mapping[str, Callable[[UInt8], bytes] | None] = {"jpeg": encode_jpeg, "png": encode_png, "raw": None}
# Rows by which a camera grows, and places of pictures in a chunk.
_ROWS = 256


class EpisodeFile:
    """An HDF5 file under a temporary name, until it is finished.

    Args:
        path: its place then.
        coding: one of `CODINGS`.
    """

    def __init__(self, path: Path, coding: str) -> None:
        self.path = path
        self._coding = coding
        self._temporary = temporary_beside(path)
        # Version 1.10 of the file format is the first whose attributes may exceed 64 kB.
        self._file = h5py.File(self._temporary, "w", libver="v110")

    def camera(self, name: str, height: int, width: int) -> CameraFrames:
        """Where the frames of a camera go."""
        return CameraFrames(self._file, f"{IMAGES}/{name}", self._coding, (height, width, 3))

    def finish(self, tables: Mapping[str, Any], attributes: Mapping[str, Any]) -> None:
        """Adds what else an episode has, and makes the file durable under its name. Its cameras are closed before."""
        for key, table in tables.items():
            self._file.create_dataset(key, data=table)
        self._file.attrs.update(attributes)
        self._file.close()
        put_in_place(self._temporary, self.path)

    def abandon(self) -> None:
        """Leaves nothing of a file that is not finished."""
        self._file.close()
        self._temporary.unlink(missing_ok=True)


class CameraFrames:
    """A `FrameSink` into a dataset; h5py lets one thread at a time into its files, encoding is outside."""

    def __init__(self, file: h5py.File, key: str, coding: str, shape: tuple[int, ...]) -> None:
        self._encode = CODINGS[coding]
        self._count = 0
        if self._encode is None:
            form = {"shape": (0, *shape), "maxshape": (None, *shape), "chunks": (1, *shape), "dtype": np.uint8}
        else:
            form = {"shape": (0,), "maxshape": (None,), "chunks": (_ROWS,), "dtype": h5py.vlen_dtype(np.uint8)}
        self._dataset = file.create_dataset(key, **form)
        self._dataset.attrs["coding"] = coding

    def __len__(self) -> int:
        return self._count

    def add(self, frame: UInt8) -> None:
        row = frame if self._encode is None else np.frombuffer(self._encode(frame), np.uint8)
        if self._count == len(self._dataset):
            self._dataset.resize(self._count + _ROWS, axis=0)
        self._dataset[self._count] = row
        self._count += 1

    def close(self) -> None:
        self._dataset.resize(self._count, axis=0)

    def abandon(self) -> None:
        """Its file is."""
