"""What the configuration of an original Diffusion Policy says, as arguments of `DiffusionPolicyConfig`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from menura.conversion.resnet import SIZES
from menura.errors import CheckpointError, did_you_mean

# Class of the policy -> (denoiser, whether it sees images).
KINDS: Mapping[str, tuple[str, bool]] = {
    "DiffusionUnetLowdimPolicy": ("unet", False),
    "DiffusionUnetHybridImagePolicy": ("unet", True),
    "DiffusionTransformerLowdimPolicy": ("transformer", False),
    "DiffusionTransformerHybridImagePolicy": ("transformer", True),
}
_CONDITIONED = "the observations must be the condition, not a part of what is denoised"
_N_KEYPOINTS = 32  # of robomimic's `bc_rnn` for images, which the authors take their encoder from


@dataclass
class Observation:
    """What a policy is given, in the order of `shape_meta`.

    Attributes:
        vectors: key -> width.
        cameras: keys of images.
        order: where the numbers of one step's condition (the state, then each camera's) are in the authors'.
    """

    vectors: dict[str, int]
    cameras: list[str]
    order: list[int]


@dataclass
class Options:
    """`args` of our config, the observation, and what to tell."""

    args: dict[str, Any]
    observation: Observation
    notes: list[str] = field(default_factory=list)


def options(cfg: Any, where: str) -> Options:
    """Read the configuration.

    Raises:
        CheckpointError: another policy, or an option that ours does not have.
    """
    policy = _part(cfg, "policy", where)
    name = str(policy.get("_target_", "")).rpartition(".")[2]
    if name not in KINDS:
        known = ", ".join(KINDS)
        raise CheckpointError(f"{where}: expected a policy of {known}, got {name!r}{did_you_mean(name, KINDS) or '.'}")
    denoiser, sees_images = KINDS[name]
    network = policy if sees_images else _part(policy, "model", where)
    observation, action_dim, size = _shapes(policy, sees_images, where)
    found = Options({}, observation)
    _refuse_others(policy, network, denoiser, sees_images, where)
    found.args = {
        "state_dim": sum(observation.vectors.values()),
        "action_dim": action_dim,
        "camera_names": observation.cameras,
        "image_size": size,
        "denoiser": denoiser,
        "n_obs_steps": policy["n_obs_steps"],
        "chunk_size": policy["horizon"],
        "n_action_steps": policy["n_action_steps"],
        **_scheduler(policy, where),
        **(_unet(network, sees_images) if denoiser == "unet" else _transformer(network, where)),
    }
    if sees_images:
        widths, depths, block = SIZES["resnet18"]
        found.args |= {
            "crop_shape": policy.get("crop_shape", [76, 76]),
            "n_keypoints": _N_KEYPOINTS,
            "backbone_widths": list(widths),
            "backbone_depths": list(depths),
            "backbone_block": block,
            "backbone_norm": "group" if policy.get("obs_encoder_group_norm", False) else "batch",
        }
        if not policy.get("eval_fixed_crop", False):
            found.notes.append("It cropped images at random when acting too; here the centre is looked at.")
    if cfg.get("task", {}).get("abs_action"):
        found.notes.append("Its environment turned absolute actions into its own (rotations of six numbers).")
    return found


def _shapes(policy: Mapping[str, Any], sees_images: bool, where: str) -> tuple[Observation, int, list[int]]:
    """The observation, the width of the action, and (height, width) of the images."""
    if not sees_images:
        width = policy["obs_dim"]
        return Observation({"obs": width}, [], list(range(width))), policy["action_dim"], [96, 96]
    shapes = _part(policy, "shape_meta", where)
    vectors, cameras, sizes = {}, {}, []
    place = 0
    for key, entry in shapes["obs"].items():
        shape, kind = entry["shape"], entry.get("type", "low_dim")
        width = 2 * _N_KEYPOINTS if kind == "rgb" else shape[0]
        if kind == "rgb":
            cameras[key] = range(place, place + width)
            sizes.append(shape[1:])
        elif kind == "low_dim" and len(shape) == 1:
            vectors[key] = range(place, place + width)
        else:
            raise CheckpointError(f"{where}: expected observations of type rgb or low_dim, got {key!r} of {kind}.")
        place += width
    if not sizes or any(size != sizes[0] for size in sizes):
        raise CheckpointError(f"{where}: expected cameras of one size, got {sizes}.")
    order = [i for places in (*vectors.values(), *cameras.values()) for i in places]
    widths = {key: len(places) for key, places in vectors.items()}
    return Observation(widths, list(cameras), order), shapes["action"]["shape"][0], list(sizes[0])


def _refuse_others(
    policy: Mapping[str, Any], network: Mapping[str, Any], denoiser: str, sees_images: bool, where: str
) -> None:
    condition = "obs_as_global_cond" if denoiser == "unet" else "obs_as_cond"
    # Option -> (what it is, what it must be, why). The authors' defaults are those of their classes.
    needed: dict[str, tuple[Any, Any, str]] = {condition: (policy.get(condition, sees_images), True, _CONDITIONED)}
    needed["pred_action_steps_only"] = (
        policy.get("pred_action_steps_only", False),
        False,
        "the chunk must begin at the oldest observation",
    )
    if denoiser == "unet" and not sees_images:
        needed["oa_step_convention"] = (
            policy.get("oa_step_convention", False),
            True,
            "an action must be that of its observation's step",
        )
    if denoiser == "transformer":
        reason = "no other transformer is here"
        needed |= {
            "causal_attn": (network.get("causal_attn", sees_images), True, reason),
            "time_as_cond": (network.get("time_as_cond", True), True, reason),
            "n_cond_layers": (network.get("n_cond_layers", 0), 0, reason),
        }
    for name, (got, expected, reason) in needed.items():
        if got != expected:
            raise CheckpointError(f"{where}: expected {name} {expected}, got {got}: {reason}.")


def _scheduler(policy: Mapping[str, Any], where: str) -> dict[str, Any]:
    scheduler = _part(policy, "noise_scheduler", where)
    name = str(scheduler.get("_target_", "")).rpartition(".")[2]
    names = {"DDPMScheduler": "ddpm", "DDIMScheduler": "ddim"}
    if name not in names:
        raise CheckpointError(f"{where}: expected a noise_scheduler of {', '.join(names)}, got {name!r}.")
    if scheduler.get("variance_type", "fixed_small") != "fixed_small":
        raise CheckpointError(f"{where}: expected variance_type fixed_small, got {scheduler['variance_type']!r}.")
    n_steps = scheduler.get("num_train_timesteps", 1000)
    return {
        "noise_scheduler": names[name],
        "n_diffusion_steps": n_steps,
        "n_inference_steps": policy.get("num_inference_steps") or n_steps,
        "beta_schedule": scheduler.get("beta_schedule", "linear"),
        "beta_start": scheduler.get("beta_start", 1e-4),
        "beta_end": scheduler.get("beta_end", 0.02),
        "prediction_type": scheduler.get("prediction_type", "epsilon"),
        "clip_sample": scheduler.get("clip_sample", True),
    }


def _unet(network: Mapping[str, Any], sees_images: bool) -> dict[str, Any]:
    """The defaults of the network and of the policy that makes it from images differ."""
    return {
        "unet_widths": network.get("down_dims", [256, 512, 1024]),
        "unet_kernel_size": network.get("kernel_size", 5 if sees_images else 3),
        "unet_groups": network.get("n_groups", 8),
        "unet_time_dim": network.get("diffusion_step_embed_dim", 256),
        "film_scale": network.get("cond_predict_scale", sees_images),
    }


def _transformer(network: Mapping[str, Any], where: str) -> dict[str, Any]:
    missing = [name for name in ("n_layer", "n_head", "n_emb") if name not in network]
    if missing:
        raise CheckpointError(f"{where}: expected {', '.join(missing)} in the transformer's configuration, got none.")
    return {
        "n_layers": network["n_layer"],
        "n_heads": network["n_head"],
        "hidden_size": network["n_emb"],
        "dropout": network.get("p_drop_attn", 0.1),
    }


def _part(config: Any, name: str, where: str) -> Mapping[str, Any]:
    part = config.get(name) if isinstance(config, Mapping) else None
    if not isinstance(part, Mapping):
        raise CheckpointError(f"{where}: expected a configuration with {name!r}, got {type(part).__name__}.")
    return part
