"""Settings of `PI05Policy`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from transformers import PretrainedConfig

from ..common.paligemma import EXPERT, LANGUAGE_MODEL, PALIGEMMA, VISION_MODEL


class PI05PolicyConfig(PretrainedConfig):
    """Settings of `PI05Policy`; defaults of Black et al. 2025 (arXiv 2504.16054) as openpi's `pi0_config.py` and
    `gemma.py` have them. openpi trains everything with AdamW, learning rate 2.5e-5, betas (0.9, 0.95), batches of 32.

    Args:
        state_dim: width of the state, 0 for none; filled in from the data. It is read as text, in bins of [-1, 1], so
            that it should be normalized to that by quantiles.
        action_dim: width of the action; filled in from the data.
        camera_names: the cameras, in order; filled in from the data. None or empty: no image.
        image_size: (height, width) in pixels of the images given; they are fitted into the square that the vision
            model sees, the rest black.
        image_normalize: pixels in [-1, 1] are what the vision model expects.
        chunk_size: actions predicted.
        n_action_steps: actions executed before predicting again, at most `chunk_size`.
        n_inference_steps: steps from noise to actions.
        max_action_dim: width of the actions as the weights have it; narrower ones are padded with 0.
        tokenizer: `bytes`, a Hub id or a directory.
        tokenizer_max_length: tokens of the prompt, instruction and state; longer ones are cut.
        pretrained_backbone: a Hub id or a directory of a PaliGemma with these sizes, such as the paper's
            google/paligemma-3b-pt-224; None starts from random weights. It is read when a policy is made for training,
            never when a checkpoint is loaded.
        freeze_vision_encoder: whether the vision model stays as it is.
        train_expert_only: whether the whole vision-language model stays as it is, so that the expert and the
            projections learn.
        language_model: what differs from PaliGemma's Gemma 2B, as `transformers.GemmaConfig` names it.
        vision_model: the same of its SigLIP, as `transformers.SiglipVisionConfig` names it.
        expert: the width (`hidden_size`) and the width of the feed-forward layers (`intermediate_size`) of the action
            expert, where they differ from openpi's `gemma_300m`.
    """

    model_type = "menura_pi05"
    state_normalize = "percentile"
    action_normalize = "percentile"

    def __init__(
        self,
        state_dim: int = 14,
        action_dim: int = 14,
        camera_names: Sequence[str] | None = None,
        image_size: Sequence[int] = (480, 640),
        image_normalize: str = "minus_one_one",
        chunk_size: int = 50,
        n_action_steps: int = 50,
        n_inference_steps: int = 10,
        max_action_dim: int = 32,
        tokenizer: str = PALIGEMMA,
        tokenizer_max_length: int = 200,
        pretrained_backbone: str | None = None,
        freeze_vision_encoder: bool = False,
        train_expert_only: bool = False,
        language_model: Mapping[str, Any] | None = None,
        vision_model: Mapping[str, Any] | None = None,
        expert: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if action_dim > max_action_dim:
            raise ValueError(
                f"expected an action_dim of at most max_action_dim = {max_action_dim}, which pretrained weights have, "
                f"got {action_dim}"
            )
        if min(n_inference_steps, tokenizer_max_length) < 1:
            raise ValueError("expected n_inference_steps and tokenizer_max_length of at least 1")
        self.state_dim = state_dim
        self.action_dim = action_dim
        self.camera_names = None if camera_names is None else list(camera_names)
        self.image_size = image_size if isinstance(image_size, int) else list(image_size)
        self.image_normalize = image_normalize
        self.chunk_size = chunk_size
        self.n_action_steps = n_action_steps
        self.n_inference_steps = n_inference_steps
        self.max_action_dim = max_action_dim
        self.tokenizer = tokenizer
        self.tokenizer_max_length = tokenizer_max_length
        self.pretrained_backbone = pretrained_backbone
        self.freeze_vision_encoder = freeze_vision_encoder
        self.train_expert_only = train_expert_only
        self.language_model = {**LANGUAGE_MODEL, **(language_model or {})}
        self.vision_model = {**VISION_MODEL, **(vision_model or {})}
        self.expert = {**EXPERT, **(expert or {})}
