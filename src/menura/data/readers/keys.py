"""`keys:` of a dataset: which of its arrays are read as state, action, cameras and task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from menura.errors import ConfigError, did_you_mean

_KEYS = ("state", "action", "images", "task")


@dataclass(frozen=True)
class Keys:
    """What of a dataset is read; None leaves the choice to the format.

    Attributes:
        state: the keys whose arrays are joined to the state, in this order; `()` for no state.
        action: the same for the action.
        images: camera name -> key of its frames, in order; empty for no cameras.
        task: key of the instruction.
    """

    state: tuple[str, ...] | None = None
    action: tuple[str, ...] | None = None
    images: Mapping[str, str] | None = None
    task: str | None = None

    @classmethod
    def of(cls, given: Keys | Mapping[str, Any] | None) -> Keys:
        """From a YAML's mapping: `state` and `action` a key or a list of them, `images` {camera: key} or a list of
        keys, each its own name.

        Raises:
            ConfigError: an unknown key, or a value of another kind.
        """
        if given is None or isinstance(given, Keys):
            return given or cls()
        for key in given:
            if key not in _KEYS:
                raise ConfigError(f"keys.{key}: expected one of {list(_KEYS)}{did_you_mean(key, _KEYS) or '.'}")
        images = given.get("images")
        if images is not None and not isinstance(images, Mapping):
            images = {key: key for key in _names("images", images) or ()}
        task = given.get("task")
        if task is not None and not isinstance(task, str):
            raise ConfigError(f"keys.task: expected a key, got {task!r}.")
        return cls(_names("state", given.get("state")), _names("action", given.get("action")), images, task)


def _names(what: str, value: Any) -> tuple[str, ...] | None:
    if value is None:
        return None
    names = (value,) if isinstance(value, str) else tuple(value) if isinstance(value, Sequence) else (value,)
    if not all(isinstance(name, str) for name in names):
        raise ConfigError(f"keys.{what}: expected a key or a list of keys, got {value!r}.")
    return names
