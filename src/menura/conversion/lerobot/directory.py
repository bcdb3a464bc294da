"""The files of a LeRobot policy directory: config, weights, and the steps of its processors with their statistics."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from menura.conversion.lerobot.config import LeRobotConfig
from menura.conversion.weights import Weights
from menura.errors import CheckpointError
from menura.files import read_json

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
PREPROCESSOR_FILE = "policy_preprocessor.json"
POSTPROCESSOR_FILE = "policy_postprocessor.json"
# Where LeRobot's training puts a policy, below the run and below a checkpoint of it.
_INNER = ("pretrained_model", "checkpoints/last/pretrained_model")


@dataclass(frozen=True)
class Step:
    """One step of a processor: the name it is registered by, its settings, and its tensors."""

    name: str
    config: Mapping[str, Any]
    state: Mapping[str, Tensor]


@dataclass(frozen=True)
class LeRobotDirectory:
    """A LeRobot policy directory, read but for its weights.

    Attributes:
        path: where it lies.
        config: what `config.json` says.
        preprocessor, postprocessor: their steps; None in directories of LeRobot before 0.4, whose statistics are among
            the weights.
    """

    path: Path
    config: LeRobotConfig
    preprocessor: tuple[Step, ...] | None
    postprocessor: tuple[Step, ...] | None

    @classmethod
    def read(cls, directory: str | Path) -> LeRobotDirectory:
        """CheckpointError when a file is missing or damaged."""
        path = policy_directory(directory)
        if path is None:
            raise CheckpointError(f"{directory}: expected a LeRobot policy ({CONFIG_FILE} with a type), got none.")
        data = read_json(path / CONFIG_FILE, CheckpointError)
        if "type" not in data:
            raise CheckpointError(
                f"{path / CONFIG_FILE}: expected 'type', the kind of policy, got nothing: LeRobot before 2025 wrote "
                'none. Add it: "type": "act", or whatever it is.'
            )
        preprocessor = _steps(path, PREPROCESSOR_FILE)
        postprocessor = _steps(path, POSTPROCESSOR_FILE)
        if (preprocessor is None) != (postprocessor is None):
            missing = PREPROCESSOR_FILE if preprocessor is None else POSTPROCESSOR_FILE
            raise CheckpointError(f"{path / missing}: expected this file beside the other processor, got none.")
        return cls(path, LeRobotConfig(data, str(path / CONFIG_FILE)), preprocessor, postprocessor)

    def weights(self) -> Weights:
        """Every tensor of the model, on the CPU."""
        single, index = self.path / WEIGHTS_FILE, self.path / INDEX_FILE
        if single.is_file() or not index.is_file():
            return Weights(_tensors(single), str(single))
        files = sorted(set(read_json(index, CheckpointError)["weight_map"].values()))
        tensors: dict[str, Tensor] = {}
        for name in files:
            tensors |= _tensors(_beside(self.path, name))
        return Weights(tensors, str(index))


def policy_directory(directory: str | Path) -> Path | None:
    """Where in a LeRobot policy, checkpoint or run the policy's files are; None where there is no such thing."""
    root = Path(directory)
    for path in (root, *(root / inner for inner in _INNER)):
        if (path / CONFIG_FILE).is_file():
            data = read_json(path / CONFIG_FILE, CheckpointError)
            if isinstance(data, dict) and "model_type" not in data and ("type" in data or "input_shapes" in data):
                return path
    return None


def _steps(path: Path, file: str) -> tuple[Step, ...] | None:
    if not (path / file).is_file():
        return None
    data = read_json(path / file, CheckpointError)
    steps = []
    try:
        for entry in data["steps"]:
            name = entry.get("registry_name") or entry["class"]
            state = entry.get("state_file")
            tensors = {} if state is None else _tensors(_beside(path, state))
            steps.append(Step(str(name), entry.get("config", {}), tensors))
    except (TypeError, KeyError, AttributeError) as problem:
        raise CheckpointError(f"{path / file}: expected LeRobot's list of steps, got none: {problem!r}.") from None
    return tuple(steps)


def _beside(path: Path, name: str) -> Path:
    """A file that another one names: it lies in the same directory, whatever is written there."""
    if Path(name).name != name:
        raise CheckpointError(f"{path}: expected the name of a file beside the config, got {name!r}.")
    return path / name


def _tensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except FileNotFoundError:
        raise CheckpointError(
            f"{path}: expected this file of the policy, got none. Copy the whole directory."
        ) from None
    except SafetensorError as problem:
        raise CheckpointError(f"{path}: expected a safetensors file, got {problem}.") from None
