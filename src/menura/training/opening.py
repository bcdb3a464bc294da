"""The datasets of a task, opened. Torch-free: what is wrong with them is told before torch is imported."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from menura.config import ResolvedTask
from menura.data import Reader, open_dataset
from menura.data.selection import Filter, require_names
from menura.data.tools.writing import unfinished
from menura.errors import ConfigError, DataError, TrainingError
from menura.user_code import naming_users_line


def open_datasets(task: ResolvedTask) -> list[Reader]:
    """The datasets of a task, in order; their filters are not applied, only their names are looked up.

    Raises:
        ConfigError: more than one dataset with `data.store: stream`.
        DataError: nothing is there, its writing was interrupted, something is damaged or not said, or a filter names
            what no episode has.
        TrainingError: the project's own dataset or wrapper raised an error, which is the cause.
    """
    config = task.config
    streams = config.data.store == "stream"
    if streams and len(config.datasets) > 1:
        raise ConfigError(
            f"data.store: stream: expected one dataset, got {len(config.datasets)} ({task.locate('data.store')})"
        )
    readers = []
    for number, dataset in enumerate(config.datasets):
        key = f"datasets.{number}"
        with naming_users_line(task.project, TrainingError), _error_at(task, key):
            _require_whole(task, dataset.path)
            reader = open_dataset(
                {**dataset.model_dump(by_alias=True), "filter": None},
                project=task.project,
                stream=streams,
                cache_dir=config.data.cache_dir,
                budget_bytes=config.data.store_budget_gb * 1e9,
            )
        if dataset.filter is not None:
            with naming_users_line(task.project, TrainingError), _error_at(task, f"{key}.filter"):
                require_names(reader, Filter.of(dataset.filter.model_dump()))
        readers.append(reader)
    return readers


def _require_whole(task: ResolvedTask, path: str | None) -> None:
    source = None if path is None else unfinished(task.project / Path(path).expanduser())
    if source is not None:
        raise DataError(
            f"Dataset {path}: expected a whole one, got one whose writing (of {source!r}) was interrupted. "
            "Run that command again: it goes on."
        )


@contextmanager
def _error_at(task: ResolvedTask, key: str) -> Iterator[None]:
    """What is wrong with the data is told with the line that names it."""
    try:
        yield
    except DataError as problem:
        raise DataError(f"{problem} ({task.locate(key)})") from problem
