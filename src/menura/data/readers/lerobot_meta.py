"""The tables of a LeRobotDataset under `meta/`: what every file and every episode is. Those of v3.0 are read here.

Source of the format: LeRobot 0.6, `datasets/utils.py` and `docs/source/lerobot-dataset-v3.mdx`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from menura.data.episode import Float32
from menura.errors import DataError

INFO = "meta/info.json"
TASKS = "meta/tasks.parquet"
EPISODES = "meta/episodes"
EPISODES_PATH = EPISODES + "/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
DATA_PATH = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"  # of what we write; others say in info.json
VIDEO_PATH = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"
STATS = "meta/stats.json"
STATE = "observation.state"
ACTION = "action"
OWN = "meta/menura.json"  # a file of our own: LeRobot warns of keys it does not know in its info.json
OWN_KEY = b"menura"  # our facts on each episode, in the schema metadata of the episodes' tables


@dataclass(frozen=True)
class Info:
    """`meta/info.json`.

    Attributes:
        fps: frames per second.
        features: key -> {"dtype", "shape", "names", …}.
        total_episodes: as counted there; the episodes table is the truth.
        data_path, video_path: templates with `chunk_index`, `file_index` and `video_key`; of version 2 with
            `episode_chunk`, `episode_index` and `video_key`.
        chunks_size: of version 2: episodes in a chunk.
        robot_type: what was driven.
        own: what Menura's writer noted in `meta/menura.json`; empty for data of others.
    """

    fps: float
    features: Mapping[str, Mapping[str, Any]]
    total_episodes: int
    data_path: str
    video_path: str | None
    chunks_size: int
    robot_type: str | None
    own: Mapping[str, Any]

    def data_file(self, chunk: int, file: int) -> str:
        """A data file's path below the root. In version 2 the file is the episode."""
        return self.data_path.format(chunk_index=chunk, file_index=file, episode_chunk=chunk, episode_index=file)

    def video_file(self, key: str, chunk: int, file: int) -> str | None:
        """The same of a camera's video; None where the dataset says it has no videos."""
        if self.video_path is None:
            return None
        return self.video_path.format(
            video_key=key, chunk_index=chunk, file_index=file, episode_chunk=chunk, episode_index=file
        )


def read_info(root: Path, versions: Sequence[str] = ("v3.0",)) -> Info:
    """`meta/info.json`, and `meta/menura.json` where it is; DataError for another version or missing keys.

    Minor versions after the last of `versions` are read too.
    """
    path = root / INFO
    raw = read_json(path)
    version = str(raw.get("codebase_version", "unknown"))
    if not version.startswith(versions[0].partition(".")[0] + "."):
        raise DataError(
            f"{path}: expected codebase_version {' or '.join(versions)}, got {version}. "
            f"Leave `format:` out to have it recognised; versions 2.0, 2.1 and 3.0 are read."
        )
    missing = [key for key in ("fps", "features", "total_episodes", "data_path") if key not in raw]
    if missing:
        raise DataError(f"{path}: expected keys fps, features, total_episodes and data_path, {missing} missing.")
    unclear = [key for key, spec in raw["features"].items() if not {"dtype", "shape"} <= set(spec)]
    if unclear:
        raise DataError(
            f"{path}: features: expected dtype and shape of each, missing in {unclear}. Fetch the file again."
        )
    if not raw["fps"] > 0:
        raise DataError(f"{path}: fps: expected > 0, got {raw['fps']}.")
    own = root / OWN
    return Info(
        fps=float(raw["fps"]),
        features=raw["features"],
        total_episodes=int(raw["total_episodes"]),
        data_path=raw["data_path"],
        video_path=raw.get("video_path"),
        chunks_size=int(raw.get("chunks_size", 1000)),
        robot_type=raw.get("robot_type"),
        own=read_json(own) if own.exists() else {},
    )


