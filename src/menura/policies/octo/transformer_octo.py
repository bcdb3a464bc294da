"""The transformer of `OctoPolicy`, and who attends to whom in it.

The sequence is [instruction, step 1, step 2, …], a step being [cameras, state, instruction again, readout].

Shapes: B batch, N tokens, D width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers.modeling_layers import GradientCheckpointingLayer

from .configuration_octo import OctoPolicyConfig


def block_mask(n_task: int, n_steps: int, n_observation: int, n_readout: int, device: torch.device) -> Tensor:
    """(N, N) bool: whether the row's token attends to the column's.

    The instruction attends to itself; observations to the instruction and to observations up to their own step;
    readouts to all these and to readouts up to their own step. Nothing attends to a readout but readouts: they read,
    and do not write.
    """
    step = torch.arange(n_steps, device=device).repeat_interleave(n_observation + n_readout)
    time = torch.cat([step.new_full((n_task,), -1), step])
    in_step = torch.arange(n_observation + n_readout, device=device).repeat(n_steps) >= n_observation
    readout = torch.cat([in_step.new_zeros(n_task), in_step])
    return (time[None] <= time[:, None]) & (~readout[None] | readout[:, None])


class BlockTransformer(nn.Module):
    """A pre-norm transformer encoder (ViT)."""

    def __init__(self, config: OctoPolicyConfig) -> None:
        super().__init__()
        self.layers = nn.ModuleList(OctoLayer(config) for _ in range(config.n_layers))
        self.norm = nn.LayerNorm(config.hidden_size, eps=1e-6)

    def forward(self, x: Tensor, visible: Tensor) -> Tensor:
        """(B, N, D) and (B, 1, N, N) bool, who attends to whom -> (B, N, D)."""
        for layer in self.layers:
            x = layer(x, visible)
        result: Tensor = self.norm(x)
        return result


class OctoLayer(GradientCheckpointingLayer):
    """Self-attention, then two layers."""

    def __init__(self, config: OctoPolicyConfig) -> None:
        super().__init__()
        width = config.hidden_size
        self.n_heads, self.dropout = config.n_heads, config.dropout
        self.attention_norm = nn.LayerNorm(width, eps=1e-6)
        self.queries_keys_values = nn.Linear(width, 3 * width)
        self.output = nn.Linear(width, width)
        self.feedforward_norm = nn.LayerNorm(width, eps=1e-6)
        self.feedforward = nn.Sequential(
            nn.Linear(width, config.feedforward_size),
            nn.GELU(approximate="tanh"),
            nn.Dropout(config.dropout),
            nn.Linear(config.feedforward_size, width),
            nn.Dropout(config.dropout),
        )

    def forward(self, x: Tensor, visible: Tensor) -> Tensor:
        projected = self.queries_keys_values(self.attention_norm(x))
        queries, keys, values = projected.unflatten(2, (3, self.n_heads, -1)).permute(2, 0, 3, 1, 4)  # (B, H, N, D/H)
        attended = functional.scaled_dot_product_attention(queries, keys, values, attn_mask=visible)
        attended = self.output(attended.transpose(1, 2).flatten(2))
        x = x + functional.dropout(attended, self.dropout, self.training)
        return x + self.feedforward(self.feedforward_norm(x))  # type: ignore[no-any-return]
