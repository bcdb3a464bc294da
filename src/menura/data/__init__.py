"""Datasets: episodes, readers and writers of them, the store, windows over it, mixtures, statistics."""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from menura.data.checking import Finding, Report, check_dataset
    from menura.data.collate import collate
    from menura.data.compaction import compact
    from menura.data.episode import Episode
    from menura.data.hdf5_writer import Hdf5Writer
    from menura.data.mixture import Mixture
    from menura.data.opening import open_dataset
    from menura.data.readers.base import Reader
    from menura.data.readers.lerobot import LeRobotReader
    from menura.data.readers.user import UserReader
    from menura.data.recorder import Recorder
    from menura.data.sampler import EpochSampler
    from menura.data.shard_order import ShardOrder
    from menura.data.statistics import Statistics, StatisticsBuilder, compute_statistics
    from menura.data.store import Store, build_store
    from menura.data.stream import Stream
    from menura.data.tools.describing import DatasetInfo, dataset_statistics, describe
    from menura.data.tools.editing import convert, delete, merge, rename, split, trim
    from menura.data.viewing import view_dataset
    from menura.data.windows import Windows, windows
    from menura.data.writer import LeRobotWriter

# Loaded when first asked for: windows, samplers and collation import torch, readers and the writer do not.
_LAZY = {
    "DatasetInfo": "menura.data.tools.describing",
    "Episode": "menura.data.episode",
    "EpochSampler": "menura.data.sampler",
    "Finding": "menura.data.checking",
    "Hdf5Writer": "menura.data.hdf5_writer",
    "LeRobotReader": "menura.data.readers.lerobot",
    "LeRobotWriter": "menura.data.writer",
    "Mixture": "menura.data.mixture",
    "Reader": "menura.data.readers.base",
    "Recorder": "menura.data.recorder",
    "Report": "menura.data.checking",
    "ShardOrder": "menura.data.shard_order",
    "Statistics": "menura.data.statistics",
    "StatisticsBuilder": "menura.data.statistics",
    "Store": "menura.data.store",
    "Stream": "menura.data.stream",
    "UserReader": "menura.data.readers.user",
    "Windows": "menura.data.windows",
    "build_store": "menura.data.store",
    "check_dataset": "menura.data.checking",
    "collate": "menura.data.collate",
    "compact": "menura.data.compaction",
    "compute_statistics": "menura.data.statistics",
    "convert": "menura.data.tools.editing",
    "dataset_statistics": "menura.data.tools.describing",
    "delete": "menura.data.tools.editing",
    "describe": "menura.data.tools.describing",
    "merge": "menura.data.tools.editing",
    "open_dataset": "menura.data.opening",
    "rename": "menura.data.tools.editing",
    "split": "menura.data.tools.editing",
    "trim": "menura.data.tools.editing",
    "view_dataset": "menura.data.viewing",
    "windows": "menura.data.windows",
}

__all__ = [
    "DatasetInfo",
    "Episode",
    "EpochSampler",
    "Finding",
    "Hdf5Writer",
    "LeRobotReader",
    "LeRobotWriter",
    "Mixture",
    "Reader",
    "Recorder",
    "Report",
    "ShardOrder",
    "Statistics",
    "StatisticsBuilder",
    "Store",
    "Stream",
    "UserReader",
    "Windows",
    "build_store",
    "check_dataset",
    "collate",
    "compact",
    "compute_statistics",
    "convert",
    "dataset_statistics",
    "delete",
    "describe",
    "merge",
    "open_dataset",
    "rename",
    "split",
    "trim",
    "view_dataset",
    "windows",
]


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'menura.data' has no attribute {name!r}")
    value = getattr(importlib.import_module(_LAZY[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)


class _Package(ModuleType):
    """Keeps `menura.data.windows` the function when the module of that name is imported (so, too, `collate`)."""

    def __setattr__(self, name: str, value: Any) -> None:
        if not (name in _LAZY and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
