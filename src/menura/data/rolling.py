"""A table in several parquet files, of which the last grows by being replaced."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from menura.files import replacing

FILES_PER_CHUNK = 1000
_EPISODES_PER_FILE = 100
_BYTES_PER_FILE = 8 * 2**20


def chunk_and_file(number: int) -> tuple[int, int]:
    """Where the `number`-th file of a kind lies."""
    return divmod(number, FILES_PER_CHUNK)


def file_number(chunk: NDArray[np.int64], file: NDArray[np.int64]) -> NDArray[np.int64]:
    """The inverse of `chunk_and_file`."""
    return chunk * FILES_PER_CHUNK + file


class RollingTable:
    """One part an episode. The file that grows holds at most 100 episodes and 8 MiB, so that adding stays cheap.

    A part is staged (on disk, but nothing refers to it) and then accepted; what is staged next replaces what was not.

    Args:
        path: of the n-th file.
        group_parts: each part is a row group of its own, so that it can be read alone; else a file is one row group.
    """

    def __init__(self, path: Callable[[int], Path], *, group_parts: bool) -> None:
        self._path = path
        self._group_parts = group_parts
        self._number = 0
        self._parts: list[pa.Table] = []
        self._bytes = 0  # of the parts: asking each of them for every episode would take longer than writing
        self._staged: tuple[int, list[pa.Table], int] | None = None

    def resume(self, number: int, parts: list[pa.Table]) -> None:
        """Goes on with file `number`, which holds these parts; what else is in it is dropped with the next part."""
        self._number, self._parts, self._bytes = number, parts, sum(part.nbytes for part in parts)

    @property
    def number(self) -> int:
        """Of the file that grows."""
        return self._number

    def place(self, nbytes: int) -> int:
        """The number of the file that a part of this size will be in."""
        full = len(self._parts) >= _EPISODES_PER_FILE or self._bytes + nbytes > _BYTES_PER_FILE
        return self._number + 1 if self._parts and full else self._number

    def stage(self, part: pa.Table, number: int) -> None:
        """Writes file `number` with this part at its end; the schema's metadata is the part's."""
        goes_on = number == self._number
        parts = [*self._parts, part] if goes_on else [part]
        tables = [each.replace_schema_metadata(part.schema.metadata) for each in parts]
        with replacing(self._path(number)) as path, pq.ParquetWriter(path, part.schema) as writer:
            for table in tables if self._group_parts else [pa.concat_tables(tables)]:
                writer.write_table(table, row_group_size=len(table))
        self._staged = number, parts, part.nbytes + (self._bytes if goes_on else 0)

    def accept(self) -> None:
        """What was staged is now part of the table."""
        if self._staged is not None:
            self._number, self._parts, self._bytes = self._staged
            self._staged = None
