"""PaliGemma as π0 and π0.5 read an observation with it: SigLIP, a projection, and Gemma's keys and values.

Shapes: B batch, K cameras, N tokens, D Gemma's width.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from transformers import GemmaConfig, PaliGemmaForConditionalGeneration, SiglipVisionConfig, SiglipVisionModel

from .action_expert import GemmaCachedLayer, Past, PrefixModel, load_part, rotation_at
from .block_masks import block_causal_mask, positions_of
from .image_padding import fit

#: google/paligemma-3b-pt-224, `config.json`; openpi, `gemma.py`, `gemma_2b`.
PALIGEMMA = "google/paligemma-3b-pt-224"
LANGUAGE_MODEL = {
    "vocab_size": 257152,
    "hidden_size": 2048,
    "intermediate_size": 16384,
    "num_hidden_layers": 18,
    "num_attention_heads": 8,
    "num_key_value_heads": 1,
    "head_dim": 256,
}
VISION_MODEL = {
    "hidden_size": 1152,
    "intermediate_size": 4304,
    "num_hidden_layers": 27,
    "num_attention_heads": 16,
    "image_size": 224,
    "patch_size": 14,
}
#: openpi, `gemma.py`, `gemma_300m`: narrower, with as many layers and heads as the language model.
EXPERT = {"hidden_size": 1024, "intermediate_size": 4096}


class PaliGemma(nn.Module):
    """Images and text in, the keys and values of every layer out; all tokens attend to each other.

    Args:
        language: as `transformers.GemmaConfig` names its settings.
        vision: as `transformers.SiglipVisionConfig` does; None for a policy without cameras.
    """

    def __init__(self, language: Mapping[str, Any], vision: Mapping[str, Any] | None) -> None:
        super().__init__()
        self.language_model = PrefixModel(GemmaCachedLayer, GemmaConfig(**language))
        self.vision_tower: nn.Module | None = None
        self.projector: nn.Module | None = None
        if vision is not None:
            self.image_size: int = vision["image_size"]
            self.vision_tower = _transformer(SiglipVisionModel(SiglipVisionConfig(**vision, vision_use_head=False)))
            self.projector = nn.Linear(vision["hidden_size"], language["hidden_size"])

    def forward(self, ids: Tensor, there: Tensor, images: tuple[Tensor, Tensor] | None) -> tuple[list[Past], Tensor]:
        """The keys and values of each layer, and which of the tokens there are (B, N).

        Args:
            ids: (B, L) of the prompt.
            there: (B, L), which of them are text.
            images: (B, K, 3, H, W) in [-1, 1], and which of them there are (B, K).
        """
        tokens = self.language_model.embed(ids)
        if images is not None:
            of_images, images_there = self._image_tokens(*images)
            tokens = torch.cat((of_images, tokens), dim=1)
            there = torch.cat((images_there, there), dim=1)
        rotation = rotation_at(positions_of(there), self.language_model.head_dim)
        return self.language_model(tokens, rotation, block_causal_mask(there, [tokens.shape[1]])), there

    def _image_tokens(self, image: Tensor, there: Tensor) -> tuple[Tensor, Tensor]:
        """(B, K, 3, H, W) and (B, K) -> tokens (B, K·n, D) and which of them there are (B, K·n)."""
        assert self.vision_tower is not None  # as there are cameras
        assert self.projector is not None
        squares = fit(image.flatten(0, 1), self.image_size, centred=True)
        tokens = self.projector(self.vision_tower(squares).last_hidden_state)  # (B·K, n, D)
        per_camera = tokens.shape[1]
        return tokens.reshape(len(image), -1, tokens.shape[-1]), there.repeat_interleave(per_camera, dim=1)

    def load(self, source: str) -> None:
        """The weights of a PaliGemma of these sizes: a Hub id or a directory."""
        dtype = self.language_model.embed_tokens.weight.dtype
        other = PaliGemmaForConditionalGeneration.from_pretrained(source, dtype=dtype).model
        self.language_model.load(other.language_model.state_dict(), source)
        if self.vision_tower is not None and self.projector is not None:
            load_part(self.vision_tower, _transformer(other.vision_tower).state_dict(), source)
            load_part(self.projector, other.multi_modal_projector.linear.state_dict(), source)


def _transformer(siglip: nn.Module) -> nn.Module:
    """What computes: `transformers` had it in a module of its own once, which the weights were named by."""
    inner: nn.Module = getattr(siglip, "vision_model", siglip)
    return inner


def expert_config(language: Mapping[str, Any], expert: Mapping[str, Any]) -> GemmaConfig:
    """Of the expert's layers, which attend together with the language model's: as many, with equal heads."""
    return GemmaConfig(**{**language, **expert})
