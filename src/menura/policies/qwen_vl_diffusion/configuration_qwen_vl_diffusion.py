"""Settings of `QwenVLDiffusionPolicy`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from transformers import PretrainedConfig

#: The smallest published model of each family, as its `config.json` on the Hub has it.
PUBLISHED: Mapping[str, Mapping[str, Any]] = {
    "qwen2_vl": {  # Qwen/Qwen2-VL-2B-Instruct
        "tie_word_embeddings": True,
        "text_config": {
            "vocab_size": 151936,
            "hidden_size": 1536,
            "intermediate_size": 8960,
            "num_hidden_layers": 28,
            "num_attention_heads": 12,
            "num_key_value_heads": 2,
            "rms_norm_eps": 1e-6,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [16, 24, 24]},
        },
        "vision_config": {"depth": 32, "embed_dim": 1280, "num_heads": 16, "hidden_size": 1536, "patch_size": 14},
    },
    "qwen2_5_vl": {  # Qwen/Qwen2.5-VL-3B-Instruct
        "tie_word_embeddings": True,
        "text_config": {
            "vocab_size": 151936,
            "hidden_size": 2048,
            "intermediate_size": 11008,
            "num_hidden_layers": 36,
            "num_attention_heads": 16,
            "num_key_value_heads": 2,
            "rms_norm_eps": 1e-6,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [16, 24, 24]},
        },
        "vision_config": {"depth": 32, "hidden_size": 1280, "out_hidden_size": 2048, "patch_size": 14},
    },
    "qwen3_vl": {  # Qwen/Qwen3-VL-2B-Instruct
        "tie_word_embeddings": True,
        "text_config": {
            "vocab_size": 151936,
            "hidden_size": 2048,
            "intermediate_size": 6144,
            "num_hidden_layers": 28,
            "num_attention_heads": 16,
            "num_key_value_heads": 8,
            "head_dim": 128,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 5e6,
                "mrope_section": [24, 20, 20],
                "mrope_interleaved": True,
            },
        },
        "vision_config": {
            "depth": 24,
            "hidden_size": 1024,
            "intermediate_size": 4096,
            "out_hidden_size": 2048,
            "patch_size": 16,
            "deepstack_visual_indexes": [5, 11, 17],
        },
    },
}
_HUB_IDS = {
    "qwen2_vl": "Qwen/Qwen2-VL-2B-Instruct",
    "qwen2_5_vl": "Qwen/Qwen2.5-VL-3B-Instruct",
    "qwen3_vl": "Qwen/Qwen3-VL-2B-Instruct",
}
#: CLIP's, of the first two families' `preprocessor_config.json`; Qwen3-VL's has 0.5 throughout.
_CLIP = {"mean": [0.48145466, 0.4578275, 0.40821073], "std": [0.26862954, 0.26130258, 0.27577711]}

#: Patterns for `target_modules` of `peft` (a string is matched as a whole), one a part of the backbone.
LORA_TARGETS: Mapping[str, str] = {
    "vision": r".*backbone\.visual\.blocks\.\d+\.(attn\.(qkv|proj)|mlp\.(\w+_proj|(linear_)?fc[12]))",
    "merger": r".*backbone\.visual\.(merger|deepstack_merger_list\.\d+)\.(mlp\.[02]|linear_fc[12])",
    "language": r".*backbone\.language_model\.layers\.\d+\.(self_attn|mlp)\.\w+_proj",
}


class QwenVLDiffusionPolicyConfig(PretrainedConfig):
    """Settings of `QwenVLDiffusionPolicy`; defaults of DiVLA (Wen et al. 2024, arXiv 2412.03293) and of the diffusion
    policy's head (Chi et al. 2023, arXiv 2303.04137) unless said otherwise.

    Args:
        state_dim: width of the state, 0 for none; filled in from the data.
        action_dim: width of the action; filled in from the data.
        camera_names: the cameras, in order; filled in from the data. None or empty: text and state alone.
        image_size: (height, width) in pixels, multiples of the patches that make one token: 28 pixels of Qwen2-VL and
            Qwen2.5-VL, 32 of Qwen3-VL; 224 is a multiple of both.
        image_normalize: how pixels are normalized; None for what the backbone was trained with.
        chunk_size: actions predicted.
        n_action_steps: actions executed before predicting again, at most `chunk_size`.
        backbone: `qwen2_vl`, `qwen2_5_vl` or `qwen3_vl`: whose classes of `transformers` are used.
        backbone_config: their config, nested; None for that of `pretrained_backbone`, or else of the smallest
            published model of the family (2B, 3B and 2B parameters).
        pretrained_backbone: a Hub id, such as `Qwen/Qwen2-VL-2B-Instruct`, or a directory to start from; None starts
            from random weights. It is read when a policy is made for training, never when a checkpoint is loaded.
        tokenizer: `bytes`, a Hub id or a directory; None for `pretrained_backbone`'s, or else the family's.
        tokenizer_max_length: tokens of the instruction; longer ones are cut.
        system_prompt: what the system turn says, None for no such turn. The default is that of the chat template of
            Qwen2-VL and Qwen2.5-VL; that of Qwen3-VL has none.
        pooling: what of the backbone's last layer the `diffusion` head is conditioned on: `mean` of all tokens of the
            prompt that are there, or `last`, its last token. The `flow` head attends to all of them.
        head: `diffusion`: a conditional U-Net; `flow`: a small diffusion transformer trained by flow matching.
        unet_widths: feature maps of the U-Net's levels.
        unet_kernel_size: of its convolutions.
        unet_n_groups: of its group norms.
        time_embedding_size: width of the features of the denoising time in the head.
        n_train_steps: denoising steps in training, of the `diffusion` head.
        hidden_size: width that the backbone's hidden states are projected to, and of the `flow` head.
        n_layers: blocks of the `flow` head.
        n_heads: attention heads of the `flow` head.
        n_inference_steps: denoising steps when acting.
        reasoning_weight: of the loss of the reasoning text (DiVLA's next-token loss; its α is 1); 0 leaves it out.
            The text is what follows `reasoning_separator` in a sample's `task`; samples without one count for nothing.
            The actions are conditioned on the prompt alone, which cannot see the reasoning (DiVLA feeds its embedding
            back into the head): acting is the same with and without it, and generates no text.
        reasoning_separator: stands between instruction and reasoning in `task`. What follows it is never shown to
            the policy that acts.
        reasoning_max_length: tokens of the reasoning; longer ones are cut.
    """

    model_type = "menura_qwen_vl_diffusion"

    def __init__(
        self,
        state_dim: int = 7,
        action_dim: int = 7,
        camera_names: Sequence[str] | None = None,
        image_size: Sequence[int] = (224, 224),
        image_normalize: str | Mapping[str, Any] | None = None,
        chunk_size: int = 16,
        n_action_steps: int = 8,
        backbone: str = "qwen2_vl",
        backbone_config: Mapping[str, Any] | None = None,
        pretrained_backbone: str | None = None,
        tokenizer: str | None = None,
        tokenizer_max_length: int = 64,
        system_prompt: str | None = "You are a helpful assistant.",
        pooling: str = "mean",
        head: str = "diffusion",
        unet_widths: Sequence[int] = (256, 512, 1024),
        unet_kernel_size: int = 5,
        unet_n_groups: int = 8,
        time_embedding_size: int = 256,
        n_train_steps: int = 100,
        hidden_size: int = 512,
        n_layers: int = 6,
        n_heads: int = 8,
        n_inference_steps: int = 10,
        reasoning_weight: float = 0.0,
        reasoning_separator: str = "|||",
        reasoning_max_length: int = 64,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if backbone not in PUBLISHED:
            raise ValueError(f"expected backbone to be one of {', '.join(PUBLISHED)}, got {backbone!r}")
        if head not in ("diffusion", "flow"):
            raise ValueError(f"expected head to be diffusion or flow, got {head!r}")
        if pooling not in ("mean", "last"):
            raise ValueError(f"expected pooling to be mean or last, got {pooling!r}")
        if reasoning_weight < 0:
            raise ValueError(f"expected a reasoning_weight of at least 0, got {reasoning_weight}")
        if backbone_config is None and pretrained_backbone is None:
            backbone_config = PUBLISHED[backbone]
        if image_normalize is None:
            image_normalize = "minus_one_one" if backbone == "qwen3_vl" else _CLIP
        self.state_dim = state_dim
        self.action_dim = action_dim
        self.camera_names = None if camera_names is None else list(camera_names)
        self.image_size = [image_size, image_size] if isinstance(image_size, int) else list(image_size)
        self.image_normalize = image_normalize
        self.chunk_size = chunk_size
        self.n_action_steps = n_action_steps
        self.backbone = backbone
        self.backbone_config = None if backbone_config is None else dict(backbone_config)
        self.pretrained_backbone = pretrained_backbone
        self.tokenizer = tokenizer or pretrained_backbone or _HUB_IDS[backbone]
        self.tokenizer_max_length = tokenizer_max_length
        self.system_prompt = system_prompt
        self.pooling = pooling
        self.head = head
        self.unet_widths = list(unet_widths)
        self.unet_kernel_size = unet_kernel_size
        self.unet_n_groups = unet_n_groups
        self.time_embedding_size = time_embedding_size
        self.n_train_steps = n_train_steps
        self.hidden_size = hidden_size
        self.n_layers = n_layers
        self.n_heads = n_heads
        self.n_inference_steps = n_inference_steps
        self.reasoning_weight = reasoning_weight
        self.reasoning_separator = reasoning_separator
        self.reasoning_max_length = reasoning_max_length
