"""Synthetic samples for a policy, in the shapes its config asks for."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import torch
from transformers import PretrainedConfig

from menura.features import CameraFeature, Features, VectorFeature
from menura.policies.contract import Contract, Needs
from menura.policies.needs import config_parameters

DEFAULT_STATE_DIM = 7
DEFAULT_ACTION_DIM = 7
DEFAULT_IMAGE_SIZE = (64, 64)
DEFAULT_FEATURE_DIM = 32
INSTRUCTIONS = ("pick up the cube", "open the door")


def default_features(config_class: type[PretrainedConfig], contract: Contract, args: Mapping[str, Any]) -> Features:
    """Features as wide as the arguments, or else the config's own defaults, say; one camera when none is named."""
    parameters = config_parameters(config_class)

    def value(name: str, default: Any) -> Any:
        if args.get(name) is not None:
            return args[name]
        own = parameters[name].default if name in parameters else None
        return default if own in (None, inspect.Parameter.empty) else own

    cameras = value("camera_names", ["camera"]) if contract.uses_images else []
    return Features(
        state=VectorFeature.of_width(value("state_dim", DEFAULT_STATE_DIM), "state"),
        action=VectorFeature.of_width(value("action_dim", DEFAULT_ACTION_DIM), "action"),
        cameras={name: CameraFeature(*DEFAULT_IMAGE_SIZE) for name in cameras},
        fps=10.0,
        language=True,
    )


def default_encoder_dim(
    config_class: type[PretrainedConfig], contract: Contract, features: Features, args: Mapping[str, Any]
) -> int | None:
    """Features per camera for a config that takes `image_feature_dim`; None for one that sees pixels or nothing, and
    for one that is told of none and whose `forward` names `image`, which are pixels then."""
    parameter = config_parameters(config_class).get("image_feature_dim")
    if parameter is None:
        return None
    width = args.get("image_feature_dim", parameter.default)
    if width is None and "image" in contract.keys:
        return None
    n_cameras = len(args.get("camera_names") or features.cameras) or 1
    return width // n_cameras if isinstance(width, int) else DEFAULT_FEATURE_DIM


def make_batch(
    config: PretrainedConfig, features: Features, encoder_dim: int | None, size: int, seed: int = 0
) -> dict[str, Any]:
    """A processed batch as the trainer would pass it: normalized vectors, pixels in [0, 1] or features; the last
    steps of every second chunk are padding."""
    needs = Needs.of(config)
    random = torch.Generator().manual_seed(seed)
    time = () if needs.n_obs_steps == 1 else (needs.n_obs_steps,)
    chunk = () if needs.action_offsets is None else (len(needs.action_offsets),)
    batch: dict[str, Any] = {
        "state": torch.randn(size, *time, features.state_dim, generator=random),
        "task": [INSTRUCTIONS[row % len(INSTRUCTIONS)] for row in range(size)],
        "actions": torch.randn(size, *chunk, features.action_dim, generator=random),
        "is_pad": torch.zeros(size, *chunk, dtype=torch.bool),
        "timestep": torch.arange(size),
        "dataset_id": torch.zeros(size, dtype=torch.int64),
    }
    if chunk and chunk[0] > 1:
        batch["is_pad"][::2, chunk[0] // 2 :] = True
    if time:
        batch["observation_is_pad"] = torch.zeros(size, *time, dtype=torch.bool)
    cameras = needs.cameras(features)
    if cameras and encoder_dim is not None:
        batch["image_features"] = torch.randn(size, *time, encoder_dim * len(cameras), generator=random)
    elif cameras:
        height, width = needs.image_size or DEFAULT_IMAGE_SIZE
        batch["image"] = torch.rand(size, *time, len(cameras), 3, height, width, generator=random)
    return batch
