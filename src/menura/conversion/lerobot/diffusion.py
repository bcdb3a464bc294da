"""LeRobot's Diffusion Policy (0.6.1, `policies/diffusion`) and `DiffusionPolicy` with the U-Net: the same network."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from transformers import PretrainedConfig

from menura.conversion import unet
from menura.conversion.lerobot import image_encoder
from menura.conversion.lerobot.config import LeRobotConfig
from menura.conversion.resnet import SIZES
from menura.conversion.weights import Weights, below
from menura.errors import CheckpointError

POLICY = "DiffusionPolicy"
_SAME = {  # LeRobot's option -> (ours, LeRobot's default)
    "n_obs_steps": ("n_obs_steps", 2),
    "horizon": ("chunk_size", 16),
    "n_action_steps": ("n_action_steps", 8),
    "down_dims": ("unet_widths", (512, 1024, 2048)),
    "kernel_size": ("unet_kernel_size", 5),
    "n_groups": ("unet_groups", 8),
    "diffusion_step_embed_dim": ("unet_time_dim", 128),
    "use_film_scale_modulation": ("film_scale", True),
    "num_train_timesteps": ("n_diffusion_steps", 100),
    "beta_schedule": ("beta_schedule", "squaredcos_cap_v2"),
    "beta_start": ("beta_start", 1e-4),
    "beta_end": ("beta_end", 0.02),
    "prediction_type": ("prediction_type", "epsilon"),
    "clip_sample": ("clip_sample", True),
    "clip_sample_range": ("clip_sample_range", 1.0),
    "crop_is_random": ("crop_is_random", True),
    "spatial_softmax_num_keypoints": ("n_keypoints", 32),
}
_ROUNDING = 1e-3  # how far beyond their range normalized actions may be


def config_of(theirs: LeRobotConfig) -> dict[str, Any]:
    """Arguments of `DiffusionPolicyConfig`."""
    size = theirs.get("vision_backbone", "resnet18")
    if size not in SIZES:
        raise CheckpointError(f"{theirs.where}: expected vision_backbone of {', '.join(SIZES)}, got {size!r}.")
    widths, depths, block = SIZES[size]
    args = {ours: theirs.get(name, default) for name, (ours, default) in _SAME.items()}
    if args["prediction_type"] not in ("epsilon", "sample"):
        raise CheckpointError(
            f"{theirs.where}: expected prediction_type epsilon or sample, got {args['prediction_type']!r}."
        )
    resize, ratio, crop = (
        theirs.get("resize_shape", None),
        theirs.get("crop_ratio", 1.0),
        theirs.get("crop_shape", None),
    )
    if resize is not None:  # LeRobot then derives the crop from it
        crop = [int(side * ratio) for side in resize] if ratio < 1 else None
    steps = theirs.get("num_inference_steps", None)
    # Which samples it was trained on, and whether steps past the end counted.
    theirs.ignore("drop_n_last_frames", "do_mask_loss_for_padding")
    return {
        **args,
        "env_state_dim": theirs.env_state_dim,
        "denoiser": "unet",
        "noise_scheduler": str(theirs.get("noise_scheduler_type", "DDPM")).lower(),
        "n_inference_steps": args["n_diffusion_steps"] if steps is None else steps,
        "resize_shape": resize,
        "crop_shape": crop,
        "share_encoder": not theirs.get("use_separate_rgb_encoder_per_camera", False),
        "backbone_widths": list(widths),
        "backbone_depths": list(depths),
        "backbone_block": block,
        "backbone_norm": "group" if theirs.get("use_group_norm", True) else "batch",
    }


def state_dict_of(weights: Weights, config: PretrainedConfig) -> dict[str, Tensor]:
    """`DiffusionPolicy`'s weights."""
    denoiser = unet.from_authors(
        weights, "diffusion.unet.", len(config.unet_widths), config.unet_time_dim, lerobot=True
    )
    result = below("denoiser.", denoiser)
    for theirs, ours in _encoders(config).items():
        result |= below(ours, image_encoder.from_lerobot(weights, theirs))
    # LeRobot clips to one range, whatever was seen in training.
    result["action_bound"] = torch.full((config.action_dim,), float(config.clip_sample_range))
    return result


