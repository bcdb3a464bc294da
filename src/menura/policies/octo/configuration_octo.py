"""Settings of `OctoPolicy`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from transformers import PretrainedConfig

#: google-t5/t5-base, its encoder.
T5_BASE: Mapping[str, Any] = {
    "vocab_size": 32128,
    "d_model": 768,
    "d_kv": 64,
    "d_ff": 3072,
    "num_layers": 12,
    "num_heads": 12,
    "feed_forward_proj": "relu",
}
STEM_STRIDE = 16  # of the four convolutions of the image tokenizer together


class OctoPolicyConfig(PretrainedConfig):
    """Settings of `OctoPolicy`; defaults of Octo-Small 1.5 (Octo Model Team 2024, arXiv 2405.12213, and
    `scripts/configs/octo_pretrain_config.py` of the authors' code) unless said otherwise.

    Octo-Base is `hidden_size: 768`, `n_heads: 12`, `feedforward_size: 3072`. The authors' weights are JAX (orbax)
    checkpoints of networks that read goal images too; they are not read here.

    Args:
        state_dim: width of the state; filled in from the data. Read with `proprio` alone.
        action_dim: width of the action; filled in from the data.
        camera_names: the cameras, in order; filled in from the data.
        image_size: (height, width) in pixels, multiples of 16.
        image_normalize: how pixels are normalized.
        wrist_cameras: those cameras that are looked at in `wrist_image_size`: a wrist camera needs no more.
        wrist_image_size: (height, width) in pixels, multiples of 16.
        n_obs_steps: observations given, the window.
        chunk_size: actions predicted.
        n_action_steps: actions executed before predicting again, at most `chunk_size`.
        proprio: reads the state, too: one token a dimension, of 256 bins that are equally likely under a standard
            normal, as in the authors' examples of fine-tuning. Pretraining did without, which generalized better
            (section V of the paper). Without cameras there must be a state.
        hidden_size: width of the transformer.
        n_layers: its layers.
        n_heads: attention heads.
        feedforward_size: width of the feed-forward layers.
        dropout: share dropped in the transformer in training.
        stem_widths: feature maps of the four convolutions of the image tokenizer, multiples of 32.
        image_token_size: width of an image token before it is projected to the transformer's.
        text_config: config of a T5 of `transformers`, nested, whose frozen encoder reads the instruction; T5-base.
        pretrained_text: a Hub id or a directory to take its weights from, such as `google-t5/t5-base`; None starts
            from random ones, which makes sense in tests alone. Read when a policy is made for training, never when a
            checkpoint is loaded.
        tokenizer: `bytes`, a Hub id or a directory.
        tokenizer_max_length: tokens of the instruction; longer ones are cut.
        n_diffusion_steps: times of the diffusion in training.
        n_inference_steps: denoising steps when acting.
        scheduler: `ddim`, or the authors' `ddpm`, which draws new noise at every step.
        head_size: width of the diffusion head's residual MLP.
        n_head_blocks: its blocks.
        time_embedding_size: width of the features of the denoising time.
        max_action: bound of normalized actions: demonstrations are clipped to it in training, samples when acting.
    """

    model_type = "menura_octo"

    def __init__(
        self,
        state_dim: int = 7,
        action_dim: int = 7,
        camera_names: Sequence[str] | None = None,
        image_size: Sequence[int] = (256, 256),
        image_normalize: str = "minus_one_one",
        wrist_cameras: Sequence[str] = ("wrist",),
        wrist_image_size: Sequence[int] = (128, 128),
        n_obs_steps: int = 2,
        chunk_size: int = 4,
        n_action_steps: int = 4,
        proprio: bool = False,
        hidden_size: int = 384,
        n_layers: int = 12,
        n_heads: int = 6,
        feedforward_size: int = 1536,
        dropout: float = 0.0,
        stem_widths: Sequence[int] = (32, 96, 192, 384),
        image_token_size: int = 512,
        text_config: Mapping[str, Any] | None = None,
        pretrained_text: str | None = None,
        tokenizer: str = "google-t5/t5-base",
        tokenizer_max_length: int = 16,
        n_diffusion_steps: int = 20,
        n_inference_steps: int = 20,
        scheduler: str = "ddim",
        head_size: int = 256,
        n_head_blocks: int = 3,
        time_embedding_size: int = 32,
        max_action: float = 5.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.state_dim = state_dim
        self.action_dim = action_dim
        self.camera_names = None if camera_names is None else list(camera_names)
        self.image_size = [image_size, image_size] if isinstance(image_size, int) else list(image_size)
        self.image_normalize = image_normalize
        self.wrist_cameras = list(wrist_cameras)
        self.wrist_image_size = list(wrist_image_size)
        self.n_obs_steps = n_obs_steps
        self.chunk_size = chunk_size
        self.n_action_steps = n_action_steps
        self.proprio = proprio
        self.hidden_size = hidden_size
        self.n_layers = n_layers
        self.n_heads = n_heads
        self.feedforward_size = feedforward_size
        self.dropout = dropout
        self.stem_widths = list(stem_widths)
        self.image_token_size = image_token_size
        self.text_config = dict(T5_BASE if text_config is None else text_config)
        self.pretrained_text = pretrained_text
        self.tokenizer = tokenizer
        self.tokenizer_max_length = tokenizer_max_length
        self.n_diffusion_steps = n_diffusion_steps
        self.n_inference_steps = n_inference_steps
        self.scheduler = scheduler
        self.head_size = head_size
        self.n_head_blocks = n_head_blocks
        self.time_embedding_size = time_embedding_size
        self.max_action = max_action
        if hidden_size % n_heads:
            raise ValueError(f"expected hidden_size to be a multiple of n_heads, got {hidden_size} and {n_heads}")
        if len(stem_widths) != 4 or any(width % 32 for width in stem_widths):
            raise ValueError(f"expected stem_widths to be four multiples of 32, got {list(stem_widths)}")
        for name in ("image_size", "wrist_image_size"):
            if any(side % STEM_STRIDE for side in getattr(self, name)):
                raise ValueError(f"expected {name} to be multiples of {STEM_STRIDE}, got {getattr(self, name)}")
        if camera_names is not None and not camera_names and not (proprio and state_dim):
            raise ValueError("expected a camera in camera_names, or proprio and a state, got none of them")
