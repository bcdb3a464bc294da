"""What the readers of HDF5 files share: files kept open, keys found, rows gathered, damage told."""

from __future__ import annotations

import json
import os
import re
import threading
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from menura.errors import DataError, did_you_mean

SUFFIXES = (".hdf5", ".h5")
_OPEN_FILES = 16
# Large enough for a compressed chunk of a few dozen frames, which would else be unpacked again for every frame.
_CHUNK_CACHE_BYTES = 16 << 20


def hdf5_format(path: Path) -> str | None:
    """Which of `menura.data.formats.FORMATS` a file is laid out as; None for none of them.

    Raises:
        DataError: the file is no HDF5 file, or cut off.
    """
    with _damage_told(path), h5py.File(path, "r") as file:
        if file.attrs.get("format") == "menura":
            return "menura"
        if isinstance(data := file.get("data"), h5py.Group) and any(name.startswith("demo") for name in data):
            return "libero" if "problem_info" in data.attrs else "robomimic"
        if "observations" in file and "action" in file:
            return "aloha"
        if any(name.startswith("episode_") for name in file):
            return "minari"
    return None


def hdf5_files(path: Path) -> list[Path]:
    """The HDF5 files at `path`, a file or a directory and all below it, in natural order: `episode_2` before
    `episode_10`. Names that begin with a dot are left out: they are files that are still being written.

    Raises:
        DataError: there is none.
    """
    if path.is_file():
        return [path]
    found = [
        file
        for file in path.rglob("*")
        if file.suffix in SUFFIXES and not any(part.startswith(".") for part in file.relative_to(path).parts)
    ]
    if not found:
        raise DataError(f"{path}: expected HDF5 files ({', '.join(SUFFIXES)}), found none.")
    return sorted(found, key=lambda file: [natural_key(part) for part in file.relative_to(path).parts])


def natural_key(name: str) -> list[tuple[int, str]]:
    """Sorts `demo_2` before `demo_10`."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name) if part]


class OpenFiles:
    """HDF5 files that stay open, the last few of them. Each process has its own: pickled or forked, it opens them anew.

    Threads take turns: h5py lets only one of them into the library anyway.
    """

    def __init__(self) -> None:
        self._begin()

    def _begin(self) -> None:
        self._process = os.getpid()
        self._lock = threading.RLock()
        self._files: OrderedDict[Path, h5py.File] = OrderedDict()

    def __getstate__(self) -> dict[str, Any]:
        return {}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._begin()

    @contextmanager
    def reading(self, path: Path) -> Iterator[h5py.File]:
        """The file, open for reading.

        Raises:
            DataError: the file is gone, no HDF5 file or cut off, or what is read in the block is damaged.
        """
        if self._process != os.getpid():
            self._begin()
        with self._lock, _damage_told(path):
            file = self._files.pop(path, None)
            if file is None:
                file = h5py.File(path, "r", rdcc_nbytes=_CHUNK_CACHE_BYTES)
            self._files[path] = file
            if len(self._files) > _OPEN_FILES:
                self._files.popitem(last=False)[1].close()
            yield file


@contextmanager
def _damage_told(path: Path) -> Iterator[None]:
    """Turns what h5py says of a damaged file into one DataError that names it."""
    try:
        yield
    except FileNotFoundError:
        raise DataError(f"{path}: expected an HDF5 file, found nothing. Fetch the dataset again.") from None
    except (OSError, RuntimeError, KeyError) as error:
        reason = str(error).strip("'\"")
        raise DataError(
            f"{path}: expected an HDF5 file, got a damaged or cut off one ({reason}). "
            f"Fetch the file again or remove it."
        ) from error


def find_dataset(group: h5py.Group, key: str, below: Iterable[str], what: str) -> str:
    """The path of dataset `key` under `group`, looked for below each of the groups `below` in turn.

    Args:
        group: an episode's.
        key: a name, or a path: `qpos`, `observations/qpos`, `/observations/qpos`.
        below: paths under `group`; "" is itself.
        what: what it is wanted for, in messages: `keys.state`.

    Raises:
        DataError: there is none; names the nearest.
    """
    wanted = key.strip("/")
    for parent in below:
        path = f"{parent}/{wanted}" if parent else wanted
        if isinstance(group.get(path), h5py.Dataset):
            return path
    there = dataset_paths(group)
    names = [*there, *(path.rpartition("/")[2] for path in there)]
    raise DataError(
        f"{place_of(group)}: expected a dataset {key!r} for {what}, got {there}{did_you_mean(wanted, names) or '.'}"
    )


def dataset_paths(group: h5py.Group) -> list[str]:
    """The paths of all datasets under a group, in the file's order."""
    paths: list[str] = []
    group.visititems(lambda path, item: paths.append(path) if isinstance(item, h5py.Dataset) else None)
    return paths


def place_of(item: h5py.Group | h5py.Dataset) -> str:
    """`file.hdf5:/observations/qpos`, for messages."""
    return f"{item.file.filename}:{item.name}"


def gather(dataset: h5py.Dataset, numbers: NDArray[np.int64]) -> NDArray[Any]:
    """Rows `numbers` of a dataset, in that order, repeated where they are.

    The file is read in ascending order and each chunk at most once: neighbours, and rows of one chunk, in one piece.
    """
    rows = np.empty((len(numbers), *dataset.shape[1:]), dataset.dtype)
    order = np.argsort(numbers, kind="stable")
    ascending = numbers[order]
    chunk_rows = dataset.chunks[0] if dataset.chunks else 1
    apart = (np.diff(ascending) > 1) & (np.diff(ascending // chunk_rows) > 0)
    for places in np.split(order, np.flatnonzero(apart) + 1) if len(numbers) else []:
        first, last = int(numbers[places[0]]), int(numbers[places[-1]])
        read = dataset[first : last + 1]
        if len(places) == len(numbers) and np.array_equal(numbers, np.arange(first, last + 1)):
            return read  # type: ignore[no-any-return]
        for place in places:
            rows[place] = read[numbers[place] - first]
    return rows


def text_of(value: Any) -> str:
    """A text as h5py gives it: `str`, bytes, or the first of an array of them."""
    if isinstance(value, np.ndarray):
        value = value.reshape(-1)[0] if value.size else ""
    return value.decode() if isinstance(value, bytes) else str(value)


def json_attribute(group: h5py.Group, name: str) -> dict[str, Any]:
    """A JSON object among the attributes; empty when it is not there.

    Raises:
        DataError: it is no JSON object.
    """
    if name not in group.attrs:
        return {}
    try:
        value = json.loads(text_of(group.attrs[name]))
    except json.JSONDecodeError as error:
        raise DataError(f"{place_of(group)}: attribute {name!r}: expected JSON, got {error.msg.lower()}.") from error
    if not isinstance(value, dict):
        raise DataError(f"{place_of(group)}: attribute {name!r}: expected a JSON object, got {type(value).__name__}.")
    return value
