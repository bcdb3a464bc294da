"""LeRobot's VQ-BeT (0.6.1, `policies/vqbet`) and `VQBeTPolicy`: the same network.

LeRobot has pairs of linear layers with nothing between them, before its transformer and after: each pair becomes one.
Its codebooks learn by moving averages, of which the entries alone are kept.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import PretrainedConfig

from menura.conversion.lerobot import image_encoder
from menura.conversion.lerobot.config import LeRobotConfig
from menura.conversion.resnet import SIZES
from menura.conversion.weights import Weights, below
from menura.errors import CheckpointError

POLICY = "VQBeTPolicy"
_SAME = {  # LeRobot's option -> (ours, LeRobot's default)
    "n_obs_steps": ("n_obs_steps", 5),
    "action_chunk_size": ("chunk_size", 5),
    "n_action_pred_token": ("n_predicted_chunks", 3),
    "vqvae_n_embed": ("codebook_size", 16),
    "vqvae_embedding_dim": ("code_dim", 256),
    "vqvae_enc_hidden_dim": ("vqvae_hidden_size", 128),
    "n_vqvae_training_steps": ("n_vqvae_steps", 20_000),
    "optimizer_vqvae_lr": ("vqvae_learning_rate", 1e-3),
    "optimizer_vqvae_weight_decay": ("vqvae_weight_decay", 1e-4),
    "gpt_hidden_dim": ("hidden_size", 512),
    "gpt_n_layer": ("n_layers", 8),
    "gpt_n_head": ("n_heads", 8),
    "dropout": ("dropout", 0.1),
    "sequentially_select": ("sequential_codes", False),
    "offset_loss_weight": ("offset_loss_weight", 10_000.0),
    "bet_softmax_temperature": ("code_temperature", 0.1),
    "crop_shape": ("crop_shape", (84, 84)),
    "crop_is_random": ("crop_is_random", True),
    "spatial_softmax_num_keypoints": ("n_keypoints", 32),
}
_BLOCK = {
    "ln_1": "attention_norm",
    "attn.c_attn": "attention.qkv",
    "attn.c_proj": "attention.out",
    "ln_2": "feedforward_norm",
    "mlp.0": "feedforward.0",
    "mlp.2": "feedforward.2",
}
_GPT, _HEAD = "vqbet.policy.transformer.", "vqbet.action_head."
_QUANTIZER = f"{_HEAD}vqvae_model."


def config_of(theirs: LeRobotConfig) -> dict[str, Any]:
    """Arguments of `VQBeTPolicyConfig`."""
    if len(theirs.image_keys) != 1 or not theirs.state_dim or theirs.env_state_dim:
        raise CheckpointError(
            f"{theirs.where}: expected a state and one camera, which are what LeRobot's VQ-BeT sees, got "
            f"{', '.join(theirs.inputs)}."
        )
    size = theirs.get("vision_backbone", "resnet18")
    if size not in SIZES:
        raise CheckpointError(f"{theirs.where}: expected vision_backbone of {', '.join(SIZES)}, got {size!r}.")
    widths, depths, block = SIZES[size]
    args = {ours: theirs.get(name, default) for name, (ours, default) in _SAME.items()}
    theirs.ignore("gpt_block_size", "gpt_input_dim", "gpt_output_dim")  # which the merged layers do without
    return {
        **args,
        "n_action_steps": args["chunk_size"],
        "code_loss_weights": [
            theirs.get("primary_code_loss_weight", 5.0),
            theirs.get("secondary_code_loss_weight", 0.5),
        ],
        "backbone_widths": list(widths),
        "backbone_depths": list(depths),
        "backbone_block": block,
        "backbone_norm": "group" if theirs.get("use_group_norm", False) else "batch",
    }


def state_dict_of(weights: Weights, config: PretrainedConfig) -> dict[str, Tensor]:
    """`VQBeTPolicy`'s weights."""
    return {
        **_quantizer_of(weights, config),
        **below("image_encoder.", image_encoder.from_lerobot(weights, "vqbet.rgb_encoder.")),
        **_inputs_of(weights),
        **_transformer_of(weights, config),
        **_heads_of(weights, config),
    }


