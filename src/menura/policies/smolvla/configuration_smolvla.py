"""Settings of `SmolVLAPolicy`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from transformers import PretrainedConfig

#: HuggingFaceTB/SmolVLM2-500M-Video-Instruct, `config.json`.
SMOLVLM2 = "HuggingFaceTB/SmolVLM2-500M-Video-Instruct"
LANGUAGE_MODEL = {
    "vocab_size": 49280,
    "hidden_size": 960,
    "intermediate_size": 2560,
    "num_attention_heads": 15,
    "num_key_value_heads": 5,
    "head_dim": 64,
    "rms_norm_eps": 1e-5,
}
VISION_MODEL = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "image_size": 512,
    "patch_size": 16,
}


class SmolVLAPolicyConfig(PretrainedConfig):
    """Settings of `SmolVLAPolicy`; defaults of Shukor et al. 2025 (arXiv 2506.01844) as the authors' code, LeRobot's
    `configuration_smolvla.py`, has them. It trains with AdamW, learning rate 1e-4, betas (0.9, 0.95), batches of 64.

    Args:
        state_dim: width of the state, 0 for none; filled in from the data.
        action_dim: width of the action; filled in from the data.
        camera_names: the cameras, in order; filled in from the data. None or empty: no image.
        image_size: (height, width) in pixels of the images given; they are fitted into the square that the vision
            model sees, the rest black.
        image_normalize: pixels in [-1, 1] are what the vision model expects.
        chunk_size: actions predicted.
        n_action_steps: actions executed before predicting again, at most `chunk_size`.
        n_inference_steps: steps from noise to actions.
        max_state_dim: width of the state as the weights have it; narrower ones are padded with 0.
        max_action_dim: the same of actions.
        tokenizer: `bytes`, a Hub id or a directory.
        tokenizer_max_length: tokens of the instruction; longer ones are cut.
        pretrained_backbone: a Hub id or a directory of a SmolVLM with these sizes, such as the paper's
            HuggingFaceTB/SmolVLM2-500M-Video-Instruct; None starts from random weights. It is read when a policy is
            made for training, never when a checkpoint is loaded.
        n_layers: layers of the language model that are used, and of the expert.
        self_attention_every: the expert's layers 0, n, 2n, … attend to the actions and to the prefix, the others to the
            prefix alone; 0 for none that attends to the actions.
        expert_width: of the expert, as a share of the language model's.
        freeze_vision_encoder: whether the vision model stays as it is.
        train_expert_only: whether the whole vision-language model stays as it is, so that the expert and the
            projections learn. Sensible with a pretrained one.
        language_model: what differs from SmolVLM2-500M's language model, as `transformers.LlamaConfig` names it.
        vision_model: the same of its vision model, as `transformers`' `SmolVLMVisionConfig` names it.
        scale_factor: the connector makes one token of a square of so many patches a side.
    """

    model_type = "menura_smolvla"

    def __init__(
        self,
        state_dim: int = 6,
        action_dim: int = 6,
        camera_names: Sequence[str] | None = None,
        image_size: Sequence[int] = (480, 640),
        image_normalize: str = "minus_one_one",
        chunk_size: int = 50,
        n_action_steps: int = 50,
        n_inference_steps: int = 10,
        max_state_dim: int = 32,
        max_action_dim: int = 32,
        tokenizer: str = SMOLVLM2,
        tokenizer_max_length: int = 48,
        pretrained_backbone: str | None = None,
        n_layers: int = 16,
        self_attention_every: int = 2,
        expert_width: float = 0.75,
        freeze_vision_encoder: bool = True,
        train_expert_only: bool = True,
        language_model: Mapping[str, Any] | None = None,
        vision_model: Mapping[str, Any] | None = None,
        scale_factor: int = 4,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if state_dim > max_state_dim or action_dim > max_action_dim:
            raise ValueError(
                f"expected at most max_state_dim = {max_state_dim} and max_action_dim = {max_action_dim}, which "
                f"pretrained weights have, got state_dim {state_dim} and action_dim {action_dim}"
            )
        if min(n_layers, n_inference_steps, tokenizer_max_length) < 1 or self_attention_every < 0:
            raise ValueError(
                "expected n_layers, n_inference_steps and tokenizer_max_length of at least 1 and no negative "
                "self_attention_every"
            )
        self.state_dim = state_dim
        self.action_dim = action_dim
        self.camera_names = None if camera_names is None else list(camera_names)
        self.image_size = image_size if isinstance(image_size, int) else list(image_size)
        self.image_normalize = image_normalize
        self.chunk_size = chunk_size
        self.n_action_steps = n_action_steps
        self.n_inference_steps = n_inference_steps
        self.max_state_dim = max_state_dim
        self.max_action_dim = max_action_dim
        self.tokenizer = tokenizer
        self.tokenizer_max_length = tokenizer_max_length
        self.pretrained_backbone = pretrained_backbone
        self.n_layers = n_layers
        self.self_attention_every = self_attention_every
        self.expert_width = expert_width
        self.freeze_vision_encoder = freeze_vision_encoder
        self.train_expert_only = train_expert_only
        self.language_model = {**LANGUAGE_MODEL, **(language_model or {})}
        self.vision_model = {**VISION_MODEL, **(vision_model or {})}
        self.scale_factor = scale_factor
