"""What a LeRobotWriter has written so far: nothing at first, or what is found on disk when it goes on."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from menura.data.lerobot_stats import ChannelHistogram
from menura.data.lerobot_tables import numeric_keys
from menura.data.readers.lerobot_meta import (
    DATA_PATH,
    EPISODES_PATH,
    OWN_KEY,
    VIDEO_PATH,
    matrix,
    open_parquet,
    read_episodes,
    read_parquet,
    read_tasks,
)
from menura.data.rolling import RollingTable, chunk_and_file, file_number
from menura.data.statistics import StatisticsBuilder
from menura.errors import DataError


@dataclass
class Written:
    """The state of a dataset that is being written.

    Attributes:
        data, table: the data files and the episodes table.
        builders: statistics of each numeric feature.
        histograms: of each camera.
        facts: of each episode in the growing file of the episodes table.
        tasks: texts, by task index.
        episodes, frames: how many are in the dataset.
    """

    data: RollingTable
    table: RollingTable
    builders: dict[str, StatisticsBuilder]
    histograms: dict[str, ChannelHistogram]
    facts: list[dict[str, Any]] = field(default_factory=list)
    tasks: list[str] = field(default_factory=list)
    episodes: int = 0
    frames: int = 0


def nothing_written(root: Path, specs: Mapping[str, Mapping[str, Any]]) -> Written:
    """A dataset of no episodes yet."""
    return Written(
        data=RollingTable(lambda number: _path(root, DATA_PATH, number), group_parts=True),
        table=RollingTable(lambda number: _path(root, EPISODES_PATH, number), group_parts=False),
        builders={key: StatisticsBuilder(feature=key, names=specs[key]["names"]) for key in numeric_keys(specs)},
        histograms={key: ChannelHistogram() for key in specs if key not in numeric_keys(specs)},
    )


def take_up(root: Path, specs: Mapping[str, Mapping[str, Any]]) -> Written:
    """What the episodes table holds. Removes what a kill left beside it: rows and videos of no episode.

    Raises:
        DataError: a file that the table names is absent or damaged.
    """
    written = nothing_written(root, specs)
    written.tasks = read_tasks(root)
    data_files = 0
    if _path(root, EPISODES_PATH, 0).exists():
        episodes = read_episodes(root, [])
        written.episodes, written.frames = len(episodes), int(episodes.length.sum())
        _take_up_table(written, root)
        numbers = file_number(episodes.chunk, episodes.file)
        data_files = int(numbers[-1]) + 1
        for number in range(data_files):
            lengths = episodes.length[numbers == number]
            _take_up_data(written, root, number, lengths.tolist(), specs, last=number == data_files - 1)
    _remove_from(root, DATA_PATH, data_files)
    for key, spec in specs.items():
        if spec["dtype"] == "video":
            _remove_from(root, VIDEO_PATH.replace("{video_key}", key), written.episodes)
    return written


def _take_up_table(written: Written, root: Path) -> None:
    number = 0
    while _path(root, EPISODES_PATH, number + 1).exists():
        number += 1
    path = _path(root, EPISODES_PATH, number)
    with open_parquet(path) as file:
        table = read_parquet(path, file, None)
    if OWN_KEY not in (table.schema.metadata or {}):
        raise DataError(f"{path}: expected a table of LeRobotWriter, got one of another program. Go on with that one.")
    written.table.resume(number, [table.slice(row, 1) for row in range(len(table))])
    noted = json.loads(table.schema.metadata[OWN_KEY])
    written.facts = noted["episodes"]
    written.histograms = {key: ChannelHistogram.from_dict(counts) for key, counts in noted["histograms"].items()}


def _take_up_data(
    written: Written,
    root: Path,
    number: int,
    lengths: list[int],
    specs: Mapping[str, Mapping[str, Any]],
    *,
    last: bool,
) -> None:
    path = _path(root, DATA_PATH, number)
    numeric = numeric_keys(specs)
    with open_parquet(path) as file:
        table = read_parquet(path, file, None if last else numeric)
    ends = np.cumsum(lengths).tolist()
    parts = [table.slice(end - length, length) for end, length in zip(ends, lengths, strict=True)]
    for part in parts:  # one by one, as they were written, so that the statistics are the same to the last bit
        for key in numeric:
            written.builders[key].update(matrix(part.column(key), specs[key]["shape"][0], f"{path}: {key}"))
    if last:
        written.data.resume(number, parts)


def _remove_from(root: Path, template: str, number: int) -> None:
    """Removes the files of this kind from `number` on."""
    while (path := _path(root, template, number)).exists():
        path.unlink()
        number += 1


def _path(root: Path, template: str, number: int) -> Path:
    chunk, file = chunk_and_file(number)
    return root / template.format(chunk_index=chunk, file_index=file)
