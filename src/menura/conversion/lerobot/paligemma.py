"""What LeRobot's pi0 and pi05 (0.6.1, `policies/pi0`, `policies/pi05`) have in common, and ours too."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from menura.conversion.lerobot.config import LeRobotConfig
from menura.conversion.lerobot.vla import UNREAD, common_options, language_model, of_one_type, projections, square
from menura.conversion.weights import Weights, below
from menura.policies.common.paligemma import VISION_MODEL

#: LeRobot's name -> sizes (openpi, `gemma.py`).
GEMMA = {
    "gemma_2b": {"hidden_size": 2048, "intermediate_size": 16384, "num_hidden_layers": 18},
    "gemma_300m": {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 18},
}
#: What LeRobot writes down in its code, the same for every checkpoint.
LANGUAGE = {"vocab_size": 257152, "num_attention_heads": 8, "num_key_value_heads": 1, "head_dim": 256}
_MODEL = "paligemma_with_expert."


def options_of(theirs: LeRobotConfig) -> dict[str, Any]:
    """Arguments of `PI0PolicyConfig` and `PI05PolicyConfig`."""
    theirs.expect("use_relative_actions", False, "its statistics are of relative actions.")
    theirs.ignore("relative_exclude_joints", "dtype")
    theirs.ignore(*(f"time_sampling_{name}" for name in ("beta_alpha", "beta_beta", "scale", "offset")))
    language = GEMMA[theirs.get("paligemma_variant", "gemma_2b")]
    expert = GEMMA[theirs.get("action_expert_variant", "gemma_300m")]
    return {
        **common_options(theirs),
        "n_inference_steps": theirs.get("num_inference_steps"),
        "language_model": {**LANGUAGE, **language},
        "vision_model": {**VISION_MODEL, "image_size": square(theirs, "image_resolution")},
        "expert": {name: expert[name] for name in ("hidden_size", "intermediate_size")},
    }


def weights_of(weights: Weights, n_layers: int) -> dict[str, Tensor]:
    """Our weights from LeRobot's; checkpoints that openpi's converter wrote lack the `model.` before every name."""
    before = "model." if any(name.startswith("model.") for name in weights.left) else ""
    vlm, expert = f"{before}{_MODEL}paligemma.", f"{before}{_MODEL}gemma_expert."
    embeddings, head = f"{vlm}model.language_model.embed_tokens.weight", f"{vlm}lm_head.weight"
    tied = {} if embeddings in weights else {"language_model.embed_tokens.weight": weights.take(head)}
    weights.drop(f"{vlm}lm_head.", UNREAD)
    weights.drop(f"{expert}lm_head.", UNREAD)
    paligemma = {
        **tied,
        **language_model(weights, f"{vlm}model.language_model.", n_layers),
        **below("vision_tower.", weights.take_below(f"{vlm}model.vision_tower.vision_model.")),
        **below("projector.", weights.take_below(f"{vlm}model.multi_modal_projector.linear.")),
    }
    tensors = {
        **below("paligemma.", paligemma),
        # The condition of adaptive norms is LeRobot's `dense`.
        **{
            f"expert.{name.replace('.dense.', '.modulation.')}": tensor
            for name, tensor in weights.take_below(f"{expert}model.").items()
        },
        **projections(weights, before),
    }
    return of_one_type(tensors)
