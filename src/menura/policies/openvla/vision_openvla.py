"""What OpenVLA sees: patches of DINOv2 and SigLIP side by side (Karamcheti et al. 2024, arXiv 2402.07865).

Shapes: N images, n patches, W widths of both encoders together.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from transformers import Dinov2WithRegistersConfig, Dinov2WithRegistersModel, SiglipVisionConfig, SiglipVisionModel

#: What DINOv2 was trained on: mean and deviation of ImageNet's pixels in [0, 1].
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class FusedVision(nn.Module):
    """(N, 3, H, W) in [-1, 1] -> (N, n, W), of the last layer but one of both encoders, without the final norm."""

    def __init__(self, dinov2: Mapping[str, Any], siglip: Mapping[str, Any]) -> None:
        super().__init__()
        model: Any = Dinov2WithRegistersModel(Dinov2WithRegistersConfig(**_without_last_layer(dinov2)))
        self.dinov2 = model
        self.dinov2.layernorm = nn.Identity()
        # Only DINOv2's own training has a use for it: no parameter, so that nothing waits for its gradient.
        width = self.dinov2.config.hidden_size
        del self.dinov2.embeddings.mask_token
        self.dinov2.embeddings.register_buffer("mask_token", torch.zeros(1, width), persistent=False)
        self.n_special = 1 + self.dinov2.config.num_register_tokens
        settings = {**_without_last_layer(siglip), "vision_use_head": False}
        self.siglip: Any = SiglipVisionModel(SiglipVisionConfig(**settings))
        inner = getattr(self.siglip, "vision_model", self.siglip)  # one deeper in older versions of transformers
        inner.post_layernorm = nn.Identity()
        self.width: int = width + self.siglip.config.hidden_size

    def forward(self, image: Tensor) -> Tensor:
        mean, std = (image.new_tensor(values)[:, None, None] for values in (IMAGENET_MEAN, IMAGENET_STD))
        seen = self.dinov2(((image + 1) / 2 - mean) / std).last_hidden_state[:, self.n_special :]
        return torch.cat((seen, self.siglip(image).last_hidden_state), dim=-1)


class Projector(nn.Module):
    """(…, W) -> (…, D) of the language model, in three layers."""

    def __init__(self, width_in: int, width_out: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width_in, 4 * width_in)
        self.fc2 = nn.Linear(4 * width_in, width_out)
        self.fc3 = nn.Linear(width_out, width_out)

    def forward(self, x: Tensor) -> Tensor:
        x = nn.functional.gelu(self.fc1(x))
        projected: Tensor = self.fc3(nn.functional.gelu(self.fc2(x)))
        return projected


def _without_last_layer(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {**settings, "num_hidden_layers": settings["num_hidden_layers"] - 1}
