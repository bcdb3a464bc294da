"""The original Diffusion Policy: a `.ckpt` of a workspace -> `DiffusionPolicy`.

As https://github.com/real-stanford/diffusion_policy writes them (`workspace/base_workspace.py`): the configuration,
and a state dict of the policy and of the average of its weights, which is what acts. Read are the U-Net and the
transformer, each from vectors (`lowdim`) or from images by robomimic's encoder (`hybrid`).
"""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from menura.conversion import unet
from menura.conversion.foreign import Foreign, build, configured, policy_class, processor_of
from menura.conversion.lerobot.image_encoder import in_torchvision
from menura.conversion.original.diffusion_options import Observation, options
from menura.conversion.original.unpickling import load_torch, plain
from menura.conversion.resnet import from_torchvision
from menura.conversion.weights import Weights, below, renamed
from menura.errors import CheckpointError, StatisticsError
from menura.features import CameraFeature, Features, VectorFeature
from menura.policies.contract import Contract
from menura.processing.normalizer import Affine
from menura.processing.processor import Processor

Float64 = NDArray[np.float64]
ORIGIN = "diffusion_policy"
DATASET = "diffusion_policy"
_MARK = b"diffusion_policy."
_TRANSFORMER = {  # theirs -> ours
    "input_emb": "actions",
    "cond_obs_emb": "observations",
    "encoder.0": "memory_mlp.0",
    "encoder.2": "memory_mlp.2",
    "ln_f": "norm",
    "head": "output",
}
_LAYER = {
    "self_attn.out_proj": "action_output",
    "multihead_attn.out_proj": "memory_output",
    "linear1": "mlp.0",
    "linear2": "mlp.3",
    "norm1": "norms.0",
    "norm2": "norms.1",
    "norm3": "norms.2",
}
_TEMPERATURE = "pool.temperature"


def recognises(path: Path) -> bool:
    """Whether it is a `.ckpt` whose pickle speaks of `diffusion_policy`; no weights are read."""
    if path.suffix != ".ckpt" or not path.is_file() or not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        name = next((name for name in archive.namelist() if name.endswith("/data.pkl")), None)
        return name is not None and _MARK in archive.read(name)


def read(path: Path, args: Mapping[str, Any]) -> Foreign:
    """The policy of a workspace's checkpoint, which says all of itself: there are no `args`.

    Raises:
        CheckpointError, StatisticsError: something is missing, left over, or has no place in Menura.
    """
    if args:
        raise CheckpointError(f"args: expected none for a Diffusion Policy, whose file says all, got {list(args)}.")
    payload = load_torch(path)
    if not isinstance(payload, Mapping) or not {"cfg", "state_dicts"} <= payload.keys():
        raise CheckpointError(f"{path}: expected a workspace's checkpoint, with cfg and state_dicts, got none.")
    settings = options(plain(payload["cfg"]), str(path))
    averaged = "ema_model" in payload["state_dicts"]
    weights = Weights(payload["state_dicts"]["ema_model" if averaged else "model"], str(path))
    observation = settings.observation
    class_ = policy_class("DiffusionPolicy")
    config = configured(class_, {**settings.args, "image_normalize": _image_normalize(weights, observation)})
    processor = _processor(config, weights, observation, Contract.of(class_).keys)
    policy = build(class_, config, _state_dict(weights, config, observation), weights)
    if not averaged:
        settings.notes.append("It holds no average of its weights; those of the last step are taken.")
    return Foreign(policy, processor, ORIGIN, path, (path,), (*settings.notes, *weights.notes))


def _state_dict(weights: Weights, config: Any, observation: Observation) -> dict[str, Tensor]:
    if config.denoiser == "unet":
        levels = len(config.unet_widths)
        denoiser = unet.from_authors(weights, "model.", levels, config.unet_time_dim, lerobot=False)
        name, steps = "film.condition.weight", config.n_obs_steps
    else:
        denoiser = _transformer(weights, config)
        name, steps = "observations.weight", 1
    columns = denoiser[name].reshape(len(denoiser[name]), steps, -1)[..., observation.order]
    denoiser[name] = columns.flatten(1)
    result = below("denoiser.", denoiser)
    for number, camera in enumerate(observation.cameras):
        result |= below(f"encoder.cameras.{number}.", _encoder(weights, f"obs_encoder.obs_nets.{camera}."))
    for prefix in ("mask_generator.", "_dummy_variable"):
        weights.drop(prefix, "it holds no numbers")
    result["action_bound"] = torch.full((config.action_dim,), float(config.clip_sample_range))
    return result


