"""The transformer denoiser of Diffusion Policy (Chi et al. 2023, arXiv 2303.04137, DP-T).

A decoder over the noisy actions, each of which sees those before it, and as memory the denoising time and the
observations up to its own step. What the observations give to every layer's attention is the same for all denoising
steps and computed once a chunk.

Shapes: B batch, T chunk, A action, O observation steps, C condition of one step, D width, N heads.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers.modeling_layers import GradientCheckpointingLayer

from ..common.initialization import begins_by, normal_
from ..common.learned import vectors
from ..common.sinusoidal import sinusoidal
from .configuration_diffusion import DiffusionPolicyConfig

INITIAL_STD = 0.02  # of the authors (`transformer_for_diffusion.py`)


class TransformerDenoiser(nn.Module):
    """Noisy chunks (B, T, A) and times (B,) -> what is predicted of them (B, T, A), given `memory`."""

    def __init__(self, config: DiffusionPolicyConfig, condition_dim: int) -> None:
        super().__init__()
        width = config.hidden_size
        self.width = width
        self.actions = nn.Linear(config.action_dim, width)
        self.observations = nn.Linear(condition_dim, width)
        self.action_positions = nn.Embedding(config.chunk_size, width)
        self.memory_positions = nn.Embedding(1 + config.n_obs_steps, width)  # the time comes first
        self.memory_mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.Mish(), nn.Linear(4 * width, width))
        self.layers = nn.ModuleList(DecoderLayer(config) for _ in range(config.n_layers))
        self.norm = nn.LayerNorm(width)
        self.output = nn.Linear(width, config.action_dim)
        for part in self.modules():
            if isinstance(part, (nn.Linear, nn.Embedding)):
                begins_by(partial(normal_, std=INITIAL_STD), part)

    def memory(self, condition: Tensor) -> list[Tensor]:
        """(B, O, C) -> keys and values (B, O, 2D) of every layer: what stays the same over the denoising steps."""
        positions = vectors(self.memory_positions, condition)[1:]
        tokens = self.memory_mlp(self.observations(condition) + positions)
        return [layer.memory_projection(tokens) for layer in self.layers]  # type: ignore[operator]

    def forward(self, sample: Tensor, time: Tensor, memory: list[Tensor]) -> Tensor:
        """(B, T, A), (B,) and `memory(condition)` -> (B, T, A)."""
        length, steps = sample.shape[1], memory[0].shape[1]
        positions = torch.arange(length, device=sample.device)
        earlier = positions[:, None] >= positions  # (T, T)
        # The time is seen by all, an observation by the actions of its step and later.
        seen = positions[:, None] >= torch.arange(-1, steps, device=sample.device).clamp(min=0)  # (T, 1 + O)
        features = sinusoidal(time, self.width).to(sample.dtype) + vectors(self.memory_positions, time, 1)[0]
        time_token = self.memory_mlp(features)[:, None]  # (B, 1, D)
        x = self.actions(sample) + vectors(self.action_positions, sample)
        for layer, of_observations in zip(self.layers, memory, strict=True):
            x = layer(x, time_token, of_observations, earlier, seen)
        output: Tensor = self.output(self.norm(x))
        return output


class DecoderLayer(GradientCheckpointingLayer):
    """Attention to earlier actions, attention to the memory, and an MLP, each after a norm."""

    def __init__(self, config: DiffusionPolicyConfig) -> None:
        super().__init__()
        width = config.hidden_size
        self.n_heads = config.n_heads
        self.attention_dropout = config.dropout
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(3))
        self.action_projection = nn.Linear(width, 3 * width)
        self.action_output = nn.Linear(width, width)
        self.query_projection = nn.Linear(width, width)
        self.memory_projection = nn.Linear(width, 2 * width)
        self.memory_output = nn.Linear(width, width)
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Dropout(config.dropout), nn.Linear(4 * width, width)
        )
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor, time_token: Tensor, memory: Tensor, earlier: Tensor, seen: Tensor) -> Tensor:
        query, key, value = self.action_projection(self.norms[0](x)).chunk(3, dim=-1)
        x = x + self.dropout(self.action_output(self._attend(query, key, value, earlier)))
        key, value = torch.cat((self.memory_projection(time_token), memory), dim=1).chunk(2, dim=-1)
        query = self.query_projection(self.norms[1](x))
        x = x + self.dropout(self.memory_output(self._attend(query, key, value, seen)))
        result: Tensor = x + self.dropout(self.mlp(self.norms[2](x)))
        return result

    def _attend(self, query: Tensor, key: Tensor, value: Tensor, seen: Tensor) -> Tensor:
        query, key, value = (self._heads(part) for part in (query, key, value))
        dropout = self.attention_dropout if self.training else 0.0
        attended = functional.scaled_dot_product_attention(query, key, value, attn_mask=seen, dropout_p=dropout)
        return attended.transpose(1, 2).flatten(2)

    def _heads(self, part: Tensor) -> Tensor:
        """(B, L, D) -> (B, N, L, D / N)."""
        return part.reshape(*part.shape[:2], self.n_heads, -1).transpose(1, 2)
