"""Rows of a table, gathered for many windows at once. Torch-free.

Shapes: B batch, T offsets, N rows of the table, D its width.
"""

from __future__ import annotations

import mmap
from typing import Any

import numpy as np
from numpy.typing import NDArray

from menura.data.episode import Float32

# What a process keeps of one memory map before it lets go of it. The pages stay in the system's cache.
RESIDENT_BYTES = 600_000_000

Int64 = NDArray[np.int64]
Bool = NDArray[np.bool_]


def clip_to_episode(rows: Int64, offsets: Int64, first: Int64, last: Int64) -> tuple[Int64, Bool]:
    """(B, T) each: the row at every offset, or the nearest one of the episode; and where that was needed.

    Args:
        rows: (B,) where each window begins.
        offsets: (T,) relative to it.
        first, last: (B,) rows of the episode of each.
    """
    wanted = rows[:, None] + offsets
    clipped = np.minimum(wanted, last[:, None])
    np.maximum(clipped, first[:, None], out=clipped)
    return clipped, clipped != wanted


class Stretches:
    """The same T offsets of many rows of a table (N, D) float32.

    Where the offsets are consecutive and the window lies within its episode, its T rows are one piece of memory and
    are copied as such; only windows that leave their episode are gathered row by row.
    """

    def __init__(self, table: Float32, offsets: Int64) -> None:
        self._table, self._offsets = table, offsets
        self._pieces: NDArray[np.void] | None = None
        length, row_bytes = len(offsets), table.itemsize * table.shape[1]
        if (np.diff(offsets) == 1).all() and table.flags.c_contiguous and row_bytes and len(table) >= length:
            # Item i is rows i … i + T - 1, overlapping those of item i + 1: numpy copies an item as one.
            shape, dtype = (len(table) - length + 1,), np.dtype(f"V{row_bytes * length}")
            self._pieces = np.ndarray(shape, dtype, buffer=table.data, strides=(row_bytes,))

    def take(self, rows: Int64, first: Int64, last: Int64) -> tuple[Float32, Bool]:
        """(B, T, D) the table's rows, and (B, T) whether each is a repetition of its episode's first or last one."""
        if self._pieces is None:
            return self._gather(rows, first, last)
        starts = rows + self._offsets[0]
        leaving = np.flatnonzero((starts < first) | (rows + self._offsets[-1] > last))
        np.minimum(starts, len(self._pieces) - 1, out=starts)
        np.maximum(starts, 0, out=starts)
        taken = self._pieces[starts].view(np.float32).reshape(len(rows), len(self._offsets), -1)
        is_pad = np.zeros(taken.shape[:2], bool)
        if len(leaving):
            taken[leaving], is_pad[leaving] = self._gather(rows[leaving], first[leaving], last[leaving])
        return taken, is_pad

    def _gather(self, rows: Int64, first: Int64, last: Int64) -> tuple[Float32, Bool]:
        clipped, is_pad = clip_to_episode(rows, self._offsets, first, last)
        return self._table.take(clipped, axis=0), is_pad


class MappedTable:
    """A memory-mapped table of which this process holds only so much at a time, however much of it is read.

    Pages that were read count as the process's memory until it lets go of them, although they belong to the system's
    cache; a large dataset would seem to fill the memory, and does where that is limited by a container.
    """

    def __init__(self, table: NDArray[Any]) -> None:
        self._table = np.asarray(table)
        self._read_bytes = 0
        self._map = _map_of(table) if self._table.nbytes > RESIDENT_BYTES and hasattr(mmap, "MADV_DONTNEED") else None

    def take(self, rows: Int64) -> NDArray[Any]:
        """`table[rows]`."""
        taken: NDArray[Any] = self._table.take(rows, axis=0)
        if self._map is not None:
            self._read_bytes += taken.nbytes
            if self._read_bytes > RESIDENT_BYTES:
                self._map.madvise(mmap.MADV_DONTNEED)
                self._read_bytes = 0
        return taken


def _map_of(table: Any) -> mmap.mmap | None:
    while table is not None and not isinstance(table, mmap.mmap):
        table = getattr(table, "base", None)
    return table
