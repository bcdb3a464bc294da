"""LeRobotDataset v2.0 and v2.1, read as they lie on disk: one parquet file and one video a camera for each episode.

Source of the format: LeRobot 0.3.3, `datasets/utils.py`. v2.1 differs in its statistics only (`episodes_stats.jsonl`
instead of `stats.json`), which are not needed here.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from menura.data.readers.lerobot import LeRobotReader
from menura.data.readers.lerobot_meta import EpisodeTable, VideoSpan
from menura.errors import DataError

_EPISODES = "meta/episodes.jsonl"
_TASKS = "meta/tasks.jsonl"


class LeRobotV2Reader(LeRobotReader):
    """A LeRobotDataset v2.0 or v2.1; everything else is as with v3.0."""

    versions: ClassVar[Sequence[str]] = ("v2.0", "v2.1")
    episodes_file: ClassVar[str] = _EPISODES

    def _read_episodes(self, video_keys: list[str]) -> EpisodeTable:
        path = self.root / _EPISODES
        rows = sorted(_read_lines(path, {"episode_index": int, "length": int}), key=lambda row: row["episode_index"])
        length = np.array([row["length"] for row in rows], np.int64)
        episode = np.array([row["episode_index"] for row in rows], np.int64)
        number = np.arange(len(rows))
        if not np.array_equal(episode, number):
            wrong = int(np.flatnonzero(episode != number)[0])
            raise DataError(
                f"{path}: expected the episodes 0 … {len(rows) - 1}, each once, "
                f"got {episode[wrong]} instead of {wrong}. Fetch the dataset again."
            )
        chunk, zeros = number // self._info.chunks_size, np.zeros(len(rows), np.int64)
        return EpisodeTable(
            length=length,
            chunk=chunk,
            file=number,
            offset=zeros,
            first=np.cumsum(length) - length,
            tasks=pa.array([row.get("tasks") for row in rows], pa.list_(pa.string())),
            videos={key: VideoSpan(chunk, number, zeros.astype(np.float64)) for key in video_keys},
            own=[{}] * len(rows),
        )

    def _rows(self, row: int, columns: list[str]) -> pa.Table:
        table, file = super()._rows(row, columns), self._data_file(row)
        if len(file) != len(table):
            raise DataError(
                f"{file.path}: expected the {len(table)} frames that {_EPISODES} says of episode {row}, "
                f"got {len(file)}. Fetch the dataset again."
            )
        return table

    def _read_tasks(self) -> list[str]:
        path = self.root / _TASKS
        if not path.exists():
            return []
        texts = {row["task_index"]: row["task"] for row in _read_lines(path, {"task_index": int, "task": str})}
        return [texts.get(index, "") for index in range(max(texts, default=-1) + 1)]


def _read_lines(path: Path, types: dict[str, type]) -> Iterator[dict[str, Any]]:
    """The objects of a JSON Lines file, each with keys of these types; DataError with the line of what is damaged."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError as error:
        raise DataError(f"{path}: expected a file, found none. Fetch the dataset again.") from error
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise DataError(f"{path}:{number}: not JSON ({error}). Fetch the file again.") from error
        if not isinstance(row, dict) or any(not isinstance(row.get(key), kind) for key, kind in types.items()):
            expected = " and ".join(f"{key} ({kind.__name__})" for key, kind in types.items())
            raise DataError(f"{path}:{number}: expected {expected}, got {line[:80]}. Fetch the file again.")
        yield row