def _quantizer_of(weights: Weights, config: PretrainedConfig) -> dict[str, Tensor]:
    finished = bool(weights.take(f"{_QUANTIZER}discretized"))
    if not finished:
        raise CheckpointError(
            f"{weights.where}: expected codes that are learnt, got a training that was stopped within its first "
            f"{config.n_vqvae_steps} steps (n_vqvae_training_steps), which has no policy yet. Take a later checkpoint."
        )
    layer = f"{_QUANTIZER}vq_layer.layers.{{}}._codebook."
    books = [weights.take(f"{layer.format(number)}embed")[0] for number in range(config.n_codebooks)]
    for number in range(config.n_codebooks):
        weights.drop(layer.format(number), "moving averages, by which codes that are learnt move no more")
    weights.drop(f"{_QUANTIZER}vq_layer.freeze_codebook", "it says again that the codes are learnt")
    return {
        "vqvae_steps": torch.tensor(config.n_vqvae_steps),
        "quantizer.codebooks": torch.stack(books),
        **below("quantizer.encoder.", weights.take_below(f"{_QUANTIZER}encoder.")),
        **below("quantizer.decoder.", weights.take_below(f"{_QUANTIZER}decoder.")),
    }


def _inputs_of(weights: Weights) -> dict[str, Tensor]:
    """What makes tokens: LeRobot's own layers, each followed by the transformer's `wte`."""
    first = weights.take(f"{_GPT}wte.weight")
    weight, bias = first.double(), weights.take(f"{_GPT}wte.bias").double()
    result = {"query": weight @ weights.take("vqbet.action_token")[0, 0].double() + bias}
    for theirs, ours in (("state_projector", "state_projection"), ("rgb_feature_projector", "image_projection")):
        result[f"{ours}.weight"] = weight @ weights.take(f"vqbet.{theirs}.0.weight").double()
        result[f"{ours}.bias"] = weight @ weights.take(f"vqbet.{theirs}.0.bias").double() + bias
    return {name: tensor.to(first.dtype) for name, tensor in result.items()}


def _transformer_of(weights: Weights, config: PretrainedConfig) -> dict[str, Tensor]:
    n_tokens = config.n_obs_steps * (len(config.camera_names) + 2) + config.n_predicted_chunks - 1
    result = {"transformer.positions.weight": weights.take(f"{_GPT}wpe.weight")[:n_tokens].clone()}
    for number in range(config.n_layers):
        block = f"{_GPT}h.{number}."
        weights.drop(f"{block}attn.bias", "a mask of what comes later is computed")
        for theirs, ours in _BLOCK.items():
            part = weights.take_below(f"{block}{theirs}.")
            result |= below(f"transformer.blocks.{number}.{ours}.", part)
    return result | below("transformer.norm.", weights.take_below(f"{_GPT}ln_f."))


def _heads_of(weights: Weights, config: PretrainedConfig) -> dict[str, Tensor]:
    """The heads, each after LeRobot's `lm_head`, which has no bias."""
    before = weights.take("vqbet.policy.lm_head.weight").double()  # (output, hidden)
    heads = {"map_to_cbet_preds_offset": "offset_head"}
    if config.sequential_codes:
        heads |= {"map_to_cbet_preds_primary_bin": "code_heads.0", "map_to_cbet_preds_secondary_bin": "code_heads.1"}
    else:
        heads["map_to_cbet_preds_bin"] = "code_heads.0"
    result = {}
    for theirs, ours in heads.items():
        after = weights.take(f"{_HEAD}{theirs}.0.weight")
        of_features, of_code = after[:, : len(before)], after[:, len(before) :]  # the second one's is of the first code
        result[f"{ours}.weight"] = torch.cat(((of_features.double() @ before).to(after.dtype), of_code), dim=1)
        result[f"{ours}.bias"] = weights.take(f"{_HEAD}{theirs}.0.bias")
    weights.drop("vqbet.select_target_actions_indices", "which actions are learnt is computed")
    return result
