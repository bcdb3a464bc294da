"""One way to open any dataset."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from menura.data.formats import find_format, recognise
from menura.data.hub import HubDataset
from menura.data.readers.base import Reader
from menura.data.readers.keys import Keys
from menura.data.readers.user import UserReader
from menura.errors import ConfigError, DataError, did_you_mean

_SPEC_KEYS = ("path", "format", "class", "args", "keys", "filter", "wrappers", "name", "weight")


def open_dataset(
    path_or_spec: str | Path | Mapping[str, Any] | object,
    *,
    format: str | None = None,
    keys: Keys | Mapping[str, Any] | None = None,
    name: str | None = None,
    project: Path | None = None,
    stream: bool = False,
    cache_dir: str | Path | None = None,
    budget_bytes: float = 20e9,
    **args: Any,
) -> Reader:
    """A reader of whatever is given.

    Args:
        path_or_spec: a path, whose format is recognised from its files; a dataset of the Hugging Face Hub, `owner/name`
            or `owner/name@revision` (`HubDataset.of`); a mapping `{path or class, …}` as in a task's YAML; a `Reader`;
            or any object with `__len__` and `episode(i)`.
        format: of a path: one of `menura.data.formats.FORMATS`; recognised when not given.
        keys: of a path: which of its arrays are read as what (`Keys.of`).
        name: what to call the dataset.
        project: where a class named by a mapping is looked for; the working directory when not given.
        stream: fetch a remote dataset's files when they are needed, into a directory below `cache_dir` of at most
            `budget_bytes` for each process that reads. `s3://…` and the like are always read so, the Hub's datasets
            only when told; local ones are read where they are.
        args: of a path: further arguments of its format's reader.

    Raises:
        DataError: nothing is there, nothing of a known format, or something damaged.
        ConfigError: a mapping with unknown keys or arguments.
        ComponentError: a class that cannot be found or imported.
        ContractError: an object that is no dataset.
    """
    opening = _Opening(project or Path.cwd(), stream, cache_dir, budget_bytes)
    if isinstance(path_or_spec, (str, Path)):
        return opening.place(path_or_spec, format, keys, name, args)
    if isinstance(path_or_spec, Mapping):
        return opening.spec(path_or_spec)
    return _as_reader(path_or_spec, name)


def _as_reader(dataset: Any, name: str | None = None, args: Mapping[str, Any] | None = None) -> Reader:
    complete = isinstance(dataset, Reader) and hasattr(dataset, "features") and hasattr(dataset, "name")
    reader: Reader = dataset if complete else UserReader(dataset, name=name, args=args)
    if name is not None:
        reader.name = name
    return reader


def _open_place(
    given: str | Path,
    project: Path,
    format: str | None,
    keys: Keys | Mapping[str, Any] | None,
    name: str | None,
    args: Mapping[str, Any],
) -> Reader:
    """What lies at a path, else what the Hub has of that name."""
    path = project / Path(given).expanduser()
    if not path.exists() and (dataset := HubDataset.of(str(given), project, Path.cwd())) is not None:
        return _open_hub(dataset, format, keys, name, args)
    return _open_path(path, format, keys, name, args)


def _open_hub(
    dataset: HubDataset,
    format: str | None,
    keys: Keys | Mapping[str, Any] | None,
    name: str | None,
    args: Mapping[str, Any],
) -> Reader:
    """The tables of a LeRobot dataset are fetched first: they say which files hold the episodes and cameras chosen."""
    from menura.data.readers.lerobot import LeRobotReader

    folder = dataset.fetch(["meta/*"])
    dataset = dataset.at(folder.name)
    if not (folder / "meta" / "info.json").exists():
        folder = dataset.fetch()
    reader = _open_path(folder, format, keys, name or dataset.name, args)
    if isinstance(reader, LeRobotReader):
        dataset.fetch(reader.file_patterns())
    return reader


def _open_path(
    path: Path,
    format: str | None,
    keys: Keys | Mapping[str, Any] | None,
    name: str | None,
    args: Mapping[str, Any],
) -> Reader:
    if not path.exists():
        near = did_you_mean(path.name, [other.name for other in path.parent.iterdir()]) if path.parent.is_dir() else ""
        raise DataError(f"Dataset {path}: expected a file or a directory, found nothing{near or '.'}")
    reader = find_format(format or recognise(path)).load()
    for key in ("path", "keys", "name"):
        if key in args:
            raise ConfigError(f"dataset.args.{key}: expected beside args, as a key of the dataset, got it in them.")
    _check_args(reader, args, path)
    made: Reader = reader(path, keys=Keys.of(keys), name=name, **args)
    return made


def _open_spec(spec: Mapping[str, Any], project: Path) -> Reader:
    unknown = [key for key in spec if key not in _SPEC_KEYS]
    if unknown:
        near = did_you_mean(str(unknown[0]), _SPEC_KEYS)
        raise ConfigError(f"dataset: expected keys {list(_SPEC_KEYS)}, got {unknown[0]!r}{near or '.'}")
    reader = _open_source(spec, project)
    for wrapper in spec.get("wrappers") or ():
        reader = _wrapped(reader, wrapper, project)
    if spec.get("filter") is None:
        return reader
    from menura.data.selection import Filter, select_episodes

    return select_episodes(reader, Filter.of(spec["filter"]))


def _wrapped(reader: Reader, spec: Mapping[str, Any], project: Path) -> Reader:
    from menura import components
    from menura.data.wrappers.base import wrap

    cls, args = components.load("wrapper", spec["class"], project), dict(spec.get("args") or {})
    _check_args(cls, args, reader, what="wrappers.args")
    wrapped = wrap(reader, cls, args)
    wrapped.name = reader.name
    return wrapped


def _open_source(spec: Mapping[str, Any], project: Path) -> Reader:
    from menura import components

    args, name = dict(spec.get("args") or {}), spec.get("name")
    if spec.get("path") is not None:
        return _open_place(spec["path"], project, spec.get("format"), spec.get("keys"), name, args)
    if spec.get("class") is None:
        raise ConfigError(f"dataset: expected a key 'path' or 'class', got {list(spec)}.")
    cls = components.load("dataset", spec["class"], project)
    _check_args(cls, args)
    return _as_reader(cls(**args), name, args)


def _check_args(cls: type, args: Mapping[str, Any], *places: Any, what: str = "dataset.args") -> None:
    """ConfigError where the class cannot be made with these."""
    signature = inspect.signature(cls)
    try:
        signature.bind(*places, **args)
    except TypeError as error:
        known = list(signature.parameters)
        wrong = next((key for key in args if key not in known), None)
        problem = f": {error}" if wrong is None else f".{wrong}: no such argument of {cls.__name__}"
        near = did_you_mean(wrong or "", known) or "."
        raise ConfigError(f"{what}{problem}{near} {cls.__name__} takes {known}.") from error
