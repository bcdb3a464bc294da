"""Where each value of a configuration came from, and the problems found in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from menura.errors import ConfigError

OriginKind = Literal["command line", "task", "section", "default"]
KeyPath = tuple[str | int, ...]

# A value of lower rank yields to one of higher rank.
RANK: Mapping[OriginKind, int] = {"default": 0, "section": 1, "task": 2, "command line": 3}

PACKAGE = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Origin:
    """Where a value was written. `file` and `line` (from 1) are None for the command line and for defaults in code."""

    kind: OriginKind
    file: Path | None = None
    line: int | None = None


def dotted(path: Sequence[str | int]) -> str:
    """`("datasets", 0, "args")` as `datasets.0.args`."""
    return ".".join(str(part) for part in path)


def shown(file: Path, project: Path) -> str:
    """A file's name as messages show it: relative to the project, or to Menura's package, else in full."""
    if file.is_relative_to(project):
        return file.relative_to(project).as_posix()
    if file.is_relative_to(PACKAGE):
        return file.relative_to(PACKAGE.parent).as_posix()
    return str(file)


def described(origin: Origin, project: Path) -> str:
    """`configs/task/x.yaml:7`, `command line`, or `default`."""
    if origin.file is None:
        return origin.kind
    name = shown(origin.file, project)
    return name if origin.line is None else f"{name}:{origin.line}"


class Tree:
    """A configuration as plain values, with the origin of every key.

    Attributes:
        value: nested dicts and lists of scalars.
        origins: path of a key -> where it was written. Parents of a written key may be missing.
    """

    def __init__(self, value: dict[str, Any], origins: dict[KeyPath, Origin]) -> None:
        self.value = value
        self.origins = origins

    def origin(self, path: KeyPath) -> Origin | None:
        """The origin of a key, or of the nearest key above it."""
        for length in range(len(path), -1, -1):
            if (found := self.origins.get(path[:length])) is not None:
                return found
        return None

    def get(self, path: KeyPath) -> Any:
        """The value at a path; KeyError, IndexError or TypeError when there is none."""
        value: Any = self.value
        for part in path:
            value = value[part]
        return value

    def holds(self, path: KeyPath) -> bool:
        """Whether there is a value at a path."""
        try:
            self.get(path)
        except (KeyError, IndexError, TypeError):
            return False
        return True

    def forget(self, path: KeyPath) -> None:
        """Drop the origins at and under a path."""
        for key in [key for key in self.origins if key[: len(path)] == path]:
            del self.origins[key]

    def delete(self, path: KeyPath) -> None:
        """Drop a value and its origins."""
        del self.get(path[:-1])[path[-1]]
        self.forget(path)

    def replace(self, path: KeyPath, value: Any, origins: Mapping[KeyPath, Origin]) -> None:
        """Put a value, whose `origins` are relative to it, in the place of what is there."""
        self.get(path[:-1])[path[-1]] = value
        self.forget(path)
        self.origins.update({path + key: origin for key, origin in origins.items()})

    def part(self, path: KeyPath) -> Tree:
        """The mapping at a path as a tree of its own."""
        origins = {key[len(path) :]: origin for key, origin in self.origins.items() if key[: len(path)] == path}
        return Tree(self.get(path), origins)


def merge(low: Tree, high: Tree) -> Tree:
    """Mappings are merged key by key; anything else of `high` replaces that of `low`."""
    merged = Tree(dict(low.value), dict(low.origins))
    for key, value in high.value.items():
        path = (key,)
        below = low.value.get(key)
        if isinstance(value, dict) and isinstance(below, dict):
            inner = merge(low.part(path), high.part(path))
            merged.replace(path, inner.value, inner.origins)
        else:
            origins = {name[1:]: origin for name, origin in high.origins.items() if name[:1] == path}
            merged.replace(path, value, origins)
    if () in high.origins:
        merged.origins[()] = high.origins[()]
    return merged


class Problems:
    """Collects every problem of a configuration, so that all are reported at once."""

    def __init__(self, project: Path) -> None:
        self.project = project
        self._keys: set[str] = set()
        self._found: dict[str, tuple[str, int]] = {}  # message -> where it belongs

    def add(self, key: str, message: str, origin: Origin | None = None) -> None:
        """`key: message (file:line)`. Of several problems of one key the first is kept: the others follow from it."""
        where = f" ({described(origin, self.project)})" if origin is not None else ""
        if key and key in self._keys:
            return
        self._keys.add(key)
        text = f"{key}: {message}{where}" if key else f"{message}{where}"
        place = (str(origin.file or ""), origin.line or 0) if origin is not None else ("", 0)
        self._found.setdefault(text, place)

    def __bool__(self) -> bool:
        return bool(self._found)

    def error(self) -> ConfigError:
        """Every problem found so far: the command line's first, then file by file, line by line."""
        return ConfigError(sorted(self._found, key=lambda text: self._found[text]))
