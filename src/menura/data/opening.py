"""One way to open any dataset."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from menura.data.readers.base import Reader
from menura.data.readers.lerobot import LeRobotReader
from menura.data.readers.user import UserReader
from menura.errors import ConfigError, DataError, did_you_mean

_SPEC_KEYS = ("class", "args", "name", "weight")


def open_dataset(path_or_spec: str | Path | Mapping[str, Any] | object, *, project: Path | None = None) -> Reader:
    """A reader of whatever is given.

    Args:
        path_or_spec: a path, whose format is recognised from its files; a mapping `{class, args, name}` as in a task's
            YAML; a `Reader`; or any object with `__len__` and `episode(i)`.
        project: where a class named by a mapping is looked for; the working directory when not given.

    Raises:
        DataError: nothing is there, nothing of a known format, or something damaged.
        ConfigError: a mapping with unknown keys or arguments.
        ComponentError: a class that cannot be found or imported.
        ContractError: an object that is no dataset.
    """
    if isinstance(path_or_spec, (str, Path)):
        return _open_path(Path(path_or_spec).expanduser())
    if isinstance(path_or_spec, Mapping):
        return _open_spec(path_or_spec, project or Path.cwd())
    return _as_reader(path_or_spec)


def _as_reader(dataset: Any, name: str | None = None, args: Mapping[str, Any] | None = None) -> Reader:
    complete = isinstance(dataset, Reader) and hasattr(dataset, "features") and hasattr(dataset, "name")
    reader: Reader = dataset if complete else UserReader(dataset, name=name, args=args)
    if name is not None:
        reader.name = name
    return reader


def _open_path(path: Path) -> Reader:
    if not path.exists():
        near = did_you_mean(path.name, [other.name for other in path.parent.iterdir()]) if path.parent.is_dir() else ""
        raise DataError(f"Dataset {path}: expected a directory, found nothing{near or '.'}")
    if (path / "meta" / "info.json").exists():
        return LeRobotReader(path)
    raise DataError(
        f"Dataset {path}: format not recognised: expected meta/info.json (LeRobotDataset v3.0), found no such file. "
        f"Write a class with __len__ and episode(i) for another format (docs: custom datasets)."
    )


def _open_spec(spec: Mapping[str, Any], project: Path) -> Reader:
    from menura import components

    unknown = [key for key in spec if key not in _SPEC_KEYS]
    if unknown:
        near = did_you_mean(str(unknown[0]), _SPEC_KEYS)
        raise ConfigError(f"dataset: expected keys {list(_SPEC_KEYS)}, got {unknown[0]!r}{near or '.'}")
    if "class" not in spec:
        raise ConfigError(f"dataset: expected a key 'class', got {list(spec)}.")
    args = dict(spec.get("args") or {})
    cls = components.load("dataset", spec["class"], project)
    signature = inspect.signature(cls)
    try:
        signature.bind(**args)
    except TypeError as error:
        known = list(signature.parameters)
        wrong = next((key for key in args if key not in known), None)
        problem = f": {error}" if wrong is None else f".{wrong}: no such argument of {cls.__name__}"
        near = did_you_mean(wrong or "", known) or "."
        raise ConfigError(f"dataset.args{problem}{near} {cls.__name__} takes {known}.") from error
    return _as_reader(cls(**args), spec.get("name"), args)
