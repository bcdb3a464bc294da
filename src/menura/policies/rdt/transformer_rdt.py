"""The transformer of `RDTPolicy`: tokens of time, frequency, state and actions attend to language and images in turn.

Names and order follow `models/rdt/` of the authors' code, so that their weights fit by renaming alone.

Shapes: B batch, N tokens, M condition tokens, T chunk, D width, H heads, U unified vector.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers.modeling_layers import GradientCheckpointingLayer

from ..common.dtypes import dtype_of
from ..common.initialization import begins_by, normal_
from .configuration_rdt import RDTPolicyConfig

N_WAVES = 128  # of a time or frequency: as many sines and cosines

_small_ = partial(normal_, std=0.02)

KeysValues = tuple[Tensor, Tensor, Tensor | None]


@dataclass(frozen=True)
class Condition:
    """All that is constant over the denoising steps of a chunk.

    Attributes:
        prefix: (B, 2, D), the tokens of frequency and state.
        memories: of each block, keys and values (B, H, M, D/H) and which are there (B, M), None for all; None for a
            block without a condition.
        indicator: (B, U), 1 for the places of the unified vector that the actions have.
    """

    prefix: Tensor
    memories: list[KeysValues | None]
    indicator: Tensor


class VarianceNorm(nn.Module):
    """x / √(var(x) + ε), scaled.

    What the authors call RMSNorm is `RmsNorm` of timm 1.0.3, which divides by the deviation from the mean (with n - 1),
    and not by the root of the mean square. Their weights were trained with it.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        variance = x.float().var(dim=-1, keepdim=True)
        return (x.float() * torch.rsqrt(variance + 1e-6)).to(x.dtype) * self.weight


class RDTTransformer(nn.Module):
    """Noisy action tokens -> (B, T, U), the actions without noise."""

    def __init__(self, config: RDTPolicyConfig, image_tokens: tuple[int, int, int]) -> None:
        """`image_tokens`: observations, cameras and tokens of an image; no cameras: no images."""
        super().__init__()
        width = config.hidden_size
        self.chunk_size, self.width, self.image_tokens = config.chunk_size, width, image_tokens
        self.time_embedder = WaveEmbedder(width)
        self.frequency_embedder = WaveEmbedder(width)
        self.positions = nn.Parameter(torch.empty(3 + config.chunk_size, width))
        self.language_positions = nn.Parameter(torch.empty(config.n_language_positions, width))
        with_images = math.prod(image_tokens) > 0
        self.image_positions = nn.Parameter(torch.empty(math.prod(image_tokens), width)) if with_images else None
        self.blocks = nn.ModuleList(
            RDTBlock(width, config.n_heads, conditioned=with_images or i % 2 == 0) for i in range(config.n_layers)
        )
        self.final_norm = VarianceNorm(width)
        self.final_layers = Feedforward(width, config.unified_dim)
        begins_by(_small_, self.final_layers.outer)

    def reset_parameters(self) -> None:
        """Positions begin as sines and cosines: of tokens half for their kind (time, frequency, state, action), half
        for the place in the chunk; of images half for the observation, half for the camera; of language all alike,
        since the text encoder knows of positions."""
        half = self.width // 2
        kinds = sines_cosines(torch.tensor([0, 1, 2] + [3] * self.chunk_size), half)
        places = sines_cosines(torch.tensor([0, 0, 0, *range(self.chunk_size)]), half)
        with torch.no_grad():
            self.positions.copy_(torch.cat([kinds, places], dim=1))
            self.language_positions.copy_(sines_cosines(torch.zeros(len(self.language_positions)), self.width))
            if self.image_positions is not None:
                self.image_positions.copy_(image_positions(self.image_tokens, self.width))

    def memories(
        self, language: Tensor, language_there: Tensor, images: Tensor | None, images_there: Tensor | None
    ) -> list[KeysValues | None]:
        """Keys and values of each block, from the condition tokens (B, M, D) and which are there (B, M)."""
        language = language + self.language_positions[: language.shape[1]]
        if images is not None and self.image_positions is not None:
            images = images + self.image_positions
        memories: list[KeysValues | None] = []
        block: Any
        for i, block in enumerate(self.blocks):
            tokens, there = (language, language_there) if i % 2 == 0 else (images, images_there)
            memories.append(None if tokens is None else (*block.cross_attention.keys_values(tokens), there))
        return memories

    def forward(self, actions: Tensor, time: Tensor, condition: Condition) -> Tensor:
        """Action tokens (B, T, D) at diffusion times (B,) -> (B, T, U)."""
        x = torch.cat([self.time_embedder(time)[:, None], condition.prefix, actions], dim=1) + self.positions
        for block, memory in zip(self.blocks, condition.memories, strict=True):
            x = block(x, memory)
        clean: Tensor = self.final_layers(self.final_norm(x[:, -self.chunk_size :]))
        return clean


