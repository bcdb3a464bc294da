"""The transformer of `VQBeTPolicy`: a small GPT (Radford et al. 2019) over tokens that are vectors.

Shapes: B batch, N tokens, H width, h heads.
"""

from __future__ import annotations

import math
from functools import partial

from torch import Tensor, nn
from torch.nn import functional
from transformers.modeling_layers import GradientCheckpointingLayer

from ..common.initialization import begins_by, normal_
from ..common.learned import vectors
from .configuration_vqbet import VQBeTPolicyConfig

INITIAL_STD = 0.02


class CausalAttention(nn.Module):
    """Every token attends to itself and those before it."""

    def __init__(self, config: VQBeTPolicyConfig) -> None:
        super().__init__()
        self.qkv = nn.Linear(config.hidden_size, 3 * config.hidden_size)
        # As many residual layers add up, each begins that much smaller (GPT-2, section 2.3).
        smaller = partial(normal_, std=INITIAL_STD / math.sqrt(2 * config.n_layers))
        self.out = begins_by(smaller, nn.Linear(config.hidden_size, config.hidden_size))
        self.n_heads, self.dropout = config.n_heads, config.dropout

    def forward(self, x: Tensor) -> Tensor:
        queries, keys, values = (
            part.unflatten(-1, (self.n_heads, -1)).transpose(1, 2)  # (B, h, N, H/h)
            for part in self.qkv(x).chunk(3, dim=-1)
        )
        dropped = self.dropout if self.training else 0.0
        attended = functional.scaled_dot_product_attention(queries, keys, values, dropout_p=dropped, is_causal=True)
        mixed: Tensor = functional.dropout(self.out(attended.transpose(1, 2).flatten(2)), dropped)
        return mixed


class Block(GradientCheckpointingLayer):
    """Attention, then two linear layers, each normalized before and added to what came in."""

    def __init__(self, config: VQBeTPolicyConfig) -> None:
        super().__init__()
        width = config.hidden_size
        self.attention_norm = nn.LayerNorm(width)
        self.attention = CausalAttention(config)
        self.feedforward_norm = nn.LayerNorm(width)
        self.feedforward = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width), nn.Dropout(config.dropout)
        )

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.attention_norm(x))
        mixed: Tensor = x + self.feedforward(self.feedforward_norm(x))
        return mixed


class Transformer(nn.Module):
    """(B, N, H) -> (B, N, H), for up to `n_tokens` of them."""

    def __init__(self, config: VQBeTPolicyConfig, n_tokens: int) -> None:
        super().__init__()
        self.positions = nn.Embedding(n_tokens, config.hidden_size)
        self.dropout = nn.Dropout(config.dropout)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.n_layers))
        self.norm = nn.LayerNorm(config.hidden_size)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.dropout(tokens + vectors(self.positions, tokens, tokens.shape[1]))
        for block in self.blocks:
            x = block(x)
        normalized: Tensor = self.norm(x)
        return normalized
