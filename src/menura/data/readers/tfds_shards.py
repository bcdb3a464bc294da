"""The files of a tensorflow-datasets dataset: its version directories, its splits and their shards."""

from __future__ import annotations

import json
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np

from menura.data.readers.tfds_features import FEATURES
from menura.data.readers.tfrecord import TfRecordFile
from menura.errors import DataError, did_you_mean

INFO = "dataset_info.json"
_TEMPLATE = "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}"  # where dataset_info.json says none
_OPEN_FILES = 16


def version_directory(path: Path) -> Path:
    """The directory that holds `features.json`: `path`, or the only one below it (version, or config and version).

    Raises:
        DataError: none, or several.
    """
    if (path / FEATURES).exists():
        return path
    found = sorted(file.parent for pattern in ("*", "*/*") for file in path.glob(f"{pattern}/{FEATURES}"))
    if len(found) == 1:
        return found[0]
    got = (
        f"{len(found)}: {[str(each.relative_to(path)) for each in found]}. Give the path of one of them"
        if found
        else "none"
    )
    raise DataError(f"Dataset {path}: expected one directory with {FEATURES} below it, got {got}.")


class Shards:
    """The records of one split, in the order of its shards. Files are opened when a record of theirs is asked for.

    Attributes:
        dataset, version: what `dataset_info.json` calls them.
        files: the shards.

    Raises:
        DataError: no such split, files of another format, damaged metadata.
    """

    def __init__(self, directory: Path, split: str) -> None:
        self._info_path = directory / INFO
        info = _read_info(self._info_path)
        try:
            self.dataset, self.version = str(info["name"]), str(info.get("version", ""))
            splits = {str(each["name"]): each for each in info["splits"]}
            if split not in splits:
                near = did_you_mean(split, splits) or "."
                raise DataError(f"{self._info_path}: split: expected one of {list(splits)}, got {split!r}{near}")
            lengths = [int(length) for length in splits[split].get("shardLengths", ())]
            template = str(splits[split].get("filepathTemplate") or _TEMPLATE)
            self.files = [directory / name for name in self._names(template, split, len(lengths), info)]
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise DataError(
                f"{self._info_path}: expected the splits and shards of a tensorflow-datasets dataset, got something "
                f"else ({type(error).__name__}: {error}). Fetch the dataset again."
            ) from error
        self._starts = np.cumsum([0, *lengths])
        self._open: OrderedDict[int, TfRecordFile] = OrderedDict()
        self._verified: set[int] = set()

    def __len__(self) -> int:
        """The number of records."""
        return int(self._starts[-1])

    def locate(self, index: int) -> tuple[int, int]:
        """(shard, record in it) of record `index`."""
        shard = int(np.searchsorted(self._starts, index, side="right")) - 1
        return shard, index - int(self._starts[shard])

    def where(self, index: int) -> str:
        """What to call record `index` in messages."""
        shard, number = self.locate(index)
        return f"{self.files[shard]}: record {number}"

    def record(self, index: int) -> memoryview:
        """The data of record `index`; DataError when its file is absent or damaged."""
        shard, number = self.locate(index)
        return self._file(shard).record(number)

    def verify(self, index: int) -> None:
        """DataError when the data of record `index` was changed; looked at once in a process."""
        if index not in self._verified:
            shard, number = self.locate(index)
            self._file(shard).verify(number)
            self._verified.add(index)

    def missing(self, indices: Any) -> list[Path]:
        """Files that hold some of these records and are not there."""
        shards = np.unique(np.searchsorted(self._starts, indices, side="right") - 1)
        return [self.files[shard] for shard in shards if not self.files[shard].exists()]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_open": OrderedDict(), "_verified": set()}  # open files stay in their process

    def _file(self, shard: int) -> TfRecordFile:
        file = self._open.pop(shard, None)
        if file is None:
            file = TfRecordFile(self.files[shard])
            expected = int(self._starts[shard + 1] - self._starts[shard])
            if len(file) != expected:
                raise DataError(
                    f"{file.path}: expected {expected} records as {INFO} says, got {len(file)}. Fetch the file again."
                )
        self._open[shard] = file
        while len(self._open) > _OPEN_FILES:
            self._open.popitem(last=False)
        return file

    def _names(self, template: str, split: str, shards: int, info: dict[str, Any]) -> list[str]:
        file_format = str(info.get("fileFormat") or "tfrecord")
        if file_format != "tfrecord":
            raise DataError(
                f"{self._info_path}: fileFormat: expected 'tfrecord', got {file_format!r}. "
                f"Write the dataset again as TFRecord (tensorflow-datasets: --file_format=tfrecord)."
            )
        return [
            template.format(
                DATASET=self.dataset,
                SPLIT=split,
                FILEFORMAT=file_format,
                SHARD_INDEX=f"{shard:05d}",
                NUM_SHARDS=f"{shards:05d}",
                SHARD_X_OF_Y=f"{shard:05d}-of-{shards:05d}",
            )
            for shard in range(shards)
        ]


def _read_info(path: Path) -> dict[str, Any]:
    try:
        info = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read ({error}). Fetch the dataset again.") from error
    if not isinstance(info, dict):
        raise DataError(f"{path}: expected a mapping, got {type(info).__name__}. Fetch the dataset again.")
    return info
