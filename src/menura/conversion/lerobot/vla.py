"""What LeRobot's SmolVLA, pi0 and pi05 (0.6.1) have in common, and ours too: a vision-language model and an expert."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from menura.conversion.lerobot.config import LeRobotConfig
from menura.conversion.weights import Weights, below
from menura.errors import CheckpointError

#: LeRobot's option -> ours.
_SAME = {
    "chunk_size": "chunk_size",
    "n_action_steps": "n_action_steps",
    "max_action_dim": "max_action_dim",
    "tokenizer_max_length": "tokenizer_max_length",
    "freeze_vision_encoder": "freeze_vision_encoder",
    "train_expert_only": "train_expert_only",
}
#: LeRobot's layer -> ours, where there is one.
_PROJECTIONS = {
    "state_proj": "state_projection",
    "action_in_proj": "action_projection",
    "action_out_proj": "action_head",
    "action_time_mlp_in": "action_time_in",
    "action_time_mlp_out": "action_time_out",
    "time_mlp_in": "time_in",
    "time_mlp_out": "time_out",
}
UNREAD = "nothing that the actions depend on reads it"


def common_options(theirs: LeRobotConfig) -> dict[str, Any]:
    """Arguments of our configs; refuses what ours do not have."""
    theirs.expect("n_obs_steps", 1, "the policy sees one observation.")
    theirs.expect("min_period", 4e-3, "Menura has openpi's embedding of the time.")
    theirs.expect("max_period", 4.0, "Menura has openpi's embedding of the time.")
    pixels = theirs.get("normalization_mapping", {}).get("VISUAL", "IDENTITY")
    if pixels != "IDENTITY":
        raise CheckpointError(
            f"{theirs.where}: expected VISUAL IDENTITY in normalization_mapping, got {pixels!r}: the policy itself "
            "maps pixels to [-1, 1]."
        )
    if theirs.get("rtc_config", None):
        theirs.notes.append("Real-time chunking (rtc_config) is how LeRobot executed chunks; it is not converted.")
    theirs.ignore("empty_cameras")
    return {"image_normalize": "minus_one_one", **{ours: theirs.get(name) for name, ours in _SAME.items()}}


def square(theirs: LeRobotConfig, option: str, side: int | None = None) -> int:
    """The side of the square that images are fitted into; refuses any other than `side`, where it is given."""
    size = theirs.get(option)
    if not size or len(set(size)) > 1 or size[0] != (side or size[0]):
        raise CheckpointError(f"{theirs.where}: expected {option} of a square ({side or 'any'}), got {size!r}.")
    return int(size[0])


def projections(weights: Weights, prefix: str) -> dict[str, Tensor]:
    """The linear layers around the expert."""
    return {
        f"{ours}.{part}": weights.take(f"{prefix}{name}.{part}")
        for name, ours in _PROJECTIONS.items()
        for part in ("weight", "bias")
        if f"{prefix}{name}.{part}" in weights
    }


def language_model(weights: Weights, prefix: str, n_layers: int) -> dict[str, Tensor]:
    """The language model under `prefix` as `PrefixModel` has it: no norm at the end, no answer of the last layer."""
    last = f"{prefix}layers.{n_layers - 1}."
    unread = ("self_attn.q_proj.", "self_attn.o_proj.", "mlp.", "post_attention_layernorm.")
    for name in (f"{prefix}norm.", *(last + part for part in unread)):
        weights.drop(name, UNREAD)
    return below("language_model.", weights.take_below(prefix))


def of_one_type(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """All in float32 where LeRobot mixed floating-point types, which our policies do not."""
    if len({tensor.dtype for tensor in tensors.values()}) == 1:
        return dict(tensors)
    return {name: tensor.to(torch.float32) for name, tensor in tensors.items()}
