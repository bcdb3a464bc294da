"""The data files of a LeRobotDataset, read by rows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from menura.data.readers.lerobot_meta import open_parquet, read_parquet
from menura.errors import DataError

BOOKKEEPING = frozenset({"timestamp", "frame_index", "episode_index", "index", "task_index"})


class DataFile:
    """One data file, with the rows at which its row groups begin."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.file: pq.ParquetFile = open_parquet(path)
        metadata = self.file.metadata
        counts = [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]
        self.begins = np.concatenate([[0], np.cumsum(counts, dtype=np.int64)])
        self.columns = frozenset(self.file.schema_arrow.names)

    def __len__(self) -> int:
        return int(self.begins[-1])

    def rows(self, start: int, stop: int, columns: list[str]) -> pa.Table:
        """Rows `start … stop - 1`, fewer where the file ends; only the row groups that hold them are read."""
        missing = [column for column in columns if column not in self.columns and column not in BOOKKEEPING]
        if missing:
            raise DataError(
                f"{self.path}: expected columns {missing} as meta/info.json says, got {sorted(self.columns)}. "
                f"Fetch the dataset again."
            )
        first = int(np.searchsorted(self.begins, start, side="right")) - 1
        last = int(np.searchsorted(self.begins, stop, side="left"))
        groups = list(range(first, min(last, len(self.begins) - 1)))
        table = read_parquet(self.path, self.file, [column for column in columns if column in self.columns], groups)
        return table.slice(start - int(self.begins[first]), stop - start)
