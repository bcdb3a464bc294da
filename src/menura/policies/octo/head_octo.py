"""The diffusion head of `OctoPolicy`: a residual MLP over a flat chunk (Hansen-Estruch et al. 2023, arXiv 2304.10573).

The condition enters the first layer linearly, so that its part is computed once a chunk.

Shapes: B batch, T chunk, A action, D width of the transformer, F time features, M width of the MLP.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from transformers.modeling_layers import GradientCheckpointingLayer

from .configuration_octo import OctoPolicyConfig


class DiffusionHead(nn.Module):
    """Noisy chunks (B, T, A) at times (B,) -> their noise (B, T, A), given what was read of the observation."""

    def __init__(self, config: OctoPolicyConfig) -> None:
        super().__init__()
        width, time_dim = config.head_size, config.time_embedding_size
        flat = config.chunk_size * config.action_dim
        self.frequencies = nn.Parameter(torch.empty(time_dim // 2))
        self.time_layers = nn.Sequential(
            nn.Linear(time_dim, 2 * time_dim), nn.SiLU(), nn.Linear(2 * time_dim, time_dim)
        )
        self.condition_input = nn.Linear(config.hidden_size, width)
        self.input = nn.Linear(time_dim + flat, width, bias=False)
        self.blocks = nn.ModuleList(ResidualBlock(width) for _ in range(config.n_head_blocks))
        self.output = nn.Sequential(nn.SiLU(), nn.Linear(width, flat))

    def reset_parameters(self) -> None:
        """Of the frequencies of time; the layers have their own."""
        nn.init.normal_(self.frequencies, std=0.2)

    def constants(self, readout: Tensor) -> Tensor:
        """(B, D) -> (B, M)."""
        constants: Tensor = self.condition_input(readout)
        return constants

    def forward(self, sample: Tensor, time: Tensor, constants: Tensor) -> Tensor:
        """(B, T, A), (B,) and (B, M) -> (B, T, A)."""
        angles = 2 * math.pi * time.float()[:, None] * self.frequencies.float()
        features = self.time_layers(torch.cat([angles.cos(), angles.sin()], dim=1).to(constants.dtype))
        x = constants + self.input(torch.cat([features, sample.flatten(1).to(constants.dtype)], dim=1))
        for block in self.blocks:
            x = block(x)
        noise: Tensor = self.output(x)
        return noise.reshape(sample.shape).to(sample.dtype)


class ResidualBlock(GradientCheckpointingLayer):
    """(B, M) -> (B, M)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.LayerNorm(width, eps=1e-6), nn.Linear(width, 4 * width), nn.SiLU(), nn.Linear(4 * width, width)
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x)  # type: ignore[no-any-return]
