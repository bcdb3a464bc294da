"""A policy of Menura -> a LeRobot policy directory, for the policies that LeRobot has in the same form."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor

from menura.conversion.lerobot.config import ACTION, STATE
from menura.conversion.lerobot.converters import WayBack
from menura.conversion.lerobot.directory import CONFIG_FILE, POSTPROCESSOR_FILE, PREPROCESSOR_FILE, WEIGHTS_FILE
from menura.conversion.lerobot.processor import EPS
from menura.errors import CheckpointError
from menura.files import new_directory, write_json
from menura.processing.images import ImageNormalization
from menura.processing.normalizer import Normalizer
from menura.processing.processor import Processor

Float64 = NDArray[np.float64]
# Our class -> LeRobot's type, of the policies that go back.
TYPES: Mapping[str, str] = {"ACTPolicy": "act", "DiffusionPolicy": "diffusion"}
ENV = "observation.environment_state"
# A constant dimension is 0 after our normalization, whatever comes in. In LeRobot's formula that takes a deviation
# beside which nothing counts.
_ENDLESS = 1e6
_MODES = {"zscore": "MEAN_STD", "minmax": "MIN_MAX", "percentile": "QUANTILES"}
_NAMES = {"MEAN_STD": ("mean", "std"), "MIN_MAX": ("min", "max"), "QUANTILES": ("q01", "q99")}


def write(policy: Any, processor: Processor, output_dir: Path) -> Path:
    """Write the directory; complete or not at all.

    Args:
        policy: one that LeRobot has, such as an `ACTPolicy`.
        processor: its own.
        output_dir: new, or empty.

    Raises:
        CheckpointError: LeRobot has no such policy, or cannot hold what this one does.
    """
    name = type(policy).__name__
    if name not in TYPES:
        raise CheckpointError(f"to lerobot: expected a policy of {', '.join(TYPES)}, got {name}.")
    _check_processor(processor)
    if output_dir.exists() and any(output_dir.iterdir()):
        raise CheckpointError(f"{output_dir}: expected a new or empty directory, got one that holds files.")
    rules = cast(WayBack, importlib.import_module(f"menura.conversion.lerobot.{TYPES[name]}"))
    written = _Written(processor, env_state_dim=getattr(policy.config, "env_state_dim", 0))
    weights = rules.state_dict_to(policy.state_dict(), policy.config)
    config = {
        "type": TYPES[name],
        "input_features": written.inputs,
        "output_features": written.outputs,
        "normalization_mapping": written.modes,
        "device": "cpu",
        **rules.config_to(policy.config),
    }
    with new_directory(output_dir) as temporary:
        write_json(temporary / CONFIG_FILE, config)
        save_file(
            {key: tensor.detach().cpu().contiguous() for key, tensor in weights.items()}, temporary / WEIGHTS_FILE
        )
        moving = {"registry_name": "device_processor", "config": {"device": "cpu", "float_dtype": None}}
        steps = [
            {"registry_name": "rename_observations_processor", "config": {"rename_map": {}}},
            {"registry_name": "to_batch_processor", "config": {}},
            moving,
            written.step("normalizer_processor", {**written.inputs, **written.outputs}),
        ]
        _write_processor(temporary, PREPROCESSOR_FILE, steps, written.statistics_there)
        steps = [written.step("unnormalizer_processor", written.outputs), moving]
        _write_processor(temporary, POSTPROCESSOR_FILE, steps, written.statistics_back)
    return output_dir


class _Written:
    """Features, modes and statistics as LeRobot's files have them."""

    def __init__(self, processor: Processor, env_state_dim: int) -> None:
        self.inputs: dict[str, Any] = {}
        self.modes: dict[str, str] = {}
        self.statistics_there: dict[str, Tensor] = {}
        self.statistics_back: dict[str, Tensor] = {}
        if processor.state_normalizer is not None:
            width = processor.state_normalizer.dim - env_state_dim
            self._vector(STATE, "STATE", processor.state_normalizer, slice(0, width))
            self._vector(ENV, "ENV", processor.state_normalizer, slice(width, None))
        self._images(processor)
        self.outputs = {ACTION: {"type": "ACTION", "shape": [processor.action_normalizer.dim]}}
        self.modes["ACTION"] = self._there(ACTION, processor.action_normalizer, slice(None))
        self._back(processor.action_normalizer)

    def step(self, name: str, features: Mapping[str, Any]) -> dict[str, Any]:
        return {"registry_name": name, "config": {"eps": EPS, "features": features, "norm_map": self.modes}}

    def _vector(self, key: str, kind: str, normalizer: Normalizer, part: slice) -> None:
        width = len(range(*part.indices(normalizer.dim)))
        if width:
            self.inputs[key] = {"type": kind, "shape": [width]}
            self.modes[kind] = self._there(key, normalizer, part)

    def _images(self, processor: Processor) -> None:
        value, cameras = processor.settings.image_normalize, processor.camera_names
        for camera in cameras:
            own = value[camera] if isinstance(value, Mapping) and set(cameras) <= set(value) else value
            parsed = ImageNormalization.parse(own)
            key = f"observation.images.{camera}"
            self.inputs[key] = {"type": "VISUAL", "shape": [3, *(processor.image_size or ())]}
            self.modes["VISUAL"] = "MEAN_STD"
            self.statistics_there[f"{key}.mean"] = _float32(np.array(parsed.mean)).reshape(3, 1, 1)
            self.statistics_there[f"{key}.std"] = _float32(np.array(parsed.std) - EPS).reshape(3, 1, 1)

    def _there(self, key: str, normalizer: Normalizer, part: slice) -> str:
        """From physical to normalized; the mode it is by."""
        numbers = normalizer.affine()
        centre, scale, base, constant = (
            each[part] for each in (numbers.centre, numbers.scale, numbers.base, numbers.inverse_base)
        )
        flat = scale == 0
        span = np.where(flat, _ENDLESS, 1 / np.where(flat, 1.0, scale))
        middle = np.where(flat, constant, centre - base * span)
        # LeRobot's own ranges come back as such; else the kind of normalization says what it is called there.
        mode = _MODES.get(normalizer.kind, "MIN_MAX" if np.all(base == -1) else "MEAN_STD")
        self._keep(self.statistics_there, key, mode, middle, span - EPS if mode == "MEAN_STD" else span)
        return mode

    def _back(self, normalizer: Normalizer) -> None:
        numbers = normalizer.affine()
        self._keep(self.statistics_back, ACTION, self.modes["ACTION"], numbers.inverse_base, numbers.inverse_scale)

    def _keep(self, table: dict[str, Tensor], key: str, mode: str, middle: Float64, span: Float64) -> None:
        values = (middle, span)
        if mode != "MEAN_STD":
            low = middle - span
            # A range of LeRobot's epsilon stands for none, which it must find again; float32 would make it another.
            values = (low, np.where(2 * span > 1.5 * EPS, middle + span, low))
        for name, value in zip(_NAMES[mode], values, strict=True):
            table[f"{key}.{name}"] = _float32(value)


