"""LeRobot's SmolVLA (0.6.1, `policies/smolvla`) and `SmolVLAPolicy`: the same, but for weights that nothing reads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor
from transformers import PretrainedConfig

from menura.conversion.lerobot.config import LeRobotConfig
from menura.conversion.lerobot.vla import UNREAD, common_options, language_model, of_one_type, projections, square
from menura.conversion.weights import Weights, below
from menura.errors import CheckpointError
from menura.files import read_json
from menura.policies.smolvla.configuration_smolvla import LANGUAGE_MODEL, SMOLVLM2, VISION_MODEL

POLICY = "SmolVLAPolicy"
PROCESSOR_STEPS = ("smolvla_new_line_processor", "tokenizer_processor")
_MODEL = "model.vlm_with_expert."


def config_of(theirs: LeRobotConfig) -> dict[str, Any]:
    """Arguments of `SmolVLAPolicyConfig`."""
    options = common_options(theirs)
    for name in ("adapt_to_pi_aloha", "use_delta_joint_actions_aloha"):
        theirs.expect(name, False, "Menura does not change states and actions of ALOHA in the policy.")
    theirs.expect("add_image_special_tokens", False, "Menura's SmolVLA has no tokens around images.")
    theirs.ignore("load_vlm_weights", "use_cache", "prefix_length", "pad_language_to", "train_state_proj")
    sizes = _vlm(theirs, theirs.get("vlm_model_name", SMOLVLM2))
    n_layers = theirs.get("num_vlm_layers", 16)
    n_layers = n_layers if n_layers > 0 else sizes.pop("n_layers")
    sizes.pop("n_layers", None)
    if theirs.get("num_expert_layers", -1) not in (*range(-1, 1), n_layers):
        raise CheckpointError(
            f"{theirs.where}: expected as many num_expert_layers as num_vlm_layers ({n_layers}), got "
            f"{theirs.get('num_expert_layers')}: each layer of the expert has one of the language model beside it."
        )
    every = max(theirs.get("self_attn_every_n_layers", 2), 0)
    square(theirs, "resize_imgs_with_padding", {**VISION_MODEL, **sizes.get("vision_model", {})}["image_size"])
    return {
        **options,
        **sizes,
        "n_layers": n_layers,
        "n_inference_steps": theirs.get("num_steps", 10),
        "max_state_dim": theirs.get("max_state_dim"),
        "self_attention_every": every if "cross" in theirs.get("attention_mode", "cross_attn") else 1,
        "expert_width": theirs.get("expert_width_multiplier", 0.75),
    }


def _vlm(theirs: LeRobotConfig, name: str) -> dict[str, Any]:
    """Sizes and tokenizer of the vision-language model, which LeRobot looks up by name: the paper's, or that of a
    directory, which may lie beside the config."""
    if name == SMOLVLM2:
        return {"n_layers": 32, "tokenizer": name}
    file = Path(theirs.where).parent / name / "config.json"
    if not file.is_file():
        raise CheckpointError(
            f"{theirs.where}: expected vlm_model_name {SMOLVLM2} or a directory with a config.json, got {name!r}. Put "
            "the directory of that model beside the config, and its name in it."
        )
    vlm = read_json(file, CheckpointError)
    language, vision = vlm["text_config"], vlm["vision_config"]
    return {
        "language_model": {key: language[key] for key in LANGUAGE_MODEL if key in language},
        "vision_model": {key: vision[key] for key in VISION_MODEL if key in vision},
        "scale_factor": vlm["scale_factor"],
        "n_layers": language["num_hidden_layers"],
        "tokenizer": str(file.parent),
    }


def state_dict_of(weights: Weights, config: PretrainedConfig) -> dict[str, Tensor]:
    """Our weights from LeRobot's."""
    settings: Any = config
    weights.drop(f"{_MODEL}vlm.lm_head.", UNREAD)
    tensors = {
        **language_model(weights, f"{_MODEL}vlm.model.text_model.", settings.n_layers),
        **below("vision_model.", weights.take_below(f"{_MODEL}vlm.model.vision_model.")),
        **below("connector.", weights.take_below(f"{_MODEL}vlm.model.connector.")),
        **below("expert.", weights.take_below(f"{_MODEL}lm_expert.")),
        **projections(weights, "model."),
    }
    return of_one_type(tensors)
