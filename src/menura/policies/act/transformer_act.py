"""The transformers of `ACTPolicy`: layers that add positions to queries and keys, as in DETR (Carion et al. 2020,
arXiv 2005.12872), normalizing after each (as the paper does) or before it, and sine positions.

Shapes: B batch, N tokens, M queries, D width.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from transformers.activations import ACT2FN
from transformers.modeling_layers import GradientCheckpointingLayer

from ..common.initialization import begins_by
from .configuration_act import ACTPolicyConfig


def glorot_(layer: nn.Linear, gain: float = 1.0) -> None:
    """Glorot's uniform weights, as DETR has them, and no bias."""
    nn.init.xavier_uniform_(layer.weight, gain)
    nn.init.zeros_(layer.bias)


def glorot_of_three_(layer: nn.Linear) -> None:
    """The same of queries, keys and values, which DETR draws as one matrix (3·D, D)."""
    glorot_(layer, gain=math.sqrt((1 + 1) / (3 + 1)))


class FeedForward(nn.Module):
    """Two linear layers and a residual, normalized after or before."""

    def __init__(self, config: ACTPolicyConfig) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            begins_by(glorot_, nn.Linear(config.hidden_size, config.feedforward_size)),
            ACT2FN[config.activation],
            nn.Dropout(config.dropout),
            begins_by(glorot_, nn.Linear(config.feedforward_size, config.hidden_size)),
            nn.Dropout(config.dropout),
        )
        self.norm = nn.LayerNorm(config.hidden_size)
        self.pre_norm = config.pre_norm

    def forward(self, x: Tensor) -> Tensor:
        mixed: Tensor = x + self.layers(self.norm(x)) if self.pre_norm else self.norm(x + self.layers(x))
        return mixed


class Attention(nn.Module):
    """Multi-head attention with positions on queries and keys, dropout and a residual, normalized after or before."""

    def __init__(self, config: ACTPolicyConfig) -> None:
        super().__init__()
        width = config.hidden_size
        self.n_heads = config.n_heads
        self.attention_dropout = config.dropout
        self.q_proj = begins_by(glorot_of_three_, nn.Linear(width, width))
        self.k_proj = begins_by(glorot_of_three_, nn.Linear(width, width))
        self.v_proj = begins_by(glorot_of_three_, nn.Linear(width, width))
        self.out_proj = nn.Linear(width, width)
        self.dropout = nn.Dropout(config.dropout)
        self.norm = nn.LayerNorm(width)
        self.pre_norm = config.pre_norm

    def forward(
        self,
        x: Tensor,
        x_positions: Tensor,
        memory: Tensor | None,
        memory_positions: Tensor,
        is_pad: Tensor | None = None,
    ) -> Tensor:
        """(B, M, D) asks (B, N, D), or itself when there is no memory; `is_pad` (B, N) hides what is asked."""
        asking = self.norm(x) if self.pre_norm else x
        memory = asking if memory is None else memory
        attended = scaled_dot_product_attention(
            self._heads(self.q_proj(asking + x_positions)),
            self._heads(self.k_proj(memory + memory_positions)),
            self._heads(self.v_proj(memory)),
            attn_mask=None if is_pad is None else ~is_pad[:, None, None],
            dropout_p=self.attention_dropout if self.training else 0.0,
        )
        mixed: Tensor = x + self.dropout(self.out_proj(attended.transpose(1, 2).flatten(2)))
        return mixed if self.pre_norm else self.norm(mixed)

    def _heads(self, tokens: Tensor) -> Tensor:
        """(B, N, D) -> (B, heads, N, D / heads)."""
        heads: Tensor = tokens.unflatten(-1, (self.n_heads, -1)).transpose(1, 2)  # type: ignore[no-untyped-call]
        return heads


class EncoderLayer(GradientCheckpointingLayer):
    """Tokens attend to one another."""

    def __init__(self, config: ACTPolicyConfig) -> None:
        super().__init__()
        self.attention = Attention(config)
        self.feedforward = FeedForward(config)

    def forward(self, x: Tensor, positions: Tensor, is_pad: Tensor | None = None) -> Tensor:
        mixed: Tensor = self.feedforward(self.attention(x, positions, None, positions, is_pad))
        return mixed


class DecoderLayer(GradientCheckpointingLayer):
    """Queries attend to one another and to the memory.

    The first layer's queries carry nothing yet, so that self attention would mix nothing (and never be trained): it
    has none. Its constant output in the original is absorbed by the biases that follow it.
    """

    def __init__(self, config: ACTPolicyConfig, *, first: bool) -> None:
        super().__init__()
        self.self_attention = None if first else Attention(config)
        self.cross_attention = Attention(config)
        if first and config.pre_norm:
            self.cross_attention.norm = nn.Identity()  # type: ignore[assignment]  # of zeros
        self.feedforward = FeedForward(config)

    def forward(
        self,
        x: Tensor,
        queries: Tensor,
        memory: Tensor,
        memory_positions: Tensor,
        is_pad: Tensor | None = None,
    ) -> Tensor:
        if self.self_attention is not None:
            x = self.self_attention(x, queries, None, queries)
        mixed: Tensor = self.feedforward(self.cross_attention(x, queries, memory, memory_positions, is_pad))
        return mixed


def sine_positions(length: int, dim: int, like: Tensor) -> Tensor:
    """Positions 0 … length - 1 as (length, dim): sine at even and cosine at odd dimensions of position / 10000^(2i/dim)
    (Vaswani et al. 2017, section 3.5)."""
    return _sines(torch.arange(length, device=like.device, dtype=torch.float32), dim).to(like.dtype)


def sine_positions_2d(height: int, width: int, dim: int, like: Tensor) -> Tensor:
    """Positions of an image's tokens, row by row, as (height·width, dim): the first half of the dimensions tells the
    row and the second the column, each from 1/n to 1 of 2 pi (DETR, appendix A.4, normalized)."""

    def axis(length: int) -> Tensor:
        steps = torch.arange(1, length + 1, device=like.device, dtype=torch.float32)
        return _sines(steps / length * 2 * math.pi, dim // 2)  # (length, dim/2)

    rows = axis(height)[:, None].expand(height, width, dim // 2)
    columns = axis(width)[None, :].expand(height, width, dim // 2)
    return torch.cat((rows, columns), dim=-1).flatten(0, 1).to(like.dtype)


def _sines(values: Tensor, dim: int) -> Tensor:
    frequencies = 10000.0 ** (-torch.arange(0, dim, 2, device=values.device, dtype=torch.float32) / dim)
    angles = values[:, None] * frequencies  # (length, dim/2)
    return torch.stack((angles.sin(), angles.cos()), dim=-1).flatten(1)
