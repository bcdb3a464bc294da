"""Statistics that lie beside the data (LeRobot's), against the data. Torch-free.

LeRobot normalizes with `meta/stats.json`. Only mean, deviation and extremes are compared: its quantiles are averages
of the episodes' quantiles, and those of images come from a sample.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from menura.data.checking.report import Finding, Place
from menura.data.checking.tables import FEATURES, Context, Tables
from menura.data.readers.base import Reader
from menura.data.readers.lerobot import LeRobotReader
from menura.data.readers.lerobot_meta import EPISODES, STATS, open_parquet, read_parquet
from menura.data.statistics import Float64
from menura.errors import DataError
from menura.files import read_json

COMPARED = ("min", "max", "mean", "std")
#: Differences, in shares of the dimension's own spread, that float32 and another order of summing can make …
ROUNDING = 0.005
#: … and from which on the statistics are of other data.
OTHER_DATA = 0.25
_EPISODE_STATS = "meta/episodes_stats.jsonl"
_REMEDY = "Menura computes its own; for LeRobot write them anew: menura data convert SRC -o DST --to lerobot"

Declared = Mapping[str, Float64]  # of COMPARED -> (D,)


class Statistics:
    """What the files say of the whole dataset and of each episode, against what is in them."""

    def __init__(self, context: Context, reader: Reader) -> None:
        self._context = context
        self._whole: dict[str, Declared] = {}
        self._episodes: dict[str, Declared] = {}  # each (E, D), row of the files
        self._rows = np.arange(len(reader))
        self._unreadable = ""
        if isinstance(reader, LeRobotReader):
            self._rows = reader.episode_numbers
            try:
                self._read(reader)
            except (DataError, ValueError, KeyError, TypeError) as error:
                self._unreadable = f"cannot be read: {type(error).__name__}: {error}"
        self._wrong: dict[str, dict[int, float]] = {feature: {} for feature in FEATURES}
        self._count = 0
        self._sums: dict[str, list[Float64]] = {}

    def _read(self, reader: LeRobotReader) -> None:
        keys = {feature: names for feature, names in reader.vector_keys.items() if names}
        widths = {feature: self._context.vector(feature).dim for feature in keys}
        self._episodes = _episode_statistics(reader.root, keys, widths)
        if _is_whole(reader):
            self._whole = _whole_statistics(reader.root / STATS, keys, widths)

    def see(self, tables: Tables) -> None:
        self._count += len(tables)
        for feature in {*self._whole, *self._episodes}:
            table = tables.table(feature).astype(np.float64)
            if feature in self._whole:
                self._gather(feature, table)
            if feature in self._episodes:
                row = int(self._rows[tables.index])
                told = {name: values[row] for name, values in self._episodes[feature].items() if row < len(values)}
                off = _farthest(told, _moments(table), self._spread(feature))
                if off > ROUNDING:
                    self._wrong[feature][tables.index] = off

    def _gather(self, feature: str, table: Float64) -> None:
        """Sums about the usual middle, so that nothing cancels out."""
        centred = table - self._context.scales[feature].low
        parts = [table.min(axis=0), table.max(axis=0), centred.sum(axis=0), np.square(centred).sum(axis=0)]
        if feature in self._sums:
            low, high, one, two = self._sums[feature]
            parts = [np.minimum(low, parts[0]), np.maximum(high, parts[1]), one + parts[2], two + parts[3]]
        self._sums[feature] = parts

    def _spread(self, feature: str) -> Float64:
        scale = self._context.scales[feature]
        return np.maximum(scale.range, np.maximum(scale.rounding, 1e-6))

    def findings(self) -> Iterable[Finding]:
        if self._unreadable:
            yield Finding("statistics", "warning", self._unreadable, _REMEDY, 1.0)
        for feature, told in self._whole.items():
            low, high, one, two = self._sums[feature]
            mean = one / self._count
            std = np.sqrt(np.maximum(two / self._count - np.square(mean), 0))
            found = {"min": low, "max": high, "mean": mean + self._context.scales[feature].low, "std": std}
            off = _farthest(told, found, self._spread(feature))
            if off > ROUNDING:
                yield _wrong_statistics(feature, off, "meta/stats.json", ())
        for feature, wrong in self._wrong.items():
            if wrong:
                places = tuple(map(Place, wrong))
                yield _wrong_statistics(feature, max(wrong.values()), "the episodes' statistics", places)


def _wrong_statistics(feature: str, off: float, what: str, places: tuple[Place, ...]) -> Finding:
    other = off > OTHER_DATA
    size = f"off by {off:.1%} of the spread" if np.isfinite(off) else "missing or not finite"
    return Finding(
        "statistics",
        "error" if other else "warning",
        f"{what} {'are of other data' if other else 'disagree with the data'}: {size}",
        _REMEDY,
        1.0 if other else 0.9,
        places,
        feature=feature,
    )


def _moments(table: Float64) -> Declared:
    return {"min": table.min(axis=0), "max": table.max(axis=0), "mean": table.mean(axis=0), "std": table.std(axis=0)}


def _farthest(told: Declared, found: Declared, spread: Float64) -> float:
    """The largest difference, in shares of the spread."""
    off = [np.abs(values - found[name]) / spread for name, values in told.items()]
    if not off:
        return 0.0
    worst = float(np.max(off))
    return worst if np.isfinite(worst) else np.inf


def _is_whole(reader: LeRobotReader) -> bool:
    info = read_json(reader.root / "meta/info.json", DataError)
    return int(info["total_frames"]) == int(reader.lengths().sum()) if "total_frames" in info else False


def _whole_statistics(path: Path, keys: Mapping[str, Sequence[str]], widths: Mapping[str, int]) -> dict[str, Declared]:
    if not path.exists():
        return {}
    stats = read_json(path, DataError)
    return {
        feature: _joined([stats[key] for key in names])
        for feature, names in keys.items()
        if all(_complete(stats.get(key)) for key in names)
        and sum(np.size(stats[key]["mean"]) for key in names) == widths[feature]
    }


def _complete(entry: Any) -> bool:
    return isinstance(entry, Mapping) and all(entry.get(name) is not None for name in COMPARED)


def _joined(entries: list[Mapping[str, Any]]) -> dict[str, Float64]:
    """Of the keys that make up a feature, one after the other: (D,) each."""
    return {name: np.concatenate([np.ravel(entry[name]).astype(np.float64) for entry in entries]) for name in COMPARED}


def _episode_statistics(
    root: Path, keys: Mapping[str, Sequence[str]], widths: Mapping[str, int]
) -> dict[str, Declared]:
    """Feature -> statistic -> (E, D); without those features whose statistics are not there."""
    lines = root / _EPISODE_STATS
    rows = _of_lines(lines) if lines.exists() else None
    found: dict[str, Declared] = {}
    for feature, names in keys.items():
        parts = [_of_rows(rows, key) if rows is not None else _of_parquet(root, key) for key in names]
        whole = [part for part in parts if part is not None]
        if len(whole) == len(names) and sum(part["mean"].shape[1] for part in whole) == widths[feature]:
            found[feature] = {name: np.concatenate([part[name] for part in whole], axis=1) for name in COMPARED}
    return found


def _of_lines(path: Path) -> list[Any]:
    """The rows of LeRobot 2.1, in the order of the episodes."""
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    return [row["stats"] for row in sorted(rows, key=lambda row: int(row["episode_index"]))]


def _of_rows(rows: list[Any], key: str) -> dict[str, Float64] | None:
    if not rows or not all(_complete(row.get(key)) for row in rows):
        return None
    return {name: np.stack([np.ravel(row[key][name]).astype(np.float64) for row in rows]) for name in COMPARED}


def _of_parquet(root: Path, key: str) -> dict[str, Float64] | None:
    """Of LeRobot 3: columns of the episodes' table."""
    columns = [f"stats/{key}/{name}" for name in COMPARED]
    parts: list[list[Float64]] = []
    for path in sorted((root / EPISODES).glob("chunk-*/file-*.parquet")):
        file: pq.ParquetFile = open_parquet(path)
        if not set(columns) <= set(file.schema_arrow.names):
            return None
        table = read_parquet(path, file, columns)
        parts.append([_matrix(table.column(column), len(table)) for column in columns])
    if not parts:
        return None
    return {name: np.concatenate([part[number] for part in parts]) for number, name in enumerate(COMPARED)}


def _matrix(column: Any, rows: int) -> Float64:
    flat = column.combine_chunks().flatten().to_numpy(zero_copy_only=False)
    return np.asarray(flat, np.float64).reshape(rows, -1)