def config_to(config: PretrainedConfig) -> dict[str, Any]:
    """LeRobot's options."""
    sizes = (tuple(config.backbone_widths), tuple(config.backbone_depths), config.backbone_block)
    size = next((name for name, known in SIZES.items() if known == sizes), None)
    halvings = 2 ** len(config.unet_widths)
    faults = {
        f"denoiser {config.denoiser}": config.denoiser != "unet",
        f"prediction_type {config.prediction_type}": config.prediction_type not in ("epsilon", "sample"),
        f"a ResNet with stages of {config.backbone_widths}": bool(config.camera_names) and size is None,
        "frozen batch norms": bool(config.camera_names) and config.backbone_norm == "frozen_batch",
        f"chunk_size {config.chunk_size}, no multiple of {halvings}": config.chunk_size % halvings != 0,
        "resize_shape with a crop_shape": config.resize_shape is not None and config.crop_shape is not None,
        "no state of the robot": config.state_dim == config.env_state_dim,
        "neither a camera nor env_state_dim": not config.camera_names and not config.env_state_dim,
    }
    for fault, there in faults.items():
        if there:
            raise CheckpointError(f"to lerobot: expected what LeRobot's Diffusion Policy can be, got {fault}.")
    return {
        **{name: getattr(config, ours) for name, (ours, _) in _SAME.items()},
        "noise_scheduler_type": config.noise_scheduler.upper(),
        "num_inference_steps": config.n_inference_steps,
        "resize_shape": config.resize_shape,
        "crop_ratio": 1.0,
        "crop_shape": config.crop_shape,
        "use_separate_rgb_encoder_per_camera": not config.share_encoder,
        "vision_backbone": size or "resnet18",
        "use_group_norm": config.backbone_norm == "group",
        "pretrained_backbone_weights": None,
        "do_mask_loss_for_padding": True,
    }


def state_dict_to(state_dict: Mapping[str, Tensor], config: PretrainedConfig) -> dict[str, Tensor]:
    """LeRobot's weights."""
    weights = Weights(state_dict, "state_dict")
    bound = weights.take("action_bound")
    if config.clip_sample and float(bound.max()) > config.clip_sample_range + _ROUNDING:
        raise CheckpointError(
            f"to lerobot: expected actions within {config.clip_sample_range} in training, to which LeRobot clips, got "
            f"some of {float(bound.max()):.4g}. Train with `processor: {{action: minmax}}`."
        )
    denoiser = unet.to_lerobot(weights.take_below("denoiser."), len(config.unet_widths))
    result = below("diffusion.unet.", denoiser)
    for theirs, ours in _encoders(config).items():
        encoder = image_encoder.to_lerobot(weights.take_below(ours))
        result |= below(theirs, {**encoder, image_encoder.GRID: _positions(config)})
    return result


def _encoders(config: PretrainedConfig) -> dict[str, str]:
    """LeRobot's image encoder -> ours."""
    n = len(config.camera_names or ())
    if config.share_encoder:
        return {"diffusion.rgb_encoder.": "encoder.cameras.0."} if n else {}
    return {f"diffusion.rgb_encoder.{i}.": f"encoder.cameras.{i}." for i in range(n)}


def _positions(config: PretrainedConfig) -> Tensor:
    """(h · w, 2): x and y in [-1, 1] of every place of the last feature map, which LeRobot saves."""
    height, width = config.crop_shape or config.resize_shape or config.image_size
    for _ in range(1 + len(config.backbone_widths)):  # every stage but the first halves, and the stem does twice
        height, width = (height + 1) // 2, (width + 1) // 2
    y, x = torch.meshgrid(torch.linspace(-1, 1, height), torch.linspace(-1, 1, width), indexing="ij")
    return torch.stack((x.flatten(), y.flatten()), dim=1)
