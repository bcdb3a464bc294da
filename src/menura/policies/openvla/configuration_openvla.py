"""Settings of `OpenVLAPolicy`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from transformers import PretrainedConfig

HEADS = ("tokens", "tokens_parallel", "l1", "diffusion")

#: Llama-2 7B as OpenVLA has it: 64 rows more in the vocabulary (openvla/openvla-7b, `config.json`).
LLAMA_2_7B: Mapping[str, Any] = {
    "vocab_size": 32064,
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "rms_norm_eps": 1e-6,
    "max_position_embeddings": 2048,
    "pad_token_id": 32000,
}
#: timm's `vit_large_patch14_reg4_dinov2.lvd142m`.
DINOV2_LARGE: Mapping[str, Any] = {
    "hidden_size": 1024,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "patch_size": 14,
    "image_size": 224,
    "num_register_tokens": 4,
}
#: timm's `vit_so400m_patch14_siglip_224`, which has the exact GELU where SigLIP's own code approximates it.
SIGLIP_SO400M: Mapping[str, Any] = {
    "hidden_size": 1152,
    "intermediate_size": 4304,
    "num_hidden_layers": 27,
    "num_attention_heads": 16,
    "patch_size": 14,
    "image_size": 224,
    "hidden_act": "gelu",
}


class OpenVLAPolicyConfig(PretrainedConfig):
    """Settings of `OpenVLAPolicy`; defaults of Kim et al. 2024 (arXiv 2406.09246) and the authors' code, those of the
    other heads of Kim et al. 2025 (OpenVLA-OFT, arXiv 2502.19645).

    OpenVLA is fine-tuned with AdamW, learning rate 5e-4, LoRA of rank 32 on all linear layers and batch size 16
    (`vla-scripts/finetune.py`); OFT too, 5e-4 decayed to 5e-5 after 100 000 steps, batch size 64, with chunks of 8
    actions, the state and a wrist camera: `{head: l1, chunk_size: 8, n_action_steps: 8, use_state: true}`. Actions are
    normalized by `percentile`: the tokens reach from -1 to 1.

    Args:
        state_dim: width of the state; filled in from the data.
        action_dim: width of the action; filled in from the data.
        camera_names: the cameras, in order, at least one; filled in from the data. OpenVLA was trained with one.
        image_size: (height, width) in pixels, that of the vision encoders.
        image_normalize: how pixels are normalized; each encoder's own normalization is worked out from [-1, 1].
        chunk_size: actions predicted.
        n_action_steps: actions executed before predicting again, at most `chunk_size`.
        head: `tokens`: each dimension of each action is a token, one after the other. The others are OFT's, which
            answer all at once: `tokens_parallel` in tokens, `l1` in numbers by regression, `diffusion` by denoising.
        use_state: whether the language model is given the state, as OFT does.
        n_action_bins: tokens of one dimension, whose bounds lie evenly between -1 and 1.
        action_vocab_end: one past the last action token: the size of the text tokenizer's vocabulary.
        n_diffusion_steps: times of the `diffusion` head's training.
        n_inference_steps: denoising steps when acting.
        tokenizer: `bytes`, a Hub id or a directory of a text tokenizer.
        tokenizer_max_length: tokens of the prompt; a longer one is cut.
        language_config: settings of a `LlamaConfig` of `transformers`; Llama-2 7B when None.
        dinov2_config: settings of a `Dinov2WithRegistersConfig`; DINOv2-L when None. The last layer is not built, here
            and in SigLIP: what the last but one answers is read.
        siglip_config: settings of a `SiglipVisionConfig`; SigLIP-SO400M when None.
        pretrained_backbone: a Hub id or a directory of original weights to start from, such as `openvla/openvla-7b`. It
            is read when a policy is made for training, never when a checkpoint is loaded.
    """

    model_type = "menura_openvla"
    state_normalize = "percentile"
    action_normalize = "percentile"

    def __init__(
        self,
        state_dim: int = 8,
        action_dim: int = 7,
        camera_names: Sequence[str] | None = None,
        image_size: Sequence[int] = (224, 224),
        image_normalize: str = "minus_one_one",
        chunk_size: int = 1,
        n_action_steps: int = 1,
        head: str = "tokens",
        use_state: bool = False,
        n_action_bins: int = 256,
        action_vocab_end: int = 32000,
        n_diffusion_steps: int = 50,
        n_inference_steps: int = 50,
        tokenizer: str = "openvla/openvla-7b",
        tokenizer_max_length: int = 96,
        language_config: Mapping[str, Any] | None = None,
        dinov2_config: Mapping[str, Any] | None = None,
        siglip_config: Mapping[str, Any] | None = None,
        pretrained_backbone: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.state_dim = state_dim
        self.action_dim = action_dim
        self.camera_names = None if camera_names is None else list(camera_names)
        self.image_size = image_size if isinstance(image_size, int) else list(image_size)
        self.image_normalize = image_normalize
        self.chunk_size = chunk_size
        self.n_action_steps = n_action_steps
        self.head = head
        self.use_state = use_state
        self.n_action_bins = n_action_bins
        self.action_vocab_end = action_vocab_end
        self.n_diffusion_steps = n_diffusion_steps
        self.n_inference_steps = n_inference_steps
        self.tokenizer = tokenizer
        self.tokenizer_max_length = tokenizer_max_length
        self.language_config = dict(LLAMA_2_7B if language_config is None else language_config)
        self.dinov2_config = dict(DINOV2_LARGE if dinov2_config is None else dinov2_config)
        self.siglip_config = dict(SIGLIP_SO400M if siglip_config is None else siglip_config)
        self.pretrained_backbone = pretrained_backbone
        self._check()

    def _check(self) -> None:
        if self.camera_names is not None and not self.camera_names:
            raise ValueError("expected camera_names to name at least one camera, got none")
        if self.head not in HEADS:
            raise ValueError(f"expected head to be one of {', '.join(HEADS)}, got {self.head!r}")
        side = self.siglip_config["image_size"]
        size = self.image_size if isinstance(self.image_size, list) else [self.image_size] * 2
        if size != [side, side] or self.dinov2_config["image_size"] != side:
            raise ValueError(
                f"expected image_size to be that of the vision encoders, {[side, side]}, got {size} and "
                f"{self.dinov2_config['image_size']} of DINOv2"
            )
        if self.n_action_bins > self.action_vocab_end or self.action_vocab_end > self.language_config["vocab_size"]:
            raise ValueError(
                f"expected action_vocab_end from {self.n_action_bins} (n_action_bins) to "
                f"{self.language_config['vocab_size']} (the vocabulary), got {self.action_vocab_end}"
            )