def _encoder(weights: Weights, prefix: str) -> dict[str, Tensor]:
    """robomimic's `VisualCore`, whose parts are there twice: by name, and by place in `nets`."""
    temperature = weights.take(prefix + _TEMPERATURE)
    if not torch.all(temperature == 1):
        raise CheckpointError(f"{weights.where}: expected {prefix}{_TEMPERATURE} 1, got {float(temperature):g}.")
    for grid in ("pool.pos_x", "pool.pos_y"):
        weights.drop(prefix + grid, "positions in an image are computed")
    result = below("keypoints.projection.", weights.take_below(f"{prefix}pool.nets."))
    result |= below("projection.", weights.take_below(f"{prefix}nets.3."))
    backbone = renamed(weights.take_below(f"{prefix}backbone.nets."), in_torchvision)
    weights.drop(f"{prefix}nets.", "the same weights under another name")
    return result | below("backbone.resnet.", from_torchvision(backbone))


def _transformer(weights: Weights, config: Any) -> dict[str, Tensor]:
    result: dict[str, Tensor] = {}
    for old, new in _TRANSFORMER.items():
        result |= below(f"{new}.", weights.take_below(f"model.{old}."))
    result["action_positions.weight"] = weights.take("model.pos_emb")[0]
    result["memory_positions.weight"] = weights.take("model.cond_pos_emb")[0]
    for number in range(config.n_layers):
        theirs, ours = f"model.decoder.layers.{number}.", f"layers.{number}."
        for old, new in _LAYER.items():
            result |= below(f"{ours}{new}.", weights.take_below(f"{theirs}{old}."))
        for kind in ("weight", "bias"):
            result[f"{ours}action_projection.{kind}"] = weights.take(f"{theirs}self_attn.in_proj_{kind}")
            projection = weights.take(f"{theirs}multihead_attn.in_proj_{kind}")
            query, memory = projection.tensor_split([config.hidden_size])
            result |= {f"{ours}query_projection.{kind}": query, f"{ours}memory_projection.{kind}": memory}
    for mask in ("model.mask", "model.memory_mask"):
        weights.drop(mask, "who attends to whom is computed")
    weights.drop("model._dummy_variable", "it holds no numbers")
    return result


def _processor(config: Any, weights: Weights, observation: Observation, uses: tuple[str, ...]) -> Processor:
    names = [f"{key}_{i}" for key, width in observation.vectors.items() for i in range(width)]
    height, width = config.image_size
    features = Features(
        state=VectorFeature(names=tuple(names)) if names else None,
        action=VectorFeature.of_width(config.action_dim, "action"),
        cameras={name: CameraFeature(height, width) for name in observation.cameras},
    )
    normalizers = {"action": [_affine([_scaling(weights, "action", config.action_dim)])]}
    if names:
        normalizers["state"] = [_affine([_scaling(weights, key, n) for key, n in observation.vectors.items()])]
    weights.drop("normalizer.", "statistics that nothing is computed from")
    return processor_of(config, features, uses, normalizers, [DATASET])


def _scaling(weights: Weights, key: str, width: int) -> tuple[Float64, Float64]:
    """(scale, offset) of `x * scale + offset`, each (width,) float64."""
    both = [weights.take(f"normalizer.params_dict.{key}.{name}").double().numpy() for name in ("scale", "offset")]
    if any(each.shape not in ((width,), (1,)) for each in both) or not np.all(both[0] != 0):
        raise StatisticsError(f"{weights.where}: expected {width} scales of {key!r} other than 0, got {both[0]}.")
    scale, offset = (np.broadcast_to(each, (width,)) for each in both)
    return scale, offset


def _affine(scalings: list[tuple[Float64, Float64]]) -> Affine:
    scale, offset = (np.concatenate(each) for each in zip(*scalings, strict=True))
    return Affine(np.zeros_like(scale), scale, offset, 1 / scale, -offset / scale)


def _image_normalize(weights: Weights, observation: Observation) -> Any:
    """As `image_normalize` of the config, which the authors' statistics of images say."""
    said = {}
    for camera in observation.cameras:
        scale, offset = _scaling(weights, camera, 3)
        said[camera] = {"mean": (-offset / scale).tolist(), "std": (1 / scale).tolist()}
    return said or "minus_one_one"
