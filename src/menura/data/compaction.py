"""Many small files of a LeRobotDataset v3.0 made into few large ones, as the format prefers."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import filelock
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from menura.data.episode_writer import LOCK
from menura.data.joining import JoinedVideo
from menura.data.readers.lerobot import LeRobotReader
from menura.data.readers.lerobot_meta import (
    EPISODES,
    EPISODES_PATH,
    OWN_KEY,
    EpisodeTable,
    Info,
    open_parquet,
    read_episodes,
    read_info,
    read_parquet,
)
from menura.data.rolling import chunk_and_file
from menura.errors import ConfigError, DataError
from menura.files import TEMPORARY, new_directory, recover_directory

_MB = 10**6


def compact(
    root: str | Path,
    output_dir: str | Path | None = None,
    *,
    in_place: bool = False,
    data_file_mb: float = 100,
    video_file_mb: float = 200,
    progress: bool = True,
) -> Path:
    """Writes a LeRobotDataset v3.0 again in few large files. What it reads as does not change.

    Videos are joined without encoding them again, so that every pixel stays; data files have one row group an episode;
    the table of episodes, with LeRobot's and our own facts, becomes one file. The new directory appears at once, whole.

    Args:
        root: the dataset, of Menura or LeRobot.
        output_dir: where the new one goes; new or empty.
        in_place: put the new one in the place of the old one, which is removed then.
        data_file_mb, video_file_mb: a file is full when it is larger than this.
        progress: show a bar on stderr.

    Returns:
        The directory of the new dataset.

    Raises:
        ConfigError: not exactly one of `output_dir` and `in_place`.
        DataError: a damaged dataset, one that is being written, or an output directory with something in it.
    """
    source = Path(root).expanduser().resolve()
    if (output_dir is None) != in_place:
        raise ConfigError("compact: expected output_dir, or in_place, and not both. Say where the new dataset goes.")
    final = source if output_dir is None else Path(output_dir).expanduser().resolve()
    recover_directory(final)
    if final != source and final.exists() and any(final.iterdir()):
        raise DataError(f"{final}: expected a new or empty directory, got files in it. Choose another one.")
    with ExitStack() as stack:
        if (source / LOCK).exists():
            stack.enter_context(_unwritten(source))
        new = stack.enter_context(new_directory(final))
        _Compaction(source, new, data_file_mb * _MB, video_file_mb * _MB, progress).run()
    return final


def _unwritten(root: Path) -> Any:
    lock = filelock.FileLock(root / LOCK, timeout=0)
    try:
        return lock.acquire()
    except filelock.Timeout as error:
        raise DataError(f"compact: {root} is being written by another process. Wait for it.") from error


class _Compaction:
    """Of `source` into the directory `new`."""

    def __init__(self, source: Path, new: Path, data_bytes: float, video_bytes: float, progress: bool) -> None:
        self._source = source
        self._new = new
        self._data_bytes = data_bytes
        self._video_bytes = video_bytes
        self._progress = progress
        self._info: Info = read_info(source)
        self._cameras = [key for key, spec in self._info.features.items() if spec["dtype"] == "video"]
        self._episodes: EpisodeTable = read_episodes(source, self._cameras)

    def run(self) -> None:
        columns: dict[str, list[Any]] = {}
        bar_columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*bar_columns, console=Console(stderr=True), disable=not self._progress, transient=True) as bar:
            shown = bar.add_task("Compacting: episodes", total=len(self._episodes) * (1 + len(self._cameras)))
            kinds = [("data", self._join_data()), *((f"videos/{key}", self._join(key)) for key in self._cameras)]
            for kind, places in kinds:
                for place in places:
                    for name, value in place.items():
                        columns.setdefault(f"{kind}/{name}", []).append(value)
                    bar.advance(shown)
        self._write_table(columns)
        self._copy_the_rest()
        if not np.array_equal(LeRobotReader(self._new).lengths(), self._episodes.length):
            raise DataError(f"{self._source}: expected the same episodes in fewer files, got others. Report this.")

    def _join_data(self) -> Iterator[dict[str, Any]]:
        """Writes the data files; the place of each episode."""
        number, rows, nbytes = 0, pa.table({}), 0
        opened: tuple[int, int] | None = None
        writer: pq.ParquetWriter | None = None
        table = self._episodes
        for length, chunk, file, offset in zip(
            table.length.tolist(), table.chunk.tolist(), table.file.tolist(), table.offset.tolist(), strict=True
        ):
            if opened != (chunk, file):
                opened, path = (chunk, file), self._data_path(self._source, chunk, file)
                with open_parquet(path) as parquet:
                    rows = read_parquet(path, parquet, None)
            episode = rows.slice(offset, length)
            if len(episode) != length:
                raise DataError(f"{path}: expected {length} rows from {offset} on, got {len(episode)}. Fetch it again.")
            if writer is not None and nbytes + episode.nbytes > self._data_bytes:
                writer.close()
                writer, nbytes, number = None, 0, number + 1
            chunk_index, file_index = chunk_and_file(number)
            if writer is None:
                new = self._data_path(self._new, chunk_index, file_index)
                new.parent.mkdir(parents=True, exist_ok=True)
                writer = pq.ParquetWriter(new, rows.schema)
            writer.write_table(episode, row_group_size=length)
            nbytes += episode.nbytes
            yield {"chunk_index": chunk_index, "file_index": file_index}
        if writer is not None:
            writer.close()

    def _join(self, key: str) -> Iterator[dict[str, Any]]:
        """Writes the videos of a camera; the place of each episode."""
        number, fps = 0, self._info.fps
        span = self._episodes.videos[key]
        joined: JoinedVideo | None = None
        for length, chunk, file, seconds in zip(
            self._episodes.length.tolist(),
            span.chunk.tolist(),
            span.file.tolist(),
            span.from_timestamp.tolist(),
            strict=True,
        ):
            source = self._video_path(self._source, key, chunk, file)
            if joined is not None and (joined.nbytes >= self._video_bytes or not joined.continues(source)):
                joined.close()
                joined, number = None, number + 1
            chunk_index, file_index = chunk_and_file(number)
            if joined is None:
                joined = JoinedVideo(self._video_path(self._new, key, chunk_index, file_index), fps)
            first = joined.frames
            joined.append(source, round(seconds * fps), length)
            yield {
                "chunk_index": chunk_index,
                "file_index": file_index,
                "from_timestamp": first / fps,
                "to_timestamp": (first + length) / fps,
            }
        if joined is not None:
            joined.close()

    def _write_table(self, columns: dict[str, list[Any]]) -> None:
        """The table of episodes as one file: the old columns, with the new places."""
        paths = sorted((self._source / EPISODES).glob("chunk-*/file-*.parquet"))
        tables = []
        for path in paths:
            with open_parquet(path) as file:
                tables.append(read_parquet(path, file, None))
        notes = [(table.schema.metadata or {}).get(OWN_KEY) for table in tables]
        table = pa.concat_tables([each.replace_schema_metadata(None) for each in tables], promote_options="default")
        here = {f"meta/episodes/{part}": [0] * len(table) for part in ("chunk_index", "file_index")}
        for name, values in {**columns, **here}.items():
            place, field = table.schema.get_field_index(name), pa.array(values)
            table = table.append_column(name, field) if place < 0 else table.set_column(place, name, field)
        if all(notes):  # else another program has added episodes, which our totals do not count
            last = json.loads(notes[-1] or b"{}")
            own = {**last, "episodes": [dict(fact) for fact in self._episodes.own]}
            table = table.replace_schema_metadata({OWN_KEY: json.dumps(own).encode()})
        new = self._new / EPISODES_PATH.format(chunk_index=0, file_index=0)
        new.parent.mkdir(parents=True)
        pq.write_table(table, new)

    def _copy_the_rest(self) -> None:
        """What is neither data nor video nor the table: counts, statistics, tasks, a card, notes."""
        joined = [self._source / part for part in ("data", "videos", EPISODES)]
        for path in sorted(self._source.rglob("*")):
            new = self._new / path.relative_to(self._source)
            skipped = path.name.startswith(TEMPORARY) or path.name == LOCK
            if path.is_file() and not skipped and not any(path.is_relative_to(part) for part in joined):
                new.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(path, new)

    def _data_path(self, root: Path, chunk: int, file: int) -> Path:
        return root / self._info.data_path.format(chunk_index=chunk, file_index=file)

    def _video_path(self, root: Path, key: str, chunk: int, file: int) -> Path:
        if self._info.video_path is None:
            raise DataError(f"{root}: video_path: expected a path for {key!r} in meta/info.json, got null.")
        return root / self._info.video_path.format(video_key=key, chunk_index=chunk, file_index=file)
