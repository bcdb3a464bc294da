"""Components of a task: their classes are looked up, and their arguments compared with the signatures in the source.

So are the readers of datasets given by path, whose format is said or recognised.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from menura.components import Found, find
from menura.config.annotations import expected_by_annotation, expected_by_default
from menura.config.origins import KeyPath, Problems, Tree, dotted
from menura.config.sections import COMPONENTS, DEVICES
from menura.config.yaml_tree import told
from menura.data.formats import FORMATS, recognise
from menura.errors import ComponentError, DataError, did_you_mean, nearest
from menura.source import Parameters

# What a reader is given besides `args:`, by keys of the dataset's own.
_OF_DATASETS = ("path", "keys", "name")
# Filled in from the dataset when the user gives none, so never missing.
_FROM_DATA = ("state_dim", "action_dim", "camera_names", "image_feature_dim")


@dataclass(frozen=True)
class Place:
    """A component as the tree has it: a mapping that should hold `class` and `args`."""

    kind: str
    path: KeyPath
    value: dict[str, Any]

    @property
    def args_path(self) -> KeyPath:
        return (*self.path, "args")


def component_places(tree: Tree) -> Iterator[Place]:
    """Every component of a task whose section is a mapping, and those that drive a robot."""
    for kind in (*COMPONENTS, *DEVICES):
        if isinstance(value := tree.value.get(kind), dict):
            yield Place(kind, (kind,), value)
            yield from _within(kind, value)
    datasets = tree.value.get("datasets")
    for index, dataset in enumerate(datasets if isinstance(datasets, list) else ()):
        if isinstance(dataset, dict):
            yield Place("dataset", ("datasets", index), dataset)
            wrappers = dataset.get("wrappers")
            for number, wrapper in enumerate(wrappers if isinstance(wrappers, list) else ()):
                if isinstance(wrapper, dict):
                    yield Place("wrapper", ("datasets", index, "wrappers", number), wrapper)
    augmentations = tree.value.get("augmentations")
    for index, augmentation in enumerate(augmentations if isinstance(augmentations, list) else ()):
        if isinstance(augmentation, dict):
            yield Place("augmentation", ("augmentations", index), augmentation)


def _within(kind: str, value: dict[str, Any]) -> Iterator[Place]:
    """The component that is an argument of another one: a simulated robot's environment, the expert that takes over."""
    args, inner = value.get("args"), {"robot": "env", "teleop": "expert"}.get(kind)
    if inner is None or not isinstance(args, dict) or not isinstance(args.get(inner), dict):
        return
    if any(
        nearest(str(key), ("class", "args")) for key in args[inner]
    ):  # misspelt too; not some mapping of a user's own
        yield Place(inner, (kind, "args", inner), args[inner])


def check_components(tree: Tree, problems: Problems, kinds: Collection[str]) -> None:
    """Report classes of these kinds that are not found and arguments that do not fit them."""
    for place in component_places(tree):
        if place.kind not in kinds:
            continue
        args = place.value.get("args", {})
        name = _reader_of(place, tree, problems) if "path" in place.value else place.value.get("class")
        if not isinstance(name, str) or not isinstance(args, dict):
            continue  # the schema says so
        try:
            built = _built_class(find(place.kind, name, problems.project), place, tree, problems)
            parameters = built.parameters() if built is not None else None
            if parameters is not None and "path" in place.value:
                parameters = parameters.without(_OF_DATASETS)
            if parameters is not None and place.kind == "wrapper":
                parameters = parameters.without(parameters.names[:1])  # the reader within
        except ComponentError as error:
            class_path = (*place.path, "class")
            problems.add(dotted(class_path), str(error), tree.origin(class_path))
            continue
        if built is not None and parameters is not None:
            _Arguments(built.name, parameters, place, tree, problems).check(args)


def check_masks(tree: Tree, problems: Problems) -> None:
    """A mask has one value for each dimension that the policy was told of."""
    processor, policy = tree.value.get("processor"), tree.value.get("policy")
    args = policy.get("args") if isinstance(policy, dict) else None
    if not isinstance(processor, dict) or not isinstance(args, dict):
        return
    for name in ("state", "action"):
        mask, width = processor.get(f"{name}_mask"), args.get(f"{name}_dim")
        if isinstance(mask, list) and isinstance(width, int) and len(mask) != width:
            message = f"expected {width} values, as policy.args.{name}_dim says, got {len(mask)}"
            problems.add(f"processor.{name}_mask", message, tree.origin(("processor", f"{name}_mask")))


