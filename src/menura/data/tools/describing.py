"""What a dataset is: counts, meaning, size on the disk, and its statistics. No frame is decoded."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from menura.data.readers.base import Reader
from menura.data.statistics import Statistics, StatisticsBuilder
from menura.features import Features


@dataclass(frozen=True)
class DatasetInfo:
    """What `menura data info` prints.

    Attributes:
        name: what the dataset is called.
        episodes, frames: how many.
        shortest, longest: frames of an episode.
        tasks: instruction -> its episodes.
        solved, unsolved: episodes that are known to be.
        disk_bytes: of all files; None where the dataset is not a path.
    """

    name: str
    features: Features
    episodes: int
    frames: int
    shortest: int
    longest: int
    tasks: dict[str, int]
    solved: int
    unsolved: int
    disk_bytes: int | None

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
        features=reader.features,
        episodes=len(reader),
        frames=int(lengths.sum()),
        shortest=int(lengths.min()),
        longest=int(lengths.max()),
        tasks=dict(Counter(reader.tasks()).most_common()),
        solved=successes[True],
        unsolved=successes[False],
        disk_bytes=None if path is None else _bytes(Path(path)),
    )


def dataset_statistics(reader: Reader) -> dict[str, Statistics]:
    """Exact statistics of `state` (absent where there is none) and `action`, every frame counted once.

    Raises:
        DataError: a value that is not finite; says where.
    """
    features = reader.features
    named = {"action": features.action} | ({"state": features.state} if features.state else {})
    builders = {name: StatisticsBuilder(feature=name, names=feature.names) for name, feature in named.items()}
    for index in range(len(reader)):
        episode = reader.episode(index)
        for name, builder in builders.items():
            builder.update(getattr(episode, name))
    return {name: builder.result() for name, builder in builders.items()}


def _bytes(path: Path) -> int:
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())
