"""What clients call the parts of an observation: a checkpoint's own names, or a layout written down in YAML."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import Field, PositiveInt, ValidationError

from menura.config.messages import schema_problems
from menura.config.origins import Problems
from menura.config.schema import Section
from menura.config.sections import config_file, missing_file_message, project_of
from menura.config.yaml_tree import read_yaml
from menura.errors import ConfigError, did_you_mean
from menura.features import Features
from menura.serving.engine.arrays import told
from menura.serving.engine.errors import RequestRefused

#: `{"observation": {"images": {"top": …}}}` is three deep; nothing of an observation is deeper.
DEEPEST = 3
# Far more than any robot has; what is unknown is compared with what is known, which takes time.
_MOST_KEYS = 256
_LONGEST_KEY = 256


class KeysConfig(Section):
    """`configs/keys/<name>.yaml`.

    Attributes:
        state: keys whose numbers, one after the other, are the state -> how many numbers each has.
        cameras: key of a picture -> what checkpoints call that camera; the first name that a checkpoint has counts.
        task: key of the instruction.
        ignore: keys that clients send and nobody reads.
        actions: names of GR00T's clients for the parts of an action, in order -> how many numbers each has.
    """

    state: dict[str, PositiveInt] = Field(default_factory=dict)
    cameras: dict[str, list[str]] = Field(default_factory=dict)
    task: str = "prompt"
    ignore: list[str] = Field(default_factory=list)
    actions: dict[str, PositiveInt] = Field(default_factory=dict)


@dataclass(frozen=True)
class StatePart:
    """Some of the state's numbers: the keys under which they may come, and how many they are."""

    keys: tuple[str, ...]
    width: int


@dataclass(frozen=True)
class Picked:
    """The parts of an observation as they came, each with the key it came under.

    Attributes:
        state: (key, width, value) of each part, in order; empty where the message has none.
        images: camera -> (key, value).
        task: (key, value).
    """

    state: tuple[tuple[str, int, Any], ...]
    images: Mapping[str, tuple[str, Any]]
    task: tuple[str, Any] | None

    def __bool__(self) -> bool:
        return bool(self.state or self.images or self.task)


