"""Which features of an RLDS dataset are the state, the action, the cameras and the instruction.

RLDS fixes the names of the steps' flags only. The layouts of Open X-Embodiment agree on `observation/…`, `action` and
`language_instruction`; where they leave more than one reading, the user is asked.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from menura.data.readers.keys import Keys
from menura.data.readers.open_x import known_part
from menura.data.readers.tfds_features import FEATURES, Leaf
from menura.errors import DataError, did_you_mean
from menura.features import ROTATIONS, ControlSpace, ControlType, Rotation, VectorFeature

STEPS, METADATA = "steps/", "episode_metadata/"
_OBSERVATION = f"{STEPS}observation/"
_STATES = ("state", "proprio")
_TASKS = (
    f"{STEPS}language_instruction",
    f"{STEPS}language_instruction_2",  # DROID has up to three, any of them empty
    f"{STEPS}language_instruction_3",
    f"{_OBSERVATION}natural_language_instruction",  # RT-1, bridge and others of Open X-Embodiment's first release
    f"{_OBSERVATION}language_instruction",
    f"{METADATA}language_instruction",
)


@dataclass(frozen=True)
class Selection:
    """What is read of each step.

    Attributes:
        state, action: the numbers that are joined to them, in order.
        cameras: name -> encoded pictures.
        tasks: the instruction is the first of these that is not empty.
    """

    state: tuple[Leaf, ...]
    action: tuple[Leaf, ...]
    cameras: Mapping[str, Leaf]
    tasks: tuple[Leaf, ...]


def select(leaves: Mapping[str, Leaf], keys: Keys, directory: Path) -> Selection:
    """By `keys`, and by the names where they are silent. A key is whole (`steps/observation/state`) or short (`state`).

    Raises:
        DataError: a key that is not there or of another kind, or names that leave more than one reading.
    """
    return _Selector(leaves, directory / FEATURES).select(keys)


class _Selector:
    def __init__(self, leaves: Mapping[str, Leaf], path: Path) -> None:
        self._leaves = leaves
        self._path = path
        self._vectors = [leaf for leaf in leaves.values() if _is_vector(leaf)]
        self._pictures = [leaf for leaf in leaves.values() if _is_camera(leaf)]
        self._texts = [leaf for leaf in leaves.values() if _is_text(leaf)]

    def select(self, keys: Keys) -> Selection:
        if not any(key.startswith(STEPS) for key in self._leaves):
            raise DataError(
                f"{self._path}: expected episodes with 'steps' as RLDS has them, got features {list(self._leaves)}. "
                f"It is a dataset of another kind; write a class with __len__ and episode(i) (docs: custom datasets)."
            )
        state = self._default_state() if keys.state is None else self._named("state", keys.state, self._vectors)
        action = self._default_action() if keys.action is None else self._named("action", keys.action, self._vectors)
        if not action:
            raise self._ask("action", self._vectors, "at least one key, got none")
        images = keys.images
        if images is None:
            observed = [leaf for leaf in self._pictures if leaf.key.startswith(_OBSERVATION)]
            cameras = {_camera_name(leaf): leaf for leaf in observed}
        else:
            found = self._named("images", images.values(), self._pictures)
            named = zip(images.items(), found, strict=True)
            cameras = {_camera_name(leaf) if name == key else name: leaf for (name, key), leaf in named}
        if keys.task is None:
            tasks = tuple(self._leaves[key] for key in _TASKS if self._leaves.get(key) in self._texts)
        else:
            tasks = self._named("task", [keys.task], self._texts)
        return Selection(state, action, cameras, tasks)

    def _default_state(self) -> tuple[Leaf, ...]:
        for key in (_OBSERVATION.rstrip("/"), *(_OBSERVATION + name for name in _STATES)):
            leaf = self._leaves.get(key)
            if leaf in self._vectors:
                return (leaf,)
        observed = [leaf for leaf in self._vectors if leaf.key.startswith(_OBSERVATION)]
        found = [leaf for leaf in observed if not _is_embedding(leaf)]
        if len(found) > 1:
            raise self._ask("state", found, "one vector that is called state, got several others")
        return tuple(found)

    def _default_action(self) -> tuple[Leaf, ...]:
        leaf = self._leaves.get(f"{STEPS}action")
        if leaf in self._vectors:
            return (leaf,)
        parts = [leaf for leaf in self._vectors if leaf.key.startswith(f"{STEPS}action/")]
        if len(parts) != 1:
            got = "one in parts, whose order is not known" if parts else "none of this name"
            raise self._ask("action", parts or self._vectors, f"one vector, got {got}")
        return (parts[0],)

    def _named(self, what: str, names: Iterable[str], allowed: list[Leaf]) -> tuple[Leaf, ...]:
        found = []
        for name in names:
            leaf = next((leaf for leaf in map(self._leaves.get, _whole(name)) if leaf is not None), None)
            if leaf is None:
                raise self._ask(what, allowed, f"keys that are there, got {name!r}{self._hint(name, allowed)}")
            if leaf not in allowed:
                kind = f"{leaf.kind} of {leaf.dtype}, shape {leaf.shape}, in {leaf.sequences} sequences"
                raise self._ask(what, allowed, f"another kind than that of {name!r} ({kind})")
            found.append(leaf)
        return tuple(found)

    def _ask(self, what: str, leaves: list[Leaf], problem: str) -> DataError:
        choice = [f"{_short(leaf.key)} {leaf.shape}" for leaf in leaves]
        return DataError(f"{self._path}: {what}: expected {problem}. Say which by keys.{what}; there are {choice}.")

    def _hint(self, name: str, allowed: list[Leaf]) -> str:
        if any(key.startswith(f"{whole}/") for key in self._leaves for whole in _whole(name)):
            return ", which has parts: name these, in the order you want"
        return did_you_mean(name, [_short(leaf.key) for leaf in allowed]).rstrip("?")


def vector_feature(leaves: tuple[Leaf, ...], what: str, dataset: str) -> VectorFeature:
    """Names of the numbers, and what is known of them where the dataset is a well-known one."""
    names = _column_names(leaves, what)
    units: list[str] = []
    rotations, grippers, begin = [], {}, 0
    for leaf in leaves:
        part = known_part(dataset, leaf.key)
        if part is not None and len(part.units) == leaf.size:
            units += part.units
            if part.rotation is not None:
                first, representation = begin + part.rotation[0], part.rotation[1]
                rotations.append(Rotation(names[first : first + ROTATIONS[representation]], representation))
            if part.gripper is not None:
                grippers[names[begin]] = part.gripper
        begin += leaf.size or 0
    known = len(units) == len(names)
    return VectorFeature(names, tuple(units) if known else None, rotations=tuple(rotations), grippers=grippers)


def control_of(leaves: tuple[Leaf, ...], dataset: str) -> tuple[ControlSpace | None, ControlType | None]:
    """What an action commands where its parts are well known; grippers aside."""
    parts = [known_part(dataset, leaf.key) for leaf in leaves]
    controls = {part and part.control for part in parts if part is None or part.gripper is None}
    control = controls.pop() if len(controls) == 1 else None
    return control or (None, None)


def _column_names(leaves: tuple[Leaf, ...], what: str) -> tuple[str, ...]:
    """`what_0 …` of a single vector, else the last part of each key, numbered where it has more than one number."""
    if len(leaves) == 1:
        return tuple(f"{what}_{i}" for i in range(leaves[0].size or 0))
    last = [leaf.key.rpartition("/")[2] for leaf in leaves]
    stems = last if len(set(last)) == len(last) else [_short(leaf.key) for leaf in leaves]
    return tuple(
        stem if leaf.size == 1 else f"{stem}_{i}"
        for stem, leaf in zip(stems, leaves, strict=True)
        for i in range(leaf.size or 0)
    )


def _short(key: str) -> str:
    return key.removeprefix(_OBSERVATION).removeprefix(STEPS)


def _camera_name(leaf: Leaf) -> str:
    return _short(leaf.key).replace("/", "_")


def _whole(name: str) -> tuple[str, ...]:
    return (name, _OBSERVATION + name, STEPS + name)


def _is_vector(leaf: Leaf) -> bool:
    """Numbers of every step, of a size that does not change."""
    return leaf.kind == "tensor" and leaf.sequences == 1 and leaf.key.startswith(STEPS) and bool(leaf.size)


def _is_embedding(leaf: Leaf) -> bool:
    return "embedding" in leaf.key or "language" in leaf.key


def _is_camera(leaf: Leaf) -> bool:
    """RGB pictures of every step; depth maps come as 16 bits, one channel, or colours that code a number."""
    rgb = leaf.kind == "image" and leaf.dtype == "uint8" and leaf.shape[-1:] == (3,)
    return rgb and leaf.sequences == 1 and leaf.key.startswith(STEPS) and "depth" not in leaf.key


def _is_text(leaf: Leaf) -> bool:
    return leaf.kind == "text" and leaf.sequences == (1 if leaf.key.startswith(STEPS) else 0)
