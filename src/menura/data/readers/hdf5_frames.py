"""Frames in HDF5 files: raw arrays, and pictures as bytes. Read and decoded when asked for."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from menura.data.episode import UInt8
from menura.data.frames import LazyFrames
from menura.data.pictures import decode_picture
from menura.data.readers.hdf5 import OpenFiles, gather, place_of
from menura.errors import DataError

# How much is read at once when frames are asked for one after the other.
_BLOCK_BYTES = 8 << 20


class Hdf5Frames(LazyFrames):
    """The first `length` frames of one camera of an episode.

    Args:
        files: the reader's open files.
        path: the file.
        key: the dataset: (T, H, W, 3) uint8, or T pictures (`is_coded`).
        length, height, width: what it must hold; DataError on first use when it does not.
        bgr: whether its first channel is blue.
        flip: whether its first row is the lowest.
    """

    def __init__(
        self,
        files: OpenFiles,
        path: Path,
        key: str,
        length: int,
        height: int,
        width: int,
        *,
        bgr: bool = False,
        flip: bool = False,
    ) -> None:
        super().__init__(length, height, width)
        self._files = files
        self._path = path
        self._key = key
        self._turn = np.s_[:, :: -1 if flip else 1, :, :: -1 if bgr else 1]

    @property
    def are_pictures(self) -> bool:
        with self._files.reading(self._path) as file:
            return is_coded(file[self._key])

    def read(self, numbers: NDArray[np.int64]) -> UInt8:
        with self._files.reading(self._path) as file:
            dataset = file[self._key]
            coded = is_coded(dataset)
            if not coded and (dataset.shape[1:] != self.shape[1:] or dataset.dtype != np.uint8):
                raise DataError(
                    f"{place_of(dataset)}: expected uint8 frames of shape {self.shape[1:]} as the dataset has, "
                    f"got {dataset.dtype} of {dataset.shape[1:]}."
                )
            rows = gather(dataset, numbers)
        frames: UInt8 = self._decode(rows, numbers) if coded else rows
        return np.ascontiguousarray(frames[self._turn])

    def __iter__(self) -> Iterator[UInt8]:
        block = max(1, _BLOCK_BYTES // int(np.prod(self.shape[1:])))
        with self._files.reading(self._path) as file:
            chunks = file[self._key].chunks
        if chunks and chunks[0] > 1:
            block = -(-block // chunks[0]) * chunks[0]  # whole chunks, so that none is unpacked twice
        for first in range(0, len(self), block):
            yield from self.read(np.arange(first, min(first + block, len(self))))

    def _decode(self, rows: NDArray[Any], numbers: NDArray[np.int64]) -> UInt8:
        frames = np.empty((len(rows), *self.shape[1:]), np.uint8)
        for row, (encoded, number) in enumerate(zip(rows, numbers, strict=True)):
            what = f"{self._path}:/{self._key.strip('/')}, frame {number}"
            frame = decode_picture(picture_bytes(encoded), what)
            if frame.shape != self.shape[1:]:
                raise DataError(f"{what}: expected shape {self.shape[1:]} as the dataset has, got {frame.shape}.")
            frames[row] = frame
        return frames


def is_coded(dataset: h5py.Dataset) -> bool:
    """Whether a dataset holds pictures as bytes: (T, bytes) uint8 padded by zeros, or (T,) byte strings or arrays."""
    if dataset.ndim == 2:
        return bool(dataset.dtype == np.uint8)
    if dataset.ndim != 1:
        return False
    return dataset.dtype.kind == "S" or h5py.check_string_dtype(dataset.dtype) is not None or _is_bytes(dataset)


def is_frames(dataset: h5py.Dataset) -> bool:
    """Whether a dataset holds raw RGB frames: (T, H, W, 3) uint8."""
    return bool(dataset.ndim == 4 and dataset.shape[3] == 3 and dataset.dtype == np.uint8)


def holds_frames(dataset: h5py.Dataset) -> bool:
    """Whether a dataset holds raw frames, or pictures by the look of its first row."""
    if not is_coded(dataset) or len(dataset) == 0:
        return is_frames(dataset)
    return picture_bytes(dataset[0]).startswith((b"\xff\xd8\xff", b"\x89PNG"))


def frame_size(dataset: h5py.Dataset) -> tuple[int, int]:
    """(height, width) of a camera's frames; of pictures, those of the first.

    Raises:
        DataError: the dataset holds neither frames nor pictures.
    """
    if is_frames(dataset):
        return int(dataset.shape[1]), int(dataset.shape[2])
    if not is_coded(dataset) or len(dataset) == 0:
        raise DataError(
            f"{place_of(dataset)}: expected frames (T, H, W, 3) uint8 or pictures as bytes, "
            f"got {dataset.dtype} of shape {dataset.shape}."
        )
    frame = decode_picture(picture_bytes(dataset[0]), f"{place_of(dataset)}, frame 0")
    return int(frame.shape[0]), int(frame.shape[1])


def picture_bytes(encoded: Any) -> bytes:
    """One picture without the zeros it was padded with: neither a JPEG nor a PNG ends with one."""
    return (encoded if isinstance(encoded, bytes) else bytes(encoded)).rstrip(b"\0")


def _is_bytes(dataset: h5py.Dataset) -> bool:
    """Whether each row is an array of bytes of its own length."""
    return bool(h5py.check_vlen_dtype(dataset.dtype) == np.uint8)
