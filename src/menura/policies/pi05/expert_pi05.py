"""The action expert of `PI05Policy`: Gemma whose norms and residuals depend on the time of denoising.

Shapes: B batch, T chunk, N tokens before it, D width, G heads of keys and values, E width of a head.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from transformers import GemmaConfig
from transformers.models.gemma.modeling_gemma import GemmaMLP

from ..common.action_expert import GemmaCachedLayer, Past, Rotation, after


class Modulation(nn.Linear):
    """A linear layer that starts at 0."""


class AdaptiveRMSNorm(nn.Module):
    """Divides by the root mean square, then scales and shifts by what a linear layer makes of a condition (openpi,
    `gemma.py`, `RMSNorm`; Peebles & Xie 2023, arXiv 2212.09748)."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.modulation = Modulation(width, 3 * width)
        self.eps = eps

    def forward(self, x: Tensor, condition: Tensor) -> tuple[Tensor, Tensor]:
        """(B, T, D) and (B, D) -> normed (B, T, D), and the gate (B, 1, D) of what is made of it."""
        scale, shift, gate = self.modulation(condition)[:, None].float().chunk(3, dim=-1)
        precise = x.float()
        normed = precise * torch.rsqrt(precise.square().mean(dim=-1, keepdim=True) + self.eps)
        return (normed * (1 + scale) + shift).to(x.dtype), gate.to(x.dtype)


class AdaptiveLayer(GemmaCachedLayer):
    """A layer of Gemma with adaptive norms, whose two residuals are gated."""

    input_layernorm: AdaptiveRMSNorm  # type: ignore[assignment]
    post_attention_layernorm: AdaptiveRMSNorm  # type: ignore[assignment]
    mlp: GemmaMLP

    def __init__(self, config: GemmaConfig, layer_idx: int) -> None:
        super().__init__(config, layer_idx)
        self.input_layernorm = AdaptiveRMSNorm(config.hidden_size, config.rms_norm_eps)
        self.post_attention_layernorm = AdaptiveRMSNorm(config.hidden_size, config.rms_norm_eps)

    def forward(  # type: ignore[override]
        self, x: Tensor, moment: Tensor, rotation: Rotation, mask: Tensor, *past: Tensor
    ) -> Tensor:
        """(B, T, D) at a time (B, D), attending to `past` and itself as `mask` (B, 1, T, N + T) says -> (B, T, D)."""
        normed, gate = self.input_layernorm(x, moment)
        seen = after(past, *self.keys_and_values(normed, rotation))
        x = x + gate * self.attention(normed, rotation, mask, seen)
        normed, gate = self.post_attention_layernorm(x, moment)
        answer: Tensor = x + gate * self.mlp(normed)
        return answer


class Expert(nn.Module):
    """Gemma, narrower than PaliGemma's, with as many layers and heads."""

    def __init__(self, config: GemmaConfig) -> None:
        super().__init__()
        self.layers = nn.ModuleList(AdaptiveLayer(config, i) for i in range(config.num_hidden_layers))
        self.norm = AdaptiveRMSNorm(config.hidden_size, config.rms_norm_eps)

    def forward(self, x: Tensor, moment: Tensor, rotation: Rotation, mask: Tensor, seen: list[Past]) -> Tensor:
        """(B, T, D) at a time (B, D), attending to what is seen and itself -> (B, T, D)."""
        for layer, of_layer in zip(self.layers, seen, strict=True):
            x = layer(x, moment, rotation, mask, *of_layer)
        answer: Tensor = self.norm(x, moment)[0]
        return answer