def _check_processor(processor: Processor) -> None:
    """CheckpointError for what LeRobot's processors cannot do."""
    settings = processor.settings
    sizes = {camera: (own.height, own.width) for camera, own in settings.features.cameras.items()}
    resized = [camera for camera in settings.camera_names if sizes[camera] != settings.image_size]
    faults = {
        f"statistics of {len(settings.dataset_names)} datasets": len(settings.dataset_names) > 1,
        "actions in another space than they are recorded in": processor.spaces_of(0).encodes_actions
        or settings.state_rotation is not None,
        "a frozen image encoder": processor.image_encoder is not None,
        "a blind policy": settings.blind,
        f"images of {', '.join(resized)} resized to {settings.image_size} (height, width)": bool(resized),
    }
    for fault, there in faults.items():
        if there:
            raise CheckpointError(f"to lerobot: expected what LeRobot's processors can do, got {fault}.")


def _write_processor(directory: Path, file: str, steps: list[dict[str, Any]], state: dict[str, Tensor]) -> None:
    """One processor; the step that normalizes has the state."""
    name = file.removesuffix(".json")
    entries = []
    for number, step in enumerate(steps):
        entry = dict(step)
        if "norm_map" in step["config"]:
            entry["state_file"] = f"{name}_step_{number}_{step['registry_name']}.safetensors"
            save_file(state, directory / entry["state_file"])
        entries.append(entry)
    write_json(directory / file, {"name": name, "steps": entries})


def _float32(values: Float64) -> Tensor:
    return torch.from_numpy(values.astype(np.float32))
