"""One way to open any dataset."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from menura.data.readers.base import Reader
from menura.data.readers.lerobot import LeRobotReader
from menura.errors import DataError, MenuraError, did_you_mean


def open_dataset(path_or_spec: str | Path | Mapping[str, Any] | object, *, project: Path | None = None) -> Reader:
    """A reader of whatever is given.

    Args:
        path_or_spec: a path, whose format is recognised from its files; a mapping `{class, args, name}` as in a task's
            YAML; a `Reader`; or any object with `__len__` and `episode(i)`.
        project: where a class named by a mapping is looked for; the working directory when not given.

    Raises:
        DataError: nothing is there, or nothing known.
    """
    if isinstance(path_or_spec, Reader):
        return path_or_spec
    if isinstance(path_or_spec, (str, Path)):
        return _open_path(Path(path_or_spec).expanduser())
    raise NotImplementedError


def _open_path(path: Path) -> Reader:
    if not path.exists():
        near = did_you_mean(path.name, [other.name for other in path.parent.iterdir()]) if path.parent.is_dir() else ""
        raise DataError(f"Dataset {path}: expected a directory or a file, found none{near}.")
    if (path / "meta" / "info.json").exists():
        return LeRobotReader(path)
    raise DataError(f"Dataset {path}: expected meta/info.json (a LeRobotDataset), found no such file.")
