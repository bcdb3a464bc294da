"""One way to open any dataset."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from menura.data.formats import find_format, recognise
from menura.data.hub import HubDataset, is_remote
from menura.data.mirror import Mirror
from menura.data.readers.base import Reader
from menura.data.readers.keys import Keys
from menura.data.readers.user import UserReader
from menura.errors import ConfigError, DataError, did_you_mean
from menura.files import left_behind

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
    streaming = _Streaming(stream, cache_dir, budget_bytes)
    project = project or Path.cwd()
    if isinstance(path_or_spec, (str, Path)):
        return _Place(path_or_spec, project, format, keys, name, args, streaming).open()
    if isinstance(path_or_spec, Mapping):
        return _open_spec(path_or_spec, project, streaming)
    return _as_reader(path_or_spec, name)


def _as_reader(dataset: Any, name: str | None = None, args: Mapping[str, Any] | None = None) -> Reader:
    complete = isinstance(dataset, Reader) and hasattr(dataset, "features") and hasattr(dataset, "name")
    reader: Reader = dataset if complete else UserReader(dataset, name=name, args=args)
    if name is not None:
        reader.name = name
    return reader


@dataclass(frozen=True)
class _Streaming:
    """How files that lie elsewhere are fetched, as `open_dataset` says."""

    wanted: bool
    cache_dir: str | Path | None
    budget_bytes: float


@dataclass(frozen=True)
class _Place:
    """A dataset's files, and what is said of them."""

    given: str | Path
    project: Path
    format: str | None
    keys: Keys | Mapping[str, Any] | None
    name: str | None
    args: Mapping[str, Any]
    streaming: _Streaming

    def open(self) -> Reader:
        """What lies at a path, else what the Hub has of that name, else what another machine has."""
        path = self.project / Path(self.given).expanduser()
        if path.exists():
            return self._read(path)
        old = left_behind(path)
        if old is not None:  # not moved here: whoever only reads changes nothing, and the change may be under way
            raise DataError(
                f"Dataset {path}: expected a directory, found none: a change in place was killed in its last moment. "
                f"Run that command again, or bring the old one back: mv '{old}' '{path}'."
            )
        dataset = HubDataset.of(str(self.given), self.project, Path.cwd())
        if dataset is not None:
            return self._mirrored(dataset.url, dataset.name) if self.streaming.wanted else self._fetched(dataset)
        if is_remote(self.given):
            return self._mirrored(str(self.given), self.name)
        near = did_you_mean(path.name, [other.name for other in path.parent.iterdir()]) if path.parent.is_dir() else ""
        raise DataError(f"Dataset {path}: expected a file or a directory, found nothing{near or '.'}")

    def _fetched(self, dataset: HubDataset) -> Reader:
        """The tables of a LeRobot dataset are fetched first: they say which files hold what is chosen."""
        from menura.data.readers.lerobot import LeRobotReader

        folder = dataset.fetch(["meta/*"])
        dataset = dataset.at(folder.name)
        if not (folder / "meta" / "info.json").exists():
            folder = dataset.fetch()
        reader = self._read(folder, dataset.name)
        if isinstance(reader, LeRobotReader):
            dataset.fetch(reader.file_patterns())
        return reader

    def _mirrored(self, url: str, name: str | None) -> Reader:
        """Its `meta/` is fetched now, the rest when it is needed."""
        from menura.data.readers.lerobot import LeRobotReader

        mirror = Mirror(url, cache_dir=self.streaming.cache_dir, budget_bytes=self.streaming.budget_bytes)
        reader = self._read(mirror.fetch_meta(), name or mirror.name)
        if not isinstance(reader, LeRobotReader):
            raise DataError(f"Dataset {url}: expected a LeRobotDataset, which alone is read from afar. Fetch it first.")
        reader.mirror = mirror
        return reader

    def _read(self, path: Path, name: str | None = None) -> Reader:
        reader = find_format(self.format or recognise(path)).load()
        for key in ("path", "keys", "name"):
            if key in self.args:
                raise ConfigError(f"dataset.args.{key}: expected beside args, as a key of the dataset, got it in them.")
        _check_args(reader, self.args, path)
        made: Reader = reader(path, keys=Keys.of(self.keys), name=self.name or name, **self.args)
        return made


def _open_spec(spec: Mapping[str, Any], project: Path, streaming: _Streaming) -> Reader:
    unknown = [key for key in spec if key not in _SPEC_KEYS]
    if unknown:
        near = did_you_mean(str(unknown[0]), _SPEC_KEYS)
        raise ConfigError(f"dataset: expected keys {list(_SPEC_KEYS)}, got {unknown[0]!r}{near or '.'}")
    reader = _open_source(spec, project, streaming)
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


def _open_source(spec: Mapping[str, Any], project: Path, streaming: _Streaming) -> Reader:
    from menura import components

    args, name = dict(spec.get("args") or {}), spec.get("name")
    if spec.get("path") is not None:
        return _Place(spec["path"], project, spec.get("format"), spec.get("keys"), name, args, streaming).open()
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
