"""What readers of several formats do alike: choose episodes, take a rate, and know whether files changed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from menura.errors import DataError


def chosen_episodes(path: Path, given: Sequence[int] | None, total: int) -> NDArray[np.int64]:
    """The numbers of the episodes that are read, in order: those given, else all `total`.

    Raises:
        DataError: none, or numbers that are not there; names `path`.
    """
    if total == 0:
        raise DataError(f"{path}: expected episodes, got none. Record some, or fetch the dataset again.")
    if given is None:
        return np.arange(total)
    chosen = np.asarray(given, np.int64).reshape(-1)
    outside = chosen[(chosen < 0) | (chosen >= total)]
    if len(chosen) == 0 or len(outside):
        raise DataError(f"{path}: episodes: expected some of 0 … {total - 1}, got {outside.tolist()}.")
    return chosen


def given_rate(path: Path, fps: float) -> float:
    """The steps per second that somebody said; DataError where that is no rate."""
    if not 0 < fps < float("inf"):
        raise DataError(f"{path}: fps: expected steps per second > 0, got {fps}.")
    return float(fps)


def files_digest(files: Iterable[Path], root: Path, selection: object) -> str:
    """A hex digest of what is selected and of each file's name, size and time of change."""
    digest = hashlib.sha256(json.dumps(selection, sort_keys=True).encode())
    for file in files:
        stat = file.stat()
        name = file.relative_to(root) if file != root else file.name
        digest.update(f"{name}\0{stat.st_size}\0{stat.st_mtime_ns}\n".encode())
    return digest.hexdigest()
