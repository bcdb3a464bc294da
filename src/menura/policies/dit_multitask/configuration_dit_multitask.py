"""Settings of `DiTMultitaskPolicy`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from transformers import PretrainedConfig

#: The vision half of CLIP ViT-B/16 (Radford et al. 2021, arXiv 2103.00020, table 20; openai/clip-vit-base-patch16).
CLIP_VISION = {
    "model_type": "clip_vision_model",
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "patch_size": 16,
    "image_size": 224,
}
CLIP_COLOURS = {"mean": [0.48145466, 0.4578275, 0.40821073], "std": [0.26862954, 0.26130258, 0.27577711]}


class DiTMultitaskPolicyConfig(PretrainedConfig):
    """Settings of `DiTMultitaskPolicy`; defaults of LeRobot 0.6.1's `MultiTaskDiTConfig` unless said otherwise.

    It trains with Adam, betas (0.95, 0.999), a learning rate of 2e-5 and a cosine schedule, without weight decay, and
    its actions normalized to [-1, 1].

    Args:
        state_dim: width of the state, 0 for none; filled in from the data.
        action_dim: width of the action; filled in from the data.
        camera_names: the cameras, in order; filled in from the data. None or empty: no images.
        image_size: (height, width) in pixels, before the crop.
        image_normalize: how pixels are normalized; None: as CLIP was trained.
        crop_shape: (height, width) of what is seen: the centre, in training a random place; None: the whole image.
        chunk_size: actions answered, from now on. Predicted are the n_obs_steps - 1 before now as well, 32 in all.
        n_action_steps: actions executed before predicting again.
        n_obs_steps: observations given.
        hidden_size: width of the transformer.
        n_layers: of the transformer.
        n_heads: attention heads.
        dropout: share dropped in the transformer in training, in [0, 1).
        time_dim: features of the time.
        rotary: rotary positions of the actions.
        learned_positions: learned positions of the actions. LeRobot's default is False; rotary positions alone tell
            where actions stand to one another and hardly which is the first.
        objective: `diffusion` or `flow`.
        n_diffusion_steps: of `diffusion`: steps of training.
        beta_schedule: of `diffusion`, as `diffusers` names it.
        scheduler: of `diffusion`: `ddim`, or `ddpm` (LeRobot's default), which takes ten times the steps.
        prediction_type: of `diffusion`: `epsilon`, `sample` or `v_prediction`.
        clip_range: of `diffusion`: a guess of the actions is clipped to ± this at every step; None: it is not.
        time_sampling: of `flow`: times to train at, as of `FlowPolicy`.
        n_inference_steps: evaluations of the transformer for a chunk; None: n_diffusion_steps of `ddpm`, 10 else.
            LeRobot's `flow_matching` takes 100.
        vision_encoder: the vision model, trained too, from random weights: settings of a `transformers` config. None:
            CLIP's ViT-B/16.
        pretrained_backbone: instead of it, a Hub id or directory, such as `openai/clip-vit-base-patch16`, read when a
            policy is made for training; the policy's own config then has its settings in place of the name.
        vision_pooling: what of an image is seen: the `first` token, CLIP's class token; `pooler` for SigLIP; `mean`.
        vision_learning_rate_factor: the vision model learns at this part of the learning rate.
        text_encoder: the text model, frozen: a Hub id or directory, for which settings are put likewise, or settings.
            None: the task is not read.
        tokenizer: of the text encoder: `bytes`, a Hub id or a directory; None: where the text encoder is from.
        tokenizer_max_length: tokens of a task that are read.
    """

    model_type = "menura_dit_multitask"
    action_normalize = "minmax"

    def __init__(
        self,
        state_dim: int = 14,
        action_dim: int = 14,
        camera_names: Sequence[str] | None = None,
        image_size: Sequence[int] = (224, 224),
        image_normalize: str | Mapping[str, Any] | None = None,
        crop_shape: Sequence[int] | None = None,
        chunk_size: int = 31,
        n_action_steps: int = 24,
        n_obs_steps: int = 2,
        hidden_size: int = 512,
        n_layers: int = 6,
        n_heads: int = 8,
        dropout: float = 0.1,
        time_dim: int = 256,
        rotary: bool = True,
        learned_positions: bool = True,
        objective: str = "diffusion",
        n_diffusion_steps: int = 100,
        beta_schedule: str = "squaredcos_cap_v2",
        scheduler: str = "ddim",
        prediction_type: str = "epsilon",
        clip_range: float | None = 1.0,
        time_sampling: str = "beta",
        n_inference_steps: int | None = None,
        vision_encoder: Mapping[str, Any] | None = None,
        pretrained_backbone: str | None = None,
        vision_pooling: str = "first",
        vision_learning_rate_factor: float = 0.1,
        text_encoder: str | Mapping[str, Any] | None = None,
        tokenizer: str | None = None,
        tokenizer_max_length: int = 77,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if hidden_size % n_heads or hidden_size // n_heads % 2:
            raise ValueError(f"expected hidden_size / n_heads to be even, got {hidden_size} and {n_heads}")
        if objective not in ("diffusion", "flow"):
            raise ValueError(f"expected objective to be diffusion or flow, got {objective!r}")
        if vision_encoder is not None and pretrained_backbone is not None:
            raise ValueError(f"expected a vision_encoder or a pretrained_backbone, got both: {pretrained_backbone!r}")
        if text_encoder is not None and tokenizer is None:
            if not isinstance(text_encoder, str):
                raise ValueError("expected a tokenizer beside the settings of a text_encoder, got none")
            tokenizer = text_encoder
        if n_inference_steps is None:
            n_inference_steps = n_diffusion_steps if (objective, scheduler) == ("diffusion", "ddpm") else 10
        self.state_dim = state_dim
        self.action_dim = action_dim
        self.camera_names = None if camera_names is None else list(camera_names)
        self.image_size = image_size if isinstance(image_size, int) else list(image_size)
        self.image_normalize = CLIP_COLOURS if image_normalize is None else image_normalize
        self.crop_shape = None if crop_shape is None else list(crop_shape)
        self.chunk_size = chunk_size
        self.n_action_steps = n_action_steps
        self.n_obs_steps = n_obs_steps
        self.hidden_size = hidden_size
        self.n_layers = n_layers
        self.n_heads = n_heads
        self.dropout = dropout
        self.time_dim = time_dim
        self.rotary = rotary
        self.learned_positions = learned_positions
        self.objective = objective
        self.n_diffusion_steps = n_diffusion_steps
        self.beta_schedule = beta_schedule
        self.scheduler = scheduler
        self.prediction_type = prediction_type
        self.clip_range = clip_range
        self.time_sampling = time_sampling
        self.n_inference_steps = n_inference_steps
        self.vision_encoder = CLIP_VISION if vision_encoder is None and pretrained_backbone is None else vision_encoder
        self.pretrained_backbone = pretrained_backbone
        self.vision_pooling = vision_pooling
        self.vision_learning_rate_factor = vision_learning_rate_factor
        self.text_encoder = text_encoder
        self.tokenizer = tokenizer
        self.tokenizer_max_length = tokenizer_max_length

    @property
    def action_offsets(self) -> list[int]:
        """Actions in training, as frames relative to now: from the first observation on."""
        return list(range(1 - self.n_obs_steps, self.chunk_size))
