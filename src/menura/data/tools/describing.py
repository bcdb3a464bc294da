"""What a dataset is: counts, meaning, size on the disk, and its statistics. No frame is decoded."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Generator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from menura.data.formats import FORMATS
from menura.data.readers.base import Reader
from menura.data.statistics import Statistics, StatisticsBuilder
from menura.data.threads import available_cores
from menura.data.tools.writing import unfinished
from menura.data.workers import open_workers
from menura.data.wrappers.base import Wrapper
from menura.features import Features

# So long this process reads alone: most datasets are done then, sooner than processes start.
_MOMENT_S = 1.0
# Episodes that are handed to a process together.
_SHARE = 16


@dataclass(frozen=True)
class DatasetInfo:
    """What `menura data info` prints.

    Attributes:
        name: what the dataset is called.
        format: what people call its format; None for a class of one's own.
        episodes, frames: how many.
        shortest, longest: frames of an episode.
        tasks: instruction -> its episodes.
        solved, unsolved: episodes that are known to be.
        disk_bytes: of all files; None where the dataset is not a path.
        unfinished: the dataset that was being written here by a tool that was interrupted; else None.
    """

    name: str
    format: str | None
    features: Features
    episodes: int
    frames: int
    shortest: int
    longest: int
    tasks: dict[str, int]
    solved: int
    unsolved: int
    disk_bytes: int | None
    unfinished: str | None = None

    @property
    def seconds(self) -> float:
        return self.frames / self.features.fps

    def to_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return {**self.__dict__, "features": self.features.to_dict(), "seconds": self.seconds}


def describe(reader: Reader, path: str | Path | None = None) -> DatasetInfo:
    """What a dataset is; `path` is where its files lie."""
    lengths = reader.lengths()
    successes = Counter(reader.metadata(index).get("success") for index in range(len(reader)))
    return DatasetInfo(
        name=reader.name,
        format=_format(reader),
        features=reader.features,
        episodes=len(reader),
        frames=int(lengths.sum()),
        shortest=int(lengths.min()),
        longest=int(lengths.max()),
        tasks=dict(Counter(reader.tasks()).most_common()),
        solved=successes[True],
        unsolved=successes[False],
        disk_bytes=None if path is None else _bytes(Path(path)),
        unfinished=None if path is None else unfinished(Path(path)),
    )


def _format(reader: Reader) -> str | None:
    """The title of the format that a reader, or the one within it, reads."""
    while isinstance(reader, Wrapper):
        reader = reader.reader
    place = f"{type(reader).__module__}:{type(reader).__qualname__}"
    return next((format.title for format in FORMATS.values() if format.reader == place), None)


def dataset_statistics(
    reader: Reader, *, num_workers: int | None = None, ray: bool = False, progress: bool = False
) -> dict[str, Statistics]:
    """Exact statistics of `state` (absent where there is none) and `action`, every frame counted once.

    They are the same to the last bit whoever reads the episodes.

    Args:
        reader: the dataset.
        num_workers: processes that read; None for one a core where reading takes longer than a moment; 0 for this one.
        ray: read on a Ray cluster instead, as `build_store` says.
        progress: show a bar on stderr.

    Raises:
        DataError: a value that is not finite; says where.
    """
    features, lengths = reader.features, reader.lengths().tolist()
    named = {"action": features.action} | ({"state": features.state} if features.state else {})
    builders = {name: StatisticsBuilder(feature=name, names=feature.names) for name, feature in named.items()}
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    bar = Progress(*columns, console=Console(stderr=True), disable=not progress, transient=True)
    with closing(_tables(reader, list(named), num_workers, ray)) as tables, bar:
        shown = bar.add_task(f"Statistics of {reader.name}: frames", total=sum(lengths))
        for length, episode in zip(lengths, tables, strict=True):
            for name, table in episode.items():
                builders[name].update(table)
            bar.advance(shown, length)
    return {name: builder.result() for name, builder in builders.items()}


@dataclass(frozen=True)
class _Tables:
    """The work of one process: the named tables of a few neighbouring episodes."""

    reader: Reader
    names: list[str]
    shares: list[range]

    def __call__(self, number: int) -> list[dict[str, Any]]:
        return [self.of(index) for index in self.shares[number]]

    def of(self, index: int) -> dict[str, Any]:
        episode = self.reader.episode(index)
        return {name: getattr(episode, name) for name in self.names}


def _tables(
    reader: Reader, names: list[str], num_workers: int | None, ray: bool
) -> Generator[dict[str, Any], None, None]:
    """Those of every episode, in order."""
    first, count = 0, len(reader)
    if num_workers is None and not ray:
        begun, here = time.monotonic(), _Tables(reader, names, [])
        while first < count and time.monotonic() - begun < _MOMENT_S:
            yield here.of(first)
            first += 1
    shares = [range(start, min(start + _SHARE, count)) for start in range(first, count, _SHARE)]
    if not shares:
        return
    with (
        open_workers(available_cores() if num_workers is None else num_workers, ray=ray) as workers,
        closing(workers.in_order(_Tables(reader, names, shares), len(shares))) as records,
    ):
        for share in records:
            yield from share


def _bytes(path: Path) -> int:
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())
