"""Settings of `PI0FastPolicy`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from transformers import PretrainedConfig

#: PaliGemma 3B for pictures of 224 pixels (Beyer et al. 2024, arXiv 2407.07726), with the vocabulary of its tokenizer.
PALIGEMMA_3B: Mapping[str, Any] = {
    "projection_dim": 2048,
    "text_config": {
        "model_type": "gemma",
        "vocab_size": 257152,
        "hidden_size": 2048,
        "intermediate_size": 16384,
        "num_hidden_layers": 18,
        "num_attention_heads": 8,
        "num_key_value_heads": 1,
        "head_dim": 256,
    },
    "vision_config": {
        "model_type": "siglip_vision_model",
        "hidden_size": 1152,
        "intermediate_size": 4304,
        "num_hidden_layers": 27,
        "num_attention_heads": 16,
        "patch_size": 14,
        "image_size": 224,
        "projection_dim": 2048,
        "vision_use_head": False,
    },
}
PROMPT_STYLES = ("openpi", "lerobot")


class PI0FastPolicyConfig(PretrainedConfig):
    """Settings of `PI0FastPolicy`; defaults of openpi (`models/pi0_fast.py`, `models/tokenizer.py`) and, where it has
    none, of LeRobot 0.6.1 (`policies/pi0_fast/configuration_pi0_fast.py`).

    openpi trains with AdamW, learning rate 2.5e-5 after 1000 steps of warm-up, decaying to 2.5e-6 over 30 000 steps,
    weight decay 1e-10, gradients clipped at 1 (`training/optimizer.py`). States and actions are best normalized by
    `percentile`: the prompt tells states apart between -1 and 1.

    Args:
        state_dim: width of the state; filled in from the data.
        action_dim: width of the action; filled in from the data.
        camera_names: the cameras, in order, at least one; filled in from the data.
        image_size: (height, width) in pixels. Images of another size than the vision encoder's are made square with
            their aspect kept, as openpi does.
        image_normalize: how pixels are normalized; SigLIP was trained on [-1, 1].
        chunk_size: actions predicted.
        n_action_steps: actions executed before predicting again, at most `chunk_size`.
        tokenizer: `bytes`, a Hub id or a directory of a text tokenizer.
        tokenizer_max_length: tokens of the prompt, task and state.
        action_tokenizer: a Hub id or a directory of a FAST tokenizer (`FastTokenizer.fit(…).save(…)` writes one);
            `fit`: fitted to the data when a training begins, and saved with the weights, which makes the shortest
            answers; or `synthetic`: fitted to smooth random chunks, which needs no file.
        action_vocab_size: tokens of one that is fitted.
        max_action_tokens: tokens of a chunk, with those around it; a longer one is cut.
        sampling_temperature: 0 takes the likeliest token; larger draws, the more evenly the larger it is.
        prompt_style: `openpi`: the prompt in lower case, the answer right after it. `lerobot`: the case kept, and a
            token of beginning between them, which the prompt attends to when acting and not in training, as in LeRobot,
            whose checkpoints it is for.
        tokenizer_vocab_size: one past the text tokenizer's last token; action tokens are counted down from there.
        n_skipped_tokens: tokens at the end of that vocabulary that stay what they are (PaliGemma's segmentation).
        vlm_config: settings of a `PaliGemmaConfig` of `transformers`; PaliGemma 3B when None.
        pretrained_backbone: a Hub id or a directory of a PaliGemma to start from, such as
            `google/paligemma-3b-pt-224`; its settings replace `vlm_config`. It is read when a policy is made for
            training, never when a checkpoint is loaded.
    """

    model_type = "menura_pi0_fast"
    state_normalize = "percentile"
    action_normalize = "percentile"

    def __init__(
        self,
        state_dim: int = 7,
        action_dim: int = 7,
        camera_names: Sequence[str] | None = None,
        image_size: Sequence[int] = (224, 224),
        image_normalize: str = "minus_one_one",
        chunk_size: int = 32,
        n_action_steps: int = 32,
        tokenizer: str = "google/paligemma-3b-pt-224",
        tokenizer_max_length: int = 200,
        action_tokenizer: str = "physical-intelligence/fast",
        action_vocab_size: int = 1024,
        max_action_tokens: int = 256,
        sampling_temperature: float = 0.0,
        prompt_style: str = "openpi",
        tokenizer_vocab_size: int = 257152,
        n_skipped_tokens: int = 128,
        vlm_config: Mapping[str, Any] | None = None,
        pretrained_backbone: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if camera_names is not None and not camera_names:
            raise ValueError("expected camera_names to name at least one camera, got none")
        if prompt_style not in PROMPT_STYLES:
            raise ValueError(f"expected prompt_style to be {' or '.join(PROMPT_STYLES)}, got {prompt_style!r}")
        if sampling_temperature < 0:
            raise ValueError(f"expected a sampling_temperature of at least 0, got {sampling_temperature}")
        if min(tokenizer_max_length, max_action_tokens) < 1:
            raise ValueError("expected tokenizer_max_length and max_action_tokens of at least 1")
        self.state_dim = state_dim
        self.action_dim = action_dim
        self.camera_names = None if camera_names is None else list(camera_names)
        self.image_size = image_size if isinstance(image_size, int) else list(image_size)
        self.image_normalize = image_normalize
        self.chunk_size = chunk_size
        self.n_action_steps = n_action_steps
        self.tokenizer = tokenizer
        self.tokenizer_max_length = tokenizer_max_length
        self.action_tokenizer = action_tokenizer
        self.action_vocab_size = action_vocab_size
        self.max_action_tokens = max_action_tokens
        self.sampling_temperature = sampling_temperature
        self.prompt_style = prompt_style
        self.tokenizer_vocab_size = tokenizer_vocab_size
        self.n_skipped_tokens = n_skipped_tokens
        self.vlm_config = dict(PALIGEMMA_3B if vlm_config is None else vlm_config)
        self.pretrained_backbone = pretrained_backbone
