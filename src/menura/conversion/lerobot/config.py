"""A LeRobot policy's `config.json`: what it says of the data, and its options, each of which somebody must look at."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from menura.errors import CheckpointError, did_you_mean

STATE = "observation.state"
ACTION = "action"
_MISSING = object()

# Of training, the hub and the machine it ran on: nothing the network or its answers depend on.
_ELSEWHERE = (
    "type",
    "device",
    "use_amp",
    "push_to_hub",
    "repo_id",
    "private",
    "tags",
    "license",
    "pretrained_path",
    "pretrained_revision",
    "pretrained_backbone_weights",
    "compile_model",
    "compile_mode",
    "gradient_checkpointing",
    "input_features",
    "output_features",
    "input_shapes",
    "output_shapes",
    "input_normalization_modes",
    "output_normalization_modes",
    "normalization_mapping",
    "use_peft",
    "action_feature_names",
)
_EMPTY_CAMERA = re.compile(r"observation\.images\.empty_camera_\d+")
_ELSEWHERE_PREFIXES = ("optimizer_", "scheduler_")


@dataclass(frozen=True)
class Feature:
    """An entry of `input_features` or `output_features`: kind STATE, ENV, VISUAL, ACTION or another; its shape."""

    kind: str
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        return math.prod(self.shape)


class LeRobotConfig:
    """What `config.json` says. Every option must be read or ignored by name: `unread` lists those that were not.

    Args:
        data: the file's content.
        where: its path, for messages.

    Attributes:
        type: LeRobot's name of the policy (`act`, `diffusion`, …).
        inputs, outputs: LeRobot's key -> `Feature`, in the file's order.
        state_dim, env_state_dim, action_dim: widths of `observation.state`, of the environment's state and of the
            action; 0 where there is none.
        image_keys: the camera keys, in the order in which the policy is given them.
        notes: what a converter has to say to whoever converts, beyond the report.
    """

    def __init__(self, data: Mapping[str, Any], where: str) -> None:
        self._data = data
        self._read: set[str] = set()
        self.where = where
        self.notes: list[str] = []
        self.type = str(data["type"])
        if data.get("use_peft"):
            raise CheckpointError(
                f"{where}: expected whole weights, got use_peft. Merge the adapter with its base model in LeRobot."
            )
        # Cameras that were never there, which LeRobot shows as black images that nothing attends to.
        inputs = _features(data, "input", where)
        self.inputs = {key: feature for key, feature in inputs.items() if not _EMPTY_CAMERA.fullmatch(key)}
        self.outputs = _features(data, "output", where)
        self.image_keys = tuple(key for key, feature in self.inputs.items() if feature.kind == "VISUAL")
        env = [key for key, feature in self.inputs.items() if feature.kind == "ENV"]
        vectors = [key for key, feature in self.inputs.items() if feature.kind == "STATE"]
        others = [key for key in self.inputs if key not in (*self.image_keys, *env, *vectors)]
        if others or set(vectors) - {STATE} or len(env) > 1:
            odd = next(iter([*others, *(key for key in vectors if key != STATE), *env]))
            raise CheckpointError(
                f"{where}: expected inputs of {STATE}, one environment's state and cameras, got {odd!r} "
                f"of type {self.inputs[odd].kind}, which Menura's observations have no place for."
            )
        if ACTION not in self.outputs or len(self.outputs) > 1:
            raise CheckpointError(f"{where}: expected the output {ACTION!r} alone, got {sorted(self.outputs)}.")
        self.env_key = env[0] if env else None
        self.state_dim = self.inputs[STATE].size if vectors else 0
        self.env_state_dim = self.inputs[env[0]].size if env else 0
        self.action_dim = self.outputs[ACTION].size

    @property
    def image_sizes(self) -> dict[str, tuple[int, int]]:
        """Camera key -> (height, width)."""
        return {key: (self.inputs[key].shape[1], self.inputs[key].shape[2]) for key in self.image_keys}

    def get(self, name: str, default: Any = _MISSING) -> Any:
        """An option's value; `default` is LeRobot's, for files older than the option. Without one it must be there."""
        self._read.add(name)
        if name in self._data:
            return self._data[name]
        if default is _MISSING:
            near = did_you_mean(name, self._data) or "."
            raise CheckpointError(f"{self.where}: expected {name!r}, got nothing{near}")
        return default

    def expect(self, name: str, value: Any, reason: str) -> None:
        """Refuse any other value than this one (which is also LeRobot's default): `reason` ends the message."""
        got = self.get(name, value)
        if got != value:
            raise CheckpointError(f"{self.where}: expected {name} {value!r}, got {got!r}: {reason}")

    def ignore(self, *names: str) -> None:
        """Options that do not matter for what the policy answers."""
        self._read.update(names)

    @property
    def raw(self) -> Mapping[str, Any]:
        """The file's content, for what no converter reads."""
        return self._data

    @property
    def unread(self) -> tuple[str, ...]:
        """Options that nobody looked at."""
        return tuple(
            name
            for name in self._data
            if name not in self._read and name not in _ELSEWHERE and not name.startswith(_ELSEWHERE_PREFIXES)
        )


def _features(data: Mapping[str, Any], which: str, where: str) -> dict[str, Feature]:
    """`input_features`, or `input_shapes` of LeRobot before 2025."""
    entries = data.get(f"{which}_features")
    if entries is None:
        shapes = data.get(f"{which}_shapes")
        if shapes is None:
            raise CheckpointError(f"{where}: expected {which}_features, got nothing. It is no policy's config.")
        return {key: Feature(_kind(key), tuple(shape)) for key, shape in shapes.items()}
    try:
        return {key: Feature(str(entry["type"]), tuple(entry["shape"])) for key, entry in entries.items()}
    except (TypeError, KeyError, AttributeError):
        raise CheckpointError(
            f"{where}, {which}_features: expected {{key: {{type, shape}}}}, got {entries!r}."
        ) from None


def _kind(key: str) -> str:
    """What LeRobot took a key of `input_shapes` for."""
    if key.startswith("observation.image"):
        return "VISUAL"
    if key == "observation.environment_state":
        return "ENV"
    return "ACTION" if key == ACTION else "STATE"
