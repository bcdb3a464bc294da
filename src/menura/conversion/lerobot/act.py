"""LeRobot's ACT (0.6.1, `policies/act`) and `ACTPolicy`: the same method, two differences.

LeRobot's first decoder layer attends to itself, though its queries carry nothing yet: what comes of it is the same
vector for every query and observation, which the biases of the attention that follows absorb. And its ResNet is
torchvision's.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from transformers import PretrainedConfig

from menura.conversion.detr import DECODER_LAYER, ENCODER_LAYER, absorbed, to_ours, to_theirs
from menura.conversion.lerobot.config import LeRobotConfig
from menura.conversion.resnet import SIZES, from_torchvision, to_torchvision
from menura.conversion.weights import Weights, below
from menura.errors import CheckpointError

POLICY = "ACTPolicy"
_SAME = {  # LeRobot's option -> ours
    "chunk_size": "chunk_size",
    "n_action_steps": "n_action_steps",
    "dim_model": "hidden_size",
    "n_heads": "n_heads",
    "dim_feedforward": "feedforward_size",
    "feedforward_activation": "activation",
    "n_encoder_layers": "n_encoder_layers",
    "n_vae_encoder_layers": "n_cvae_layers",
    "n_decoder_layers": "n_decoder_layers",
    "pre_norm": "pre_norm",
    "use_vae": "use_vae",
    "latent_dim": "latent_dim",
    "dropout": "dropout",
    "kl_weight": "kl_weight",
}
_PLAIN = {  # LeRobot's layer -> ours
    "model.encoder_1d_feature_pos_embed": "token_positions",
    "model.decoder_pos_embed": "queries",
    "model.decoder.norm": "decoder_norm",
    "model.action_head": "action_head",
}
_CVAE = {
    "model.encoder_latent_input_proj": "latent_projection",
    "model.vae_encoder_cls_embed": "cvae_encoder.summary",
    "model.vae_encoder_action_input_proj": "cvae_encoder.action_projection",
    "model.vae_encoder_latent_output_proj": "cvae_encoder.head",
}
_LATENT = "model.encoder_latent_input_proj"
_POSITIONS = "model.vae_encoder_pos_enc"  # a constant, which LeRobot saves


def config_of(theirs: LeRobotConfig) -> dict[str, Any]:
    """Arguments of `ACTPolicyConfig`."""
    theirs.expect("n_obs_steps", 1, "ACT sees one observation.")
    if coefficient := theirs.get("temporal_ensemble_coeff", None):
        theirs.notes.append(
            f"It was run with temporal ensembling: evaluate with `--evaluation.execution temporal_ensemble "
            f"--evaluation.ensemble_coefficient {coefficient}`."
        )
    size = theirs.get("vision_backbone", "resnet18")
    if size not in SIZES:
        raise CheckpointError(f"{theirs.where}: expected vision_backbone of {', '.join(SIZES)}, got {size!r}.")
    widths, depths, block = SIZES[size]
    defaults = {"n_vae_encoder_layers": 4, "feedforward_activation": "relu", "pre_norm": False}
    args = {ours: theirs.get(name, *([defaults[name]] if name in defaults else [])) for name, ours in _SAME.items()}
    return {
        **args,
        "env_state_dim": theirs.env_state_dim,
        "backbone_widths": list(widths),
        "backbone_depths": list(depths),
        "backbone_block": block,
        "backbone_dilated": bool(theirs.get("replace_final_stride_with_dilation", False)),
        "backbone_norm": "frozen_batch",
    }


def state_dict_of(weights: Weights, config: PretrainedConfig) -> dict[str, Tensor]:
    """`ACTPolicy`'s weights."""
    result = _moved(weights, _layers(config))
    if not config.use_vae:
        result["latent_token.weight"] = weights.take(f"{_LATENT}.bias")[None]
        weights.drop(f"{_LATENT}.weight", "without a VAE it is multiplied by 0")
    for side, ours in (("encoder", "encoder"), ("vae_encoder", "cvae_encoder.layers")):
        if side == "encoder" or config.use_vae:
            for number in range(config.n_encoder_layers if side == "encoder" else config.n_cvae_layers):
                layer = weights.take_below(f"model.{side}.layers.{number}.")
                result |= below(f"{ours}.{number}.", to_ours(layer, ENCODER_LAYER))
    for number in range(config.n_decoder_layers):
        layer = to_ours(weights.take_below(f"model.decoder.layers.{number}."), DECODER_LAYER)
        if number == 0:
            layer = absorbed(layer, config.hidden_size, pre_norm=config.pre_norm)
        result |= below(f"decoder.{number}.", layer)
    if config.camera_names:
        backbone = from_torchvision(weights.take_below("model.backbone."))
        result |= below("backbone.resnet.", backbone)
    weights.drop(_POSITIONS, "sine positions are computed")
    return result