def read_json(path: Path) -> dict[str, Any]:
    """The object a file holds; DataError where it is absent or damaged."""
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise DataError(f"{path}: expected a file, found none. Fetch the dataset again.") from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: not JSON ({error}). Fetch the file again.") from error
    if not isinstance(raw, dict):
        raise DataError(f"{path}: expected a JSON object, got {type(raw).__name__}. Fetch the file again.")
    return raw


@dataclass(frozen=True)
class VideoSpan:
    """Where each episode of one camera lies; every array is (E,)."""

    chunk: NDArray[np.int64]
    file: NDArray[np.int64]
    from_timestamp: NDArray[np.float64]


@dataclass(frozen=True)
class EpisodeTable:
    """One row an episode, in order; every array is (E,).

    Attributes:
        length: frames.
        chunk, file: which data file.
        offset: the episode's first row in that file.
        first: the episode's first row in the dataset (column `dataset_from_index`).
        tasks: the tasks in words, a list an episode, kept as Arrow has it: Python's would take longer and more room.
        videos: camera key -> where its frames are.
        own: facts that Menura's writer noted on each episode; empty for data of others.
    """

    length: NDArray[np.int64]
    chunk: NDArray[np.int64]
    file: NDArray[np.int64]
    offset: NDArray[np.int64]
    first: NDArray[np.int64]
    tasks: pa.Array
    videos: Mapping[str, VideoSpan]
    own: Sequence[Mapping[str, Any]]

    def __len__(self) -> int:
        return len(self.length)

    @property
    def has_tasks(self) -> bool:
        """Whether any episode has words."""
        return any(self.tasks.flatten().unique().to_pylist())

    def tasks_of(self, row: int) -> list[str]:
        """The tasks of an episode, each once."""
        return [task for task in self.tasks[row].as_py() or () if task is not None]


def read_episodes(root: Path, video_keys: list[str]) -> EpisodeTable:
    """The episodes table, without the statistics in it."""
    paths = sorted((root / EPISODES).glob("chunk-*/file-*.parquet"))
    if not paths:
        raise DataError(
            f"{root / EPISODES}: expected chunk-*/file-*.parquet, found none. "
            f"No episode was finished here, or not everything was fetched."
        )
    columns = ["episode_index", "length", "data/chunk_index", "data/file_index", "dataset_from_index"]
    video_columns = [
        f"videos/{key}/{part}" for key in video_keys for part in ("chunk_index", "file_index", "from_timestamp")
    ]
    tables: list[pa.Table] = []
    own: list[Mapping[str, Any]] = []
    for path in paths:
        # A few columns of very many: a map would keep the pages between them resident too.
        with open_parquet(path, memory_map=False) as file:
            present = set(file.schema_arrow.names)
            missing = [column for column in (*columns, *video_columns) if column not in present]
            if missing:
                raise DataError(f"{path}: expected columns {missing}, found none of them. Fetch the dataset again.")
            optional = ["tasks"] if "tasks" in present else []
            tables.append(read_parquet(path, file, [*columns, *video_columns, *optional]))
            noted = (file.schema_arrow.metadata or {}).get(OWN_KEY)
            own += json.loads(noted)["episodes"] if noted else [{}] * file.metadata.num_rows
    table = pa.concat_tables(tables, promote_options="default")
    episode = _int(table, "episode_index")
    if not np.array_equal(episode, np.arange(len(episode))):
        wrong = int(np.flatnonzero(episode != np.arange(len(episode)))[0])
        raise DataError(
            f"{root / EPISODES}: expected row {wrong} to be episode {wrong}, got episode {episode[wrong]}. "
            f"A file of the table is missing or doubled; fetch the dataset again."
        )
    chunk, file_index, first = (_int(table, c) for c in ("data/chunk_index", "data/file_index", "dataset_from_index"))
    no_tasks = pa.nulls(len(episode), pa.list_(pa.string()))
    tasks = table.column("tasks").combine_chunks() if "tasks" in table.column_names else no_tasks
    return EpisodeTable(
        length=_int(table, "length"),
        chunk=chunk,
        file=file_index,
        offset=first - _first_of_file(chunk, file_index, first),
        first=first,
        tasks=tasks,
        videos={
            key: VideoSpan(
                chunk=_int(table, f"videos/{key}/chunk_index"),
                file=_int(table, f"videos/{key}/file_index"),
                from_timestamp=table.column(f"videos/{key}/from_timestamp").to_numpy(),
            )
            for key in video_keys
        },
        own=own,
    )


