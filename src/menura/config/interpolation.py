"""`${a.b}`: a value that repeats another one, as OmegaConf reads it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from menura.config.origins import KeyPath, Problems, Tree, dotted


def interpolate(tree: Tree, problems: Problems) -> None:
    """Replace every `${…}` by what it stands for; what cannot be is reported and becomes null."""
    places = list(_interpolated(tree.value, ()))
    if not places:
        return
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    def attempt(path: KeyPath, read: Callable[[KeyPath], Any]) -> None:
        try:
            value = read(path)
        except OmegaConfBaseException as error:
            reason = str(error).splitlines()[0]
            problems.add(dotted(path), f"cannot be interpolated: {reason}", tree.origin(path))
            value = None
        _put(tree, path, value)

    def well_formed(path: KeyPath) -> Any:
        OmegaConf.create({"value": tree.get(path)})
        return tree.get(path)

    def resolved(path: KeyPath) -> Any:
        node: Any = source
        for part in path:
            node = node[part]
        return OmegaConf.to_container(node, resolve=True) if OmegaConf.is_config(node) else node

    for path in places:  # first alone: a malformed one would spoil the whole
        attempt(path, well_formed)
    source = OmegaConf.create(tree.value)
    for path in places:
        attempt(path, resolved)


def _put(tree: Tree, path: KeyPath, value: Any) -> None:
    tree.get(path[:-1])[path[-1]] = value


def _interpolated(value: Any, path: KeyPath) -> Iterator[KeyPath]:
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _interpolated(item, (*path, key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _interpolated(item, (*path, index))
    elif isinstance(value, str) and "${" in value:
        yield path