def config_to(config: PretrainedConfig) -> dict[str, Any]:
    """LeRobot's options."""
    sizes = (tuple(config.backbone_widths), tuple(config.backbone_depths), config.backbone_block)
    size = next((name for name, known in SIZES.items() if known == sizes), None)
    if config.camera_names and (size is None or config.backbone_norm != "frozen_batch"):
        got = "group norms" if config.backbone_norm != "frozen_batch" else f"stages of {config.backbone_widths}"
        raise CheckpointError(
            f"to lerobot: expected a ResNet of {', '.join(SIZES)} with frozen batch norms, got {got}. "
            "Train with a pretrained_backbone, or backbone_norm: frozen_batch."
        )
    if not config.camera_names and not config.env_state_dim:
        raise CheckpointError(
            "to lerobot: expected a camera or env_state_dim, without which LeRobot builds no ACT, got neither."
        )
    return {
        "n_obs_steps": 1,
        **{name: getattr(config, ours) for name, ours in _SAME.items()},
        "vision_backbone": size or "resnet18",
        "pretrained_backbone_weights": None,
        "replace_final_stride_with_dilation": config.backbone_dilated,
        "temporal_ensemble_coeff": None,
    }


def state_dict_to(state_dict: Mapping[str, Tensor], config: PretrainedConfig) -> dict[str, Tensor]:
    """LeRobot's weights. The first decoder layer's attention to itself, which ours does not have, is made of zeros."""
    weights = Weights(state_dict, "state_dict")
    result = _moved(weights, {ours: theirs for theirs, ours in _layers(config).items()})
    if not config.use_vae:
        result[f"{_LATENT}.bias"] = weights.take("latent_token.weight")[0]
        result[f"{_LATENT}.weight"] = torch.zeros(config.hidden_size, config.latent_dim)
    for number in range(config.n_encoder_layers):
        layer = to_theirs(weights.take_below(f"encoder.{number}."), ENCODER_LAYER)
        result |= below(f"model.encoder.layers.{number}.", layer)
    for number in range(config.n_cvae_layers if config.use_vae else 0):
        layer = to_theirs(weights.take_below(f"cvae_encoder.layers.{number}."), ENCODER_LAYER)
        result |= below(f"model.vae_encoder.layers.{number}.", layer)
    for number in range(config.n_decoder_layers):
        layer = to_theirs(weights.take_below(f"decoder.{number}."), DECODER_LAYER)
        if number == 0:
            layer |= _no_attention(config.hidden_size, pre_norm=config.pre_norm)
        result |= below(f"model.decoder.layers.{number}.", layer)
    if config.camera_names:
        backbone = to_torchvision(weights.take_below("backbone.resnet."), counters=False)
        result |= below("model.backbone.", backbone)
    if config.use_vae:
        result[_POSITIONS] = _cvae_positions(config)
    return result


def _layers(config: PretrainedConfig) -> dict[str, str]:
    """LeRobot's layer -> ours, of those that are not numbered, as far as the config has them."""
    robot, env = config.state_dim - config.env_state_dim, config.env_state_dim
    layers = dict(_PLAIN)
    if config.use_vae:
        layers |= _CVAE
    if robot:
        layers["model.encoder_robot_state_input_proj"] = "state_projection"
    if robot and config.use_vae:
        layers["model.vae_encoder_robot_state_input_proj"] = "cvae_encoder.state_projection"
    if env:
        layers["model.encoder_env_state_input_proj"] = "env_state_projection"
    if config.camera_names:
        layers["model.encoder_img_feat_input_proj"] = "image_projection"
    if config.pre_norm:
        layers["model.encoder.norm"] = "encoder_norm"
    if config.pre_norm and config.use_vae:
        layers["model.vae_encoder.norm"] = "cvae_encoder.norm"
    return layers


def _moved(weights: Weights, layers: Mapping[str, str]) -> dict[str, Tensor]:
    result: dict[str, Tensor] = {}
    for old, new in layers.items():
        result |= below(f"{new}.", weights.take_below(f"{old}."))
    return result


def _no_attention(width: int, *, pre_norm: bool) -> dict[str, Tensor]:
    """Attention that answers 0, and norms that leave it so: its own, and of pre-norm the next."""
    norms = ("norm1", "norm2") if pre_norm else ("norm1",)
    return {
        "self_attn.in_proj_weight": torch.zeros(3 * width, width),
        "self_attn.in_proj_bias": torch.zeros(3 * width),
        "self_attn.out_proj.weight": torch.zeros(width, width),
        "self_attn.out_proj.bias": torch.zeros(width),
        **{f"{norm}.weight": torch.ones(width) for norm in norms},
        **{f"{norm}.bias": torch.zeros(width) for norm in norms},
    }


def _cvae_positions(config: PretrainedConfig) -> Tensor:
    from menura.policies.act.transformer_act import sine_positions

    others = 2 if config.state_dim > config.env_state_dim else 1
    return sine_positions(others + config.chunk_size, config.hidden_size, like=torch.zeros(()))[None]