def _reader_of(place: Place, tree: Tree, problems: Problems) -> str | None:
    """The reader of a dataset's files: of the format that is said, or of the one recognised where arguments need it."""
    path, format = place.value["path"], place.value.get("format")
    if isinstance(format, str) and format not in FORMATS:
        format_path: KeyPath = (*place.path, "format")
        message = f"expected one of {', '.join(FORMATS)}, got {told(format)}{did_you_mean(format, FORMATS)}"
        problems.add(dotted(format_path), message, tree.origin(format_path))
        return None
    if format is None and place.value.get("args") and isinstance(path, str) and Path(path).exists():
        try:
            format = recognise(Path(path))
        except DataError as error:
            problems.add(dotted((*place.path, "path")), str(error), tree.origin((*place.path, "path")))
    return FORMATS[format].reader if isinstance(format, str) else None


def _built_class(found: Found, place: Place, tree: Tree, problems: Problems) -> Found | None:
    """The class that takes the arguments: a policy's are its config's."""
    if place.kind != "policy":
        return found
    if found.lacks_config_class():
        message = f"{found.name} ({found.where}) names no config class. Write config_class = {found.name}Config in it"
        problems.add("policy.class", message, tree.origin(("policy", "class")))
        return None
    return found.config_class()


class _Arguments:
    """The arguments of one component against its parameters."""

    def __init__(self, name: str, parameters: Parameters, place: Place, tree: Tree, problems: Problems) -> None:
        self._name = name
        self._parameters = parameters
        self._place = place
        self._tree = tree
        self._problems = problems

    def check(self, args: dict[str, Any]) -> None:
        for key, value in args.items():
            if key in self._parameters.names:
                self._check_value(key, value)
            elif not self._parameters.var_keyword:
                hint = did_you_mean(key, self._parameters.names) or f". It takes {self._known()}"
                self._report(key, f"no such argument of {self._name}{hint}")
        if self._place.kind != "trainer":  # a trainer's model, data and settings come from Menura
            self._check_required(args)
        if self._place.kind == "policy":
            self._check_chunk(args)
            self._check_cameras(args)

    def _known(self) -> str:
        return ", ".join(self._parameters.names) or "none"

    def _report(self, key: str, message: str) -> None:
        path = (*self._place.args_path, key)
        self._problems.add(dotted(path), message, self._tree.origin(path))

    def _check_value(self, key: str, value: Any) -> None:
        if self._place.kind in ("policy", "image_encoder") and (expected := _size_problem(key, value)) is not None:
            self._report(key, f"expected {expected}, got {told(value)}")
            return
        if key in self._parameters.annotations:
            expected = expected_by_annotation(self._parameters.annotations[key], value)
        elif key != "image_size":  # a size may be one number or two, whatever its default
            expected = expected_by_default(self._parameters.defaults.get(key), value)
        else:
            expected = None
        if expected is not None:
            self._report(key, f"expected {expected}, got {told(value)}")

    def _check_required(self, args: dict[str, Any]) -> None:
        for key in self._parameters.required:
            if key not in args and not (self._place.kind == "policy" and key in _FROM_DATA):
                self._report(key, f"required by {self._name}, but missing")

    def _check_chunk(self, args: dict[str, Any]) -> None:
        """More actions cannot be executed than were predicted."""
        defaults = self._parameters.defaults
        chunk, executed = (args.get(key, defaults.get(key)) for key in ("chunk_size", "n_action_steps"))
        if not isinstance(chunk, int) or not isinstance(executed, int) or min(chunk, executed) < 1 or executed <= chunk:
            return
        if "n_action_steps" in args:
            self._report("n_action_steps", f"expected at most chunk_size, which is {chunk}, got {executed}")
        else:
            at_least = f"expected at least n_action_steps, which is {executed} by default"
            self._report("chunk_size", f"{at_least}, got {chunk}. Set n_action_steps too")

    def _check_cameras(self, args: dict[str, Any]) -> None:
        cameras = args.get("camera_names")
        if not isinstance(cameras, list):
            return
        if not cameras and self._tree.value.get("image_encoder") is not None:
            self._report("camera_names", "expected at least one camera, because image_encoder is set, got []")
        for camera in cameras:
            if cameras.count(camera) > 1:
                self._report("camera_names", f"expected different cameras, got {told(camera)} twice")


def _size_problem(key: str, value: Any) -> str | None:
    """What was expected of a size or a count that is out of range, by the words its name is made of."""
    if key == "image_size" and isinstance(value, list):
        good = len(value) == 2 and all(isinstance(side, int) and side > 0 for side in value)
        return None if good else "[height, width], both greater than 0"
    if not isinstance(value, int) or isinstance(value, bool):
        return None
    if key.endswith("_size") or key in ("n_action_steps", "n_obs_steps"):
        return "a number greater than 0" if value < 1 else None
    counts = key.startswith(("num_", "n_")) or key.endswith(("_dim", "_layers", "_heads"))
    return "a number of at least 0" if counts and value < 0 else None
