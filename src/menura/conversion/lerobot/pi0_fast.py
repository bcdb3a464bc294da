"""LeRobot's pi0_fast (0.6.1, `policies/pi0_fast`) and `PI0FastPolicy`: the same weights.

LeRobot may choose any token of the vocabulary where ours chooses among those that an answer can hold. Where LeRobot
chooses one of these too, as it does after training, the actions are equal.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import PretrainedConfig

from menura.conversion.lerobot import paligemma
from menura.conversion.lerobot.config import LeRobotConfig
from menura.conversion.lerobot.vla import of_one_type, square
from menura.conversion.weights import Weights, below
from menura.errors import CheckpointError
from menura.policies.common.paligemma import VISION_MODEL

POLICY = "PI0FastPolicy"
PROCESSOR_STEPS = (
    "pi0_fast_prepare_state_tokenizer_processor_step",
    "tokenizer_processor",
    "action_tokenizer_processor",
)


def config_of(theirs: LeRobotConfig) -> dict[str, Any]:
    """Arguments of `PI0FastPolicyConfig`."""
    theirs.expect("n_obs_steps", 1, "the policy sees one observation.")
    theirs.expect("use_relative_actions", False, "its statistics are of relative actions.")
    theirs.ignore("relative_exclude_joints", "dtype", "action_expert_variant", "empty_cameras", "use_kv_cache")
    theirs.ignore("max_state_dim", "max_action_dim", "max_action_tokens", "validate_action_token_prefix")
    pixels = theirs.get("normalization_mapping", {}).get("VISUAL", "IDENTITY")
    if pixels != "IDENTITY":
        raise CheckpointError(
            f"{theirs.where}: expected VISUAL IDENTITY in normalization_mapping, got {pixels!r}: the policy itself "
            "maps pixels to [-1, 1]."
        )
    chunk_size, n_action_steps = theirs.get("chunk_size"), theirs.get("n_action_steps")
    if n_action_steps != chunk_size:
        theirs.notes.append(
            f"LeRobot reads the tokens of {chunk_size} actions as if they were {n_action_steps} (n_action_steps); here "
            f"they are the {chunk_size} that were trained, of which {n_action_steps} are executed."
        )
    if theirs.get("rtc_config", None):
        theirs.notes.append("Real-time chunking (rtc_config) is how LeRobot executed chunks; it is not converted.")
    vision = dict(VISION_MODEL)
    square(theirs, "image_resolution", vision["image_size"])
    language = {**paligemma.LANGUAGE, **paligemma.GEMMA[theirs.get("paligemma_variant", "gemma_2b")]}
    width = language["hidden_size"]
    return {
        "image_normalize": "minus_one_one",
        "prompt_style": "lerobot",
        "chunk_size": chunk_size,
        "n_action_steps": n_action_steps,
        "tokenizer": theirs.get("text_tokenizer_name"),
        "tokenizer_max_length": theirs.get("tokenizer_max_length"),
        "action_tokenizer": theirs.get("action_tokenizer_name"),
        "max_action_tokens": theirs.get("max_decoding_steps"),
        "sampling_temperature": theirs.get("temperature"),
        "n_skipped_tokens": theirs.get("fast_skip_tokens"),
        "tokenizer_vocab_size": language["vocab_size"],
        "vlm_config": {
            "projection_dim": width,
            "text_config": {"model_type": "gemma", **language},
            "vision_config": {
                "model_type": "siglip_vision_model",
                **vision,
                "projection_dim": width,
                "vision_use_head": False,
            },
        },
    }


def state_dict_of(weights: Weights, config: PretrainedConfig) -> dict[str, Tensor]:
    """Our weights from LeRobot's, whose embeddings and head are two where training made them differ."""
    settings: Any = config
    before = "model." if any(name.startswith("model.") for name in weights.left) else ""
    vlm = f"{before}paligemma_with_expert.paligemma."
    head = weights.take(f"{vlm}lm_head.weight")
    language = {"embed_tokens.weight": head, **weights.take_below(f"{vlm}model.language_model.")}
    embedded = language["embed_tokens.weight"]
    tied = embedded is head or torch.equal(embedded, head)
    settings.vlm_config = {**settings.vlm_config, "tie_word_embeddings": tied}
    tensors = {
        **below("paligemma.model.language_model.", language),
        **below("paligemma.model.vision_tower.", weights.take_below(f"{vlm}model.vision_tower.vision_model.")),
        **below("paligemma.model.multi_modal_projector.", weights.take_below(f"{vlm}model.multi_modal_projector.")),
    }
    return of_one_type(tensors if tied else {**tensors, "paligemma.lm_head.weight": head})