@dataclass(frozen=True)
class KeyMap:
    """How messages name the parts of an observation.

    A key with `/` is that key, or a way through nested maps: `images/top` is also `{"images": {"top": …}}`.

    Attributes:
        state: the parts of the state, in order.
        cameras: key of a picture -> the names of its camera among checkpoints.
        task: keys under which the instruction may come.
        ignored: keys that are not looked at.
        actions: name of each part of an action -> how many numbers it has; empty where actions are not split.
        where: the file it was read from, for messages; None for a checkpoint's own names.
    """

    state: tuple[StatePart, ...]
    cameras: Mapping[str, tuple[str, ...]]
    task: tuple[str, ...]
    ignored: tuple[str, ...] = ()
    actions: Mapping[str, int] = field(default_factory=dict)
    where: str | None = None

    @classmethod
    def of(cls, features: Features) -> KeyMap:
        """A checkpoint's own names, as Menura, openpi and LeRobot spell them."""
        state = ("state", "observation/state", "observation.state")
        cameras = {
            spelling.format(camera): (camera,)
            for camera in features.cameras
            for spelling in (
                "images/{}",
                "observation/{}",
                "observation/images/{}",
                "observation.images.{}",
                "images.{}",
            )
            if spelling.format(camera) not in state
        }
        parts = (StatePart(state, features.state_dim),) if features.state_dim else ()
        return cls(parts, cameras, ("task", "prompt"), () if parts else state)

    @classmethod
    def read(cls, name_or_path: str | Path, project: Path | None = None) -> KeyMap:
        """A layout by name (`configs/keys/<name>.yaml` of the project or of Menura), or by the path of its YAML.

        Raises:
            ConfigError: there is none, or it is wrong; every problem with its file and line.
        """
        file, root = _find(name_or_path, project)
        problems = Problems(root)
        tree = read_yaml(file, "section", problems)
        config = None
        if tree is not None:
            try:
                config = KeysConfig.model_validate(tree.value)
            except ValidationError as error:
                schema_problems(error, tree, problems, model=KeysConfig)
        if config is None or problems:
            raise problems.error()
        return cls(
            tuple(StatePart((key,), width) for key, width in config.state.items()),
            {key: tuple(names) for key, names in config.cameras.items()},
            (config.task,),
            tuple(config.ignore),
            config.actions,
            str(name_or_path),
        )

    def fitted(self, features: Features, required_cameras: Sequence[str]) -> KeyMap:
        """This map for one checkpoint: each picture's key with the one name that the checkpoint has for it.

        Raises:
            ConfigError: its state or its action is not the checkpoint's, or a camera that the checkpoint needs has no
                key.
        """
        where = self.where or "keys"
        state = {part.keys[0]: part.width for part in self.state}
        problems = _widths(f"{where}: expected a state", state, features.state_dim)
        if self.actions:
            problems += _widths(f"{where}: expected an action", self.actions, features.action_dim)
        chosen = {
            key: next((name for name in names if name in features.cameras), None) for key, names in self.cameras.items()
        }
        for camera in required_cameras:
            if camera not in chosen.values():
                names = [name for names in self.cameras.values() for name in names]
                problems.append(
                    f"{where}: expected a key of camera {camera!r}, got those of {names}"
                    f"{did_you_mean(camera, names) or '.'} Add it under cameras."
                )
        if problems:
            raise ConfigError(problems)
        unread = tuple(key for key, camera in chosen.items() if camera is None)
        cameras = {key: (camera,) for key, camera in chosen.items() if camera is not None}
        return replace(self, cameras=cameras, ignored=(*self.ignored, *unread))

    def observation(self, message: Mapping[Any, Any], besides: Sequence[str] = ()) -> Picked:
        """The parts of an observation in a message, which may have the keys `besides`, too.

        Raises:
            RequestRefused: a key is unknown, a part comes twice, or only some of the state is there.
        """
        flat = _flattened(message)
        for key in besides:
            flat.pop(key, None)
        images: dict[str, tuple[str, Any]] = {}
        for key, value in flat.items():
            names = self.cameras.get(key)
            if names is None:
                self._refuse_unknown(key)
            elif names[0] in images:
                raise RequestRefused(f"{key}: expected camera {names[0]!r} once, got it as {images[names[0]][0]} too.")
            else:
                images[names[0]] = (key, value)
        return Picked(self._state(flat), images, self._one_of(self.task, flat))

    def _state(self, flat: Mapping[str, Any]) -> tuple[tuple[str, int, Any], ...]:
        found = [(part, self._one_of(part.keys, flat)) for part in self.state]
        given = [(key_value[0], part.width, key_value[1]) for part, key_value in found if key_value is not None]
        missing = [part.keys[0] for part, key_value in found if key_value is None]
        if given and missing:
            raise RequestRefused(f"{missing[0]}: expected this part of the state, got {[key for key, *_ in given]}.")
        return tuple(given)

    def _one_of(self, keys: Sequence[str], flat: Mapping[str, Any]) -> tuple[str, Any] | None:
        found = [key for key in keys if key in flat]
        if len(found) > 1:
            raise RequestRefused(f"{found[1]}: expected it once, got it as {found[0]} too.")
        return (found[0], flat[found[0]]) if found else None

    @cached_property
    def camera_keys(self) -> dict[str, str]:
        """Camera -> the key that is shown to clients: the first of its spellings."""
        return {names[0]: key for key, names in reversed(list(self.cameras.items()))}

    @property
    def action_names(self) -> tuple[str, ...]:
        """What GR00T's clients find actions under: the parts, or all of them as `action`."""
        return tuple(self.actions) or ("action",)

    @cached_property
    def _known(self) -> frozenset[str]:
        state = (key for part in self.state for key in part.keys)
        return frozenset([*state, *self.cameras, *self.task, *self.ignored])

    def _refuse_unknown(self, key: str) -> None:
        if key in self._known or any(key.startswith(f"{ignored}/") for ignored in self.ignored):
            return
        shown = [*(part.keys[0] for part in self.state), *self.camera_keys.values(), self.task[0]]
        near = did_you_mean(key, self._known) or "."
        raise RequestRefused(f"{key}: expected one of {shown}, got a key that is none of them{near}")


def _widths(expected: str, parts: Mapping[str, int], width: int) -> list[str]:
    """What is wrong where the parts are not as wide together."""
    told_parts = " + ".join(f"{name} {part}" for name, part in parts.items()) or "nothing"
    got = sum(parts.values())
    return [] if got == width else [f"{expected} of {width} numbers, got {got} ({told_parts})."]


def _find(name_or_path: str | Path, project: Path | None) -> tuple[Path, Path]:
    path = Path(name_or_path)
    root = (project or Path.cwd()).resolve()
    if path.suffix in (".yaml", ".yml"):
        if not path.is_file():
            raise ConfigError(f"keys: no such file: {path}")
        return path.resolve(), project or project_of(path.resolve())
    if (file := config_file("keys", str(name_or_path), root)) is None:
        raise ConfigError(f"keys: {missing_file_message('keys', str(name_or_path), root)}")
    return file, root


def _flattened(message: Mapping[Any, Any], above: str = "", depth: int = 1) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    if len(message) > _MOST_KEYS:
        raise RequestRefused(f"message: expected at most {_MOST_KEYS} keys, got {len(message)}.")
    for key, value in message.items():
        if not isinstance(key, str) or len(key) > _LONGEST_KEY:
            raise RequestRefused(f"message: expected keys of text, {_LONGEST_KEY} characters at most, got {told(key)}.")
        name = above + key
        if not isinstance(value, Mapping):
            inner = {name: value}
        elif depth < DEEPEST:
            inner = _flattened(value, f"{name}/", depth + 1)
        else:
            raise RequestRefused(f"{name}: expected no map this deep, got one.")
        for twice in inner.keys() & flat.keys():
            raise RequestRefused(f"{twice}: expected it once, got it both nested and not.")
        flat.update(inner)
        if len(flat) > _MOST_KEYS:
            raise RequestRefused(f"message: expected at most {_MOST_KEYS} keys, got more.")
    return flat