def _int(table: pa.Table, column: str) -> NDArray[np.int64]:
    return table.column(column).to_numpy().astype(np.int64, copy=False)  # type: ignore[no-any-return]


def _first_of_file(chunk: NDArray[np.int64], file: NDArray[np.int64], first: NDArray[np.int64]) -> NDArray[np.int64]:
    """For each episode, the dataset row at which its data file begins."""
    _, file_id = np.unique(np.stack([chunk, file], axis=1), axis=0, return_inverse=True)
    file_id = file_id.reshape(-1)
    begin = np.full(file_id.max(initial=-1) + 1, np.iinfo(np.int64).max)
    np.minimum.at(begin, file_id, first)
    return begin[file_id]


def read_tasks(root: Path) -> list[str]:
    """Task texts by `task_index`; empty where the dataset has no language.

    The text is a pandas index there, so its column may have any name.
    """
    path = root / TASKS
    if not path.exists():
        return []
    with open_parquet(path) as file:
        table = read_parquet(path, file, None)
    texts = next((name for name in ("task", "__index_level_0__") if name in table.column_names), None)
    if texts is None or "task_index" not in table.column_names:
        raise DataError(
            f"{path}: expected columns task and task_index, got {table.column_names}. Fetch the file again."
        )
    by_index = dict(zip(table.column("task_index").to_pylist(), table.column(texts).to_pylist(), strict=True))
    return [by_index.get(index, "") for index in range(max(by_index, default=-1) + 1)]


def open_parquet(path: Path, *, memory_map: bool = True) -> pq.ParquetFile:
    """The file; DataError where it is absent or has no footer."""
    try:
        return pq.ParquetFile(path, memory_map=memory_map)
    except FileNotFoundError as error:
        raise DataError(f"{path}: expected a file, found none. Fetch the dataset again.") from error
    except (pa.ArrowInvalid, OSError) as error:
        raise DataError(f"{path}: damaged or cut off ({_first_line(error)}). Fetch the file again.") from error


def read_parquet(
    path: Path, file: pq.ParquetFile, columns: list[str] | None, row_groups: list[int] | None = None
) -> pa.Table:
    """These columns of these row groups (all when not given); DataError where the file is damaged."""
    groups = list(range(file.metadata.num_row_groups)) if row_groups is None else row_groups
    try:
        return file.read_row_groups(groups, columns=columns, use_threads=False)
    except (pa.ArrowInvalid, OSError) as error:
        raise DataError(f"{path}: damaged or cut off ({_first_line(error)}). Fetch the file again.") from error


def _first_line(error: BaseException) -> str:
    return str(error).splitlines()[0].rstrip(".")


def _is_list(kind: pa.DataType) -> bool:
    return isinstance(kind, (pa.FixedSizeListType, pa.ListType, pa.LargeListType))


def matrix(column: pa.ChunkedArray, width: int, what: str) -> Float32:
    """(T, width) float32 of a column of numbers or of (nested) lists of numbers; `what` names it in messages."""
    values: Any = column.combine_chunks()
    rows = len(values)
    if isinstance(values, pa.ExtensionArray):  # an array of two dimensions and more, where `datasets` is imported
        values = values.storage
    while _is_list(values.type):
        values = values.flatten()
    numbers: NDArray[Any] = values.to_numpy(zero_copy_only=False)
    if len(numbers) != rows * width or numbers.dtype == object:
        raise DataError(
            f"{what}: expected {width} numbers a frame as meta/info.json says, got {column.type}. "
            f"Fetch the dataset again."
        )
    return numbers.reshape(rows, width).astype(np.float32)
