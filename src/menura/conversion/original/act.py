"""The original ACT: `policy_best.ckpt`, a state dict, and `dataset_stats.pkl` beside it -> `ACTPolicy`.

As https://github.com/tonyzhaozh/act writes them (`imitate_episodes.py`, `policy.py`, `detr/models/detr_vae.py`). The
checkpoint does not say what its cameras are called; widths and layers are read from the weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from menura.conversion.detr import DECODER_LAYER, ENCODER_LAYER, absorbed, to_ours
from menura.conversion.foreign import Foreign, build, configured, policy_class, processor_of
from menura.conversion.original.unpickling import load_pickle, load_torch
from menura.conversion.resnet import SIZES, from_torchvision
from menura.conversion.weights import Weights, below
from menura.errors import CheckpointError, StatisticsError, did_you_mean
from menura.features import CameraFeature, Features, VectorFeature
from menura.policies.contract import Contract
from menura.processing.normalizer import Affine
from menura.processing.processor import Processor

ORIGIN = "act"
BEST_FILE = "policy_best.ckpt"
STATISTICS_FILE = "dataset_stats.pkl"
DATASET = "act"
# What neither the weights nor a config beside them say, with the values of `imitate_episodes.py`.
DEFAULTS: Mapping[str, Any] = {"image_size": [480, 640], "n_heads": 8, "n_action_steps": None, "kl_weight": 10.0}
_LAYERS = {  # theirs -> ours
    "model.action_head": "action_head",
    "model.query_embed": "queries",
    "model.input_proj": "image_projection",
    "model.input_proj_robot_state": "state_projection",
    "model.latent_out_proj": "latent_projection",
    "model.additional_pos_embed": "token_positions",
    "model.transformer.decoder.norm": "decoder_norm",
    "model.cls_embed": "cvae_encoder.summary",
    "model.encoder_action_proj": "cvae_encoder.action_projection",
    "model.encoder_joint_proj": "cvae_encoder.state_projection",
    "model.latent_proj": "cvae_encoder.head",
}
_NORMS = {"model.transformer.encoder.norm": "encoder_norm", "model.encoder.norm": "cvae_encoder.norm"}  # of pre-norm
_BACKBONE = "model.backbones.0.0.body."


def recognises(path: Path) -> bool:
    """Whether it is a directory with `policy_best.ckpt`, or a checkpoint, with `dataset_stats.pkl` beside it."""
    file = path / BEST_FILE if path.is_dir() else path
    return file.suffix == ".ckpt" and file.is_file() and file.with_name(STATISTICS_FILE).is_file()


def read(path: Path, args: Mapping[str, Any]) -> Foreign:
    """The policy of an original ACT.

    Args:
        path: the checkpoint, or the directory with `policy_best.ckpt`.
        args: `camera_names`, in the order of its task's; further `image_size`, `n_heads`, `n_action_steps`,
            `kl_weight` where they are not those of `DEFAULTS`.

    Raises:
        CheckpointError, StatisticsError: something is missing, left over, or no such checkpoint.
    """
    file = path / BEST_FILE if path.is_dir() else path
    statistics_file = file.with_name(STATISTICS_FILE)
    for needed in (file, statistics_file):
        if not needed.is_file():
            raise CheckpointError(f"{needed}: expected this file of an original ACT, got none.")
    given = _given(args, file)
    state_dict = load_torch(file)
    if not isinstance(state_dict, Mapping) or not all(isinstance(value, Tensor) for value in state_dict.values()):
        raise CheckpointError(f"{file}: expected a state dict of tensors, got {type(state_dict).__name__}.")
    weights = Weights(state_dict, str(file))
    class_ = policy_class("ACTPolicy")
    config = configured(class_, {**_architecture(weights), **given})
    processor = _processor(config, statistics_file, Contract.of(class_).keys)
    policy = build(class_, config, _state_dict(weights, config), weights)
    return Foreign(policy, processor, ORIGIN, path, (file, statistics_file), weights.notes)


def _given(args: Mapping[str, Any], file: Path) -> dict[str, Any]:
    known = ("camera_names", *DEFAULTS)
    for name in args:
        if name not in known:
            raise CheckpointError(
                f"args: expected some of {', '.join(known)}, got {name!r}{did_you_mean(name, known) or '.'}"
            )
    cameras = args.get("camera_names")
    if not isinstance(cameras, list) or not cameras:
        raise CheckpointError(
            f"{file}: expected the names of its cameras, in the order of its task's (constants.py), which the file "
            f"does not hold, got {cameras!r}. Give them: --args '{{camera_names: [top]}}'."
        )
    return {name: value for name, value in {**DEFAULTS, **args}.items() if value is not None}


def _architecture(weights: Weights) -> dict[str, Any]:
    """What the shapes of the weights say."""
    shapes = {name: tuple(tensor.shape) for name, tensor in weights.tensors.items()}

    def shape(name: str) -> tuple[int, ...]:
        if name not in shapes:
            raise CheckpointError(
                f"{weights.where}: expected an ACT of images (the tensor {name}), got none"
                f"{did_you_mean(name, shapes) or '.'}"
            )
        return shapes[name]

    def layers(prefix: str) -> int:
        return len({name.removeprefix(prefix).split(".")[0] for name in shapes if name.startswith(prefix)})

    stages = [layers(f"{_BACKBONE}layer{stage}.") for stage in (1, 2, 3, 4)]
    block = "bottleneck" if f"{_BACKBONE}layer1.0.conv3.weight" in shapes else "basic"
    size = next((own for own in SIZES.values() if (list(own[1]), own[2]) == (stages, block)), None)
    if size is None:
        raise CheckpointError(f"{weights.where}: expected a ResNet of {', '.join(SIZES)}, got stages of {stages}.")
    chunk_size, hidden_size = shape("model.query_embed.weight")
    return {
        "state_dim": shape("model.input_proj_robot_state.weight")[1],
        "action_dim": shape("model.action_head.weight")[0],
        "chunk_size": chunk_size,
        "n_action_steps": chunk_size,
        "hidden_size": hidden_size,
        "feedforward_size": shape("model.transformer.encoder.layers.0.linear1.weight")[0],
        "n_encoder_layers": layers("model.transformer.encoder.layers."),
        "n_cvae_layers": layers("model.encoder.layers."),
        "n_decoder_layers": 1,  # the only one whose output was ever used: `self.transformer(…)[0]`
        "pre_norm": "model.transformer.encoder.norm.weight" in shapes,
        "latent_dim": shape("model.latent_out_proj.weight")[1],
        "image_normalize": "imagenet",
        "backbone_widths": list(size[0]),
        "backbone_depths": stages,
        "backbone_block": block,
        "backbone_norm": "frozen_batch",
    }


def _state_dict(weights: Weights, config: Any) -> dict[str, Tensor]:
    result: dict[str, Tensor] = {}
    for old, new in {**_LAYERS, **(_NORMS if config.pre_norm else {})}.items():
        result |= below(f"{new}.", weights.take_below(f"{old}."))
    encoders = (
        ("model.transformer.encoder.layers", "encoder", config.n_encoder_layers),
        ("model.encoder.layers", "cvae_encoder.layers", config.n_cvae_layers),
    )
    for old, new, n_layers in encoders:
        for number in range(n_layers):
            result |= below(f"{new}.{number}.", to_ours(weights.take_below(f"{old}.{number}."), ENCODER_LAYER))
    first = to_ours(weights.take_below("model.transformer.decoder.layers.0."), DECODER_LAYER)
    result |= below("decoder.0.", absorbed(first, config.hidden_size, pre_norm=config.pre_norm))
    result |= below("backbone.resnet.", from_torchvision(weights.take_below(_BACKBONE)))
    weights.drop("model.transformer.decoder.layers.", "the original reads the first layer's output alone")
    weights.drop("model.is_pad_head.", "whether a step is padding is not asked")
    weights.drop("model.pos_table", "sine positions are computed")
    return result


def _processor(config: Any, file: Path, uses: tuple[str, ...]) -> Processor:
    statistics = load_pickle(file)
    if not isinstance(statistics, dict):
        raise StatisticsError(f"{file}: expected a dict of arrays, got {type(statistics).__name__}.")
    height, width = config.image_size
    features = Features(
        state=VectorFeature.of_width(config.state_dim, "state"),
        action=VectorFeature.of_width(config.action_dim, "action"),
        cameras={name: CameraFeature(height, width) for name in config.camera_names},
    )
    normalizers: dict[str, list[Affine]] = {}
    for feature, key, dim in (("state", "qpos", config.state_dim), ("action", "action", config.action_dim)):
        mean, std = (_numbers(statistics, f"{key}_{name}", dim, file) for name in ("mean", "std"))
        if (std <= 0).any():
            raise StatisticsError(f"{file}, {key}_std: expected numbers above 0, got {std.min():g}.")
        normalizers[feature] = [Affine(mean, 1 / std, np.zeros(dim), std, mean)]
    return processor_of(config, features, uses, normalizers, [DATASET])


def _numbers(statistics: Mapping[str, Any], name: str, dim: int, file: Path) -> Any:
    value = statistics.get(name)
    if not isinstance(value, np.ndarray) or value.shape != (dim,):
        got = type(value).__name__ if not isinstance(value, np.ndarray) else f"shape {value.shape}"
        raise StatisticsError(f"{file}: expected {name} of {dim} numbers, got {got}.")
    return value.astype(np.float64)
