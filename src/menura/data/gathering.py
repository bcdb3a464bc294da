"""Rows of a table, gathered for many windows at once. Torch-free.

Shapes: B batch, T offsets, N rows of the table, D its width, E episodes.
"""

from __future__ import annotations

import mmap
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from menura.data.episode import Float32

# What a process keeps of one memory map before it lets go of it. The pages stay in the system's cache.
RESIDENT_BYTES = 600_000_000
# What a copy of the actions may take of the memory, so that every window is one piece of it: two million rows of 14.
PADDED_BYTES = 128_000_000

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


class Chunks(Protocol):
    """The actions at the same T offsets of many rows of a table (N, D) float32."""

    def take(self, rows: Int64, used: Int64) -> tuple[Float32, Bool]:
        """(B, T, D) the table's rows, and (B, T) whether each is a repetition of its episode's first or last one.

        Args:
            rows: (B,) where each window begins.
            used: (B,) in which of the episodes that is.
        """
        ...


def chunks(table: Float32, offsets: Int64, firsts: Int64, lasts: Int64) -> Chunks:
    """Chunks at these offsets (T,) within episodes whose first and last rows (E,) are these."""
    consecutive = bool((np.diff(offsets) == 1).all()) and table.shape[1] > 0
    if consecutive and PaddedChunks.rows_of(offsets, firsts, lasts) * table[:1].nbytes <= PADDED_BYTES:
        return PaddedChunks(table, offsets, firsts, lasts)
    return GatheredChunks(table, offsets, firsts, lasts)


class GatheredChunks:
    """Chunks gathered row by row, as `Chunks` says."""

    def __init__(self, table: Float32, offsets: Int64, firsts: Int64, lasts: Int64) -> None:
        self._table, self._offsets, self._firsts, self._lasts = table, offsets, firsts, lasts

    def take(self, rows: Int64, used: Int64) -> tuple[Float32, Bool]:
        clipped, is_pad = clip_to_episode(rows, self._offsets, self._firsts[used], self._lasts[used])
        return self._table.take(clipped, axis=0), is_pad


class PaddedChunks:
    """Chunks of consecutive offsets out of a copy of the table, each one piece of memory; as `Chunks` says.

    In the copy every episode goes on as far as a window may leave it: its first row is repeated before it and its last
    row after it. So every window is T rows that lie side by side, and so are the T flags that say which are repeated.
    """

    def __init__(self, table: Float32, offsets: Int64, firsts: Int64, lasts: Int64) -> None:
        before, after = max(0, -int(offsets[0])), max(0, int(offsets[-1]))
        padded = lasts - firsts + 1 + before + after
        begins = np.cumsum(padded) - padded
        # Added to a row of the table, it is the row of the copy where that row's window begins.
        self._shifts: Int64 = begins - firsts + before + int(offsets[0])
        wanted = np.arange(padded.sum()) + np.repeat(firsts - before - begins, padded)
        rows = np.clip(wanted, np.repeat(firsts, padded), np.repeat(lasts, padded))
        self._shape = (len(offsets), table.shape[1])
        self._actions = _overlapping(table.take(rows, axis=0), len(offsets))
        self._is_pad = _overlapping(rows != wanted, len(offsets))

    @staticmethod
    def rows_of(offsets: Int64, firsts: Int64, lasts: Int64) -> int:
        """How many rows the copy has."""
        beyond = max(0, -int(offsets[0])) + max(0, int(offsets[-1]))
        return int((lasts - firsts + 1 + beyond).sum())

    def take(self, rows: Int64, used: Int64) -> tuple[Float32, Bool]:
        pieces = rows + self._shifts.take(used)
        actions = self._actions[pieces].view(np.float32).reshape(len(rows), *self._shape)
        return actions, self._is_pad[pieces].view(np.bool_).reshape(len(rows), -1)


def _overlapping(table: NDArray[Any], length: int) -> NDArray[np.void]:
    """Every `length` neighbouring rows of a table as one item, overlapping the next: numpy copies an item as one."""
    row_bytes = table[:1].nbytes
    shape, dtype = (len(table) - length + 1,), np.dtype(f"V{row_bytes * length}")
    items: NDArray[np.void] = np.ndarray(shape, dtype, buffer=table.data, strides=(row_bytes,))
    return items


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