class RDTBlock(GradientCheckpointingLayer):
    """Tokens attend to each other, then to a condition, then go through two layers."""

    def __init__(self, width: int, n_heads: int, conditioned: bool) -> None:
        super().__init__()
        self.self_attention_norm = VarianceNorm(width)
        self.self_attention = SelfAttention(width, n_heads)
        self.cross_attention_norm = VarianceNorm(width) if conditioned else None
        self.cross_attention = CrossAttention(width, n_heads) if conditioned else None
        self.feedforward_norm = VarianceNorm(width)
        self.feedforward = Feedforward(width, width)

    def forward(self, x: Tensor, memory: KeysValues | None) -> Tensor:
        x = x + self.self_attention(self.self_attention_norm(x))
        if self.cross_attention is not None and self.cross_attention_norm is not None and memory is not None:
            x = x + self.cross_attention(self.cross_attention_norm(x), *memory)
        return x + self.feedforward(self.feedforward_norm(x))  # type: ignore[no-any-return]


class SelfAttention(nn.Module):
    """Queries and keys are normalized in each head."""

    def __init__(self, width: int, n_heads: int) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.queries_keys_values = nn.Linear(width, 3 * width)
        self.query_norm = VarianceNorm(width // n_heads)
        self.key_norm = VarianceNorm(width // n_heads)
        self.output = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, D) -> (B, N, D)."""
        queries, keys, values = (heads(part, self.n_heads) for part in self.queries_keys_values(x).chunk(3, dim=-1))
        attended = functional.scaled_dot_product_attention(self.query_norm(queries), self.key_norm(keys), values)
        return self.output(attended.transpose(1, 2).flatten(2))  # type: ignore[no-any-return]


class CrossAttention(nn.Module):
    """As `SelfAttention`, of tokens to keys and values made beforehand."""

    def __init__(self, width: int, n_heads: int) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.queries = nn.Linear(width, width)
        self.projected = nn.Linear(width, 2 * width)
        self.query_norm = VarianceNorm(width // n_heads)
        self.key_norm = VarianceNorm(width // n_heads)
        self.output = nn.Linear(width, width)

    def keys_values(self, memory: Tensor) -> tuple[Tensor, Tensor]:
        """(B, M, D) -> twice (B, H, M, D/H)."""
        keys, values = (heads(part, self.n_heads) for part in self.projected(memory).chunk(2, dim=-1))
        return self.key_norm(keys), values

    def forward(self, x: Tensor, keys: Tensor, values: Tensor, there: Tensor | None) -> Tensor:
        """(B, N, D) -> (B, N, D); a row of which nothing is `there` (B, M) attends to nothing."""
        queries = self.query_norm(heads(self.queries(x), self.n_heads))
        if there is None:
            attended = functional.scaled_dot_product_attention(queries, keys, values)
        else:
            any_there = there.any(dim=1)[:, None, None, None]
            visible = there[:, None, None] | ~any_there  # all, since attention to nothing is not a number
            attended = functional.scaled_dot_product_attention(queries, keys, values, attn_mask=visible) * any_there
        return self.output(attended.transpose(1, 2).flatten(2))  # type: ignore[no-any-return]


class Feedforward(nn.Module):
    """Two layers, the hidden one no wider than the input."""

    def __init__(self, width: int, out_width: int) -> None:
        super().__init__()
        self.inner = nn.Linear(width, width)
        self.outer = nn.Linear(width, out_width)

    def forward(self, x: Tensor) -> Tensor:
        return self.outer(functional.gelu(self.inner(x), approximate="tanh"))  # type: ignore[no-any-return]


class WaveEmbedder(nn.Module):
    """Numbers (B,) -> (B, D): cosines and sines, then two layers."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.inner = begins_by(_small_, nn.Linear(2 * N_WAVES, width))
        self.outer = begins_by(_small_, nn.Linear(width, width))

    def forward(self, numbers: Tensor) -> Tensor:
        exponents = torch.arange(N_WAVES, device=numbers.device, dtype=torch.float32) / N_WAVES
        angles = numbers.float()[:, None] * torch.exp(-math.log(10_000) * exponents)
        waves = torch.cat([angles.cos(), angles.sin()], dim=-1).to(dtype_of(self.inner))
        return self.outer(functional.silu(self.inner(waves)))  # type: ignore[no-any-return]


def sines_cosines(positions: Tensor, dim: int) -> Tensor:
    """(N,) -> (N, dim): sines, then cosines, of dim/2 frequencies from 1 down towards 1/10000."""
    exponents = torch.arange(dim // 2, dtype=torch.float64) / (dim // 2)
    angles = positions.double()[:, None] * 10_000.0**-exponents
    return torch.cat([angles.sin(), angles.cos()], dim=1).float()


def image_positions(tokens: Sequence[int], width: int) -> Tensor:
    """(O·K·n, width): equal shares for the observation and the camera, where there are several; none within an image,
    whose encoder knows of positions."""
    observations, cameras, _ = tokens
    several = [axis for axis in (0, 1) if tokens[axis] > 1]
    result = torch.zeros(*tokens, width)
    share = width // max(len(several), 1) // 2 * 2
    for i, axis in enumerate(several):
        waves = sines_cosines(torch.arange(tokens[axis]), share)
        shape = (observations, 1, 1, share) if axis == 0 else (1, cameras, 1, share)
        result[..., i * share : (i + 1) * share] = waves.reshape(shape)
    return result.flatten(0, 2)


def heads(x: Tensor, n_heads: int) -> Tensor:
    """(B, N, D) -> (B, H, N, D/H)."""
    return x.unflatten(-1, (n_heads, -1)).transpose(1, 2)  # type: ignore[no-untyped-call,no-any-return]
