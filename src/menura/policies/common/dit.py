"""A diffusion transformer over action chunks: adaLN-Zero (Peebles & Xie 2023, arXiv 2212.09748).

Shifts, scales and gates are linear in the features of the time and of the condition, side by side, so that the
condition's part is computed once a chunk and only the time's at each denoising step.

Shapes: B batch, T chunk, A action, L tokens (T / patch_size), N memory tokens, D width, C condition, F time features,
H heads, P parts of a modulation.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers.modeling_layers import GradientCheckpointingLayer

from .dtypes import dtype_of
from .initialization import begins_by, zeros_
from .learned import vectors
from .sinusoidal import sinusoidal


class Constants(NamedTuple):
    """What stays the same over the denoising steps of a chunk.

    Attributes:
        modulations: the condition's part (B, P·D) for each block, and one more for the output where it has a norm.
        memory: keys and values (B, H, N, D/H) for each block; empty without a memory.
        visible: (B, 1, 1, N) true for what of the memory is there; None for all.
        rotation: cosines and sines (2, L, D/H) of rotary positions; None without.
    """

    modulations: list[Tensor]
    memory: list[tuple[Tensor, Tensor]]
    visible: Tensor | None
    rotation: Tensor | None


class DiT(nn.Module):
    """Noisy chunks (B, T, A) and times (B,) -> what is predicted of them (B, T, A).

    Args:
        action_dim: A.
        length: T.
        width: D.
        n_layers: blocks.
        n_heads: attention heads of a block.
        condition_dim: C, of the vector that modulates the blocks.
        time_dim: F.
        time_scale: as in `TimeFeatures`.
        patch_size: actions that make one token, a divisor of T.
        memory: whether every block attends to a memory (B, N, D) as well.
        rotary: rotary positions (Su et al. 2021, arXiv 2104.09864) of the tokens.
        learned_positions: learned positions of the tokens; both, or neither, may be had.
        output_norm: a last modulated norm, and an output that is 0 at first, as in the paper; False: a plain layer.
        dropout: share dropped of attention weights and of hidden features in training.
    """

    def __init__(
        self,
        action_dim: int,
        length: int,
        width: int,
        n_layers: int,
        n_heads: int,
        condition_dim: int,
        *,
        time_dim: int = 256,
        time_scale: float = 1000.0,
        patch_size: int = 1,
        memory: bool = False,
        rotary: bool = True,
        learned_positions: bool = False,
        output_norm: bool = True,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.action_dim, self.patch_size = action_dim, patch_size
        self.n_tokens, self.head_dim, self.rotary = length // patch_size, width // n_heads, rotary
        self.time_features = TimeFeatures(time_dim, time_scale)
        self.input = nn.Linear(patch_size * action_dim, width)
        self.positions = nn.Embedding(self.n_tokens, width) if learned_positions else None
        self.blocks = nn.ModuleList(
            DiTBlock(width, n_heads, time_dim, condition_dim, memory, dropout) for _ in range(n_layers)
        )
        self.output_norm = ModulatedNorm(width) if output_norm else None
        self.output_modulation = Modulation(2, width, time_dim, condition_dim) if output_norm else None
        self.output = nn.Linear(width, patch_size * action_dim)
        if output_norm:
            begins_by(zeros_, self.output)

    def constants(self, condition: Tensor, memory: Tensor | None = None, visible: Tensor | None = None) -> Constants:
        """What `forward` needs of the condition (B, C) and of the memory (B, N, D), of which `visible` (B, N) is
        there."""
        condition = functional.silu(condition)
        blocks: list[Any] = list(self.blocks)
        modulations = [block.modulation.condition(condition) for block in blocks]
        if self.output_modulation is not None:
            modulations.append(self.output_modulation.condition(condition))
        return Constants(
            modulations=modulations,
            memory=[] if memory is None else [block.cross_attention.keys_values(memory) for block in blocks],
            visible=None if visible is None else visible[:, None, None],
            rotation=rotation(self.n_tokens, self.head_dim, like=condition) if self.rotary else None,
        )

    def forward(self, sample: Tensor, time: Tensor, constants: Constants) -> Tensor:
        """(B, T, A) and (B,) -> (B, T, A), in the dtype of `sample`."""
        time = functional.silu(self.time_features(time))
        x = self.input(sample.reshape(len(sample), self.n_tokens, -1).to(dtype_of(self.input)))
        if self.positions is not None:
            x = x + vectors(self.positions, x)
        for i, block in enumerate(self.blocks):
            memory = constants.memory[i] if constants.memory else None
            x = block(x, time, constants.modulations[i], memory, constants.visible, constants.rotation)
        if self.output_norm is not None and self.output_modulation is not None:
            x = self.output_norm(x, *self.output_modulation(time, constants.modulations[-1]))
        return self.output(x).reshape(sample.shape).to(sample.dtype)  # type: ignore[no-any-return]


class DiTBlock(GradientCheckpointingLayer):
    """Tokens attend to one another, then to the memory where there is one, then each goes through two layers.

    Every part is normalized and modulated first, and added through a gate that is closed at first.
    """

    def __init__(
        self, width: int, n_heads: int, time_dim: int, condition_dim: int, memory: bool, dropout: float
    ) -> None:
        super().__init__()
        self.modulation = Modulation(9 if memory else 6, width, time_dim, condition_dim)
        self.norm = ModulatedNorm(width)
        self.attention = SelfAttention(width, n_heads, dropout)
        self.cross_attention = CrossAttention(width, n_heads, dropout) if memory else None
        self.feedforward = nn.Sequential(
            nn.Linear(width, 4 * width),
            nn.GELU(approximate="tanh"),
            nn.Dropout(dropout),
            nn.Linear(4 * width, width),
        )

    def forward(
        self,
        x: Tensor,
        time: Tensor,
        constant: Tensor,
        memory: tuple[Tensor, Tensor] | None = None,
        visible: Tensor | None = None,
        rotation: Tensor | None = None,
    ) -> Tensor:
        """(B, L, D), the time's features (B, F), and the block's constants -> (B, L, D)."""
        shift, scale, gate, *parts = self.modulation(time, constant)
        x = x + gate * self.attention(self.norm(x, shift, scale), rotation)
        if self.cross_attention is not None and memory is not None:
            shift, scale, gate, *parts = parts
            x = x + gate * self.cross_attention(self.norm(x, shift, scale), memory, visible)
        shift, scale, gate = parts
        mixed: Tensor = x + gate * self.feedforward(self.norm(x, shift, scale))
        return mixed


class SelfAttention(nn.Module):
    """Every token attends to all."""

    def __init__(self, width: int, n_heads: int, dropout: float) -> None:
        super().__init__()
        self.n_heads, self.dropout = n_heads, dropout
        self.queries_keys_values = nn.Linear(width, 3 * width)
        self.output = nn.Linear(width, width)

    def forward(self, x: Tensor, rotation: Tensor | None) -> Tensor:
        """(B, L, D) -> (B, L, D)."""
        queries, keys, values = (_heads(part, self.n_heads) for part in self.queries_keys_values(x).chunk(3, dim=-1))
        if rotation is not None:
            queries, keys = rotate(queries, rotation), rotate(keys, rotation)
        dropout = self.dropout if self.training else 0.0
        attended = functional.scaled_dot_product_attention(queries, keys, values, dropout_p=dropout)
        return self.output(attended.transpose(1, 2).flatten(2))  # type: ignore[no-any-return]


class CrossAttention(nn.Module):
    """Every token attends to a memory, whose keys and values are made beforehand."""

    def __init__(self, width: int, n_heads: int, dropout: float) -> None:
        super().__init__()
        self.n_heads, self.dropout = n_heads, dropout
        self.queries = nn.Linear(width, width)
        self.keys = nn.Linear(width, width)
        self.values = nn.Linear(width, width)
        self.output = nn.Linear(width, width)

    def keys_values(self, memory: Tensor) -> tuple[Tensor, Tensor]:
        """(B, N, D) -> keys and values, each (B, H, N, D/H)."""
        return _heads(self.keys(memory), self.n_heads), _heads(self.values(memory), self.n_heads)

    def forward(self, x: Tensor, memory: tuple[Tensor, Tensor], visible: Tensor | None) -> Tensor:
        """(B, L, D) asks keys and values, of which `visible` (B, 1, 1, N) is there -> (B, L, D)."""
        dropout = self.dropout if self.training else 0.0
        queries = _heads(self.queries(x), self.n_heads)
        attended = functional.scaled_dot_product_attention(queries, *memory, attn_mask=visible, dropout_p=dropout)
        return self.output(attended.transpose(1, 2).flatten(2))  # type: ignore[no-any-return]


class ModulatedNorm(nn.Module):
    """A layer norm without weights of its own, then scaled and shifted."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, elementwise_affine=False, eps=1e-6)

    def forward(self, x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
        """(B, L, D), (B, 1, D) and (B, 1, D) -> (B, L, D)."""
        return torch.addcmul(shift, self.norm(x), 1 + scale)


class Modulation(nn.Module):
    """P shifts, scales and gates from the features of time and condition, all 0 at first."""

    def __init__(self, parts: int, width: int, time_dim: int, condition_dim: int) -> None:
        super().__init__()
        self.parts = parts
        self.time = begins_by(zeros_, nn.Linear(time_dim, parts * width))
        self.condition = begins_by(zeros_, nn.Linear(condition_dim, parts * width, bias=False))

    def forward(self, time: Tensor, constant: Tensor) -> tuple[Tensor, ...]:
        """The time's features (B, F) and the condition's part (B, P·D) -> P of (B, 1, D)."""
        both: Tensor = self.time(time) + constant
        return both[:, None].chunk(self.parts, dim=-1)


class TimeFeatures(nn.Module):
    """Times (B,) -> (B, F): sines and cosines, then two layers.

    Args:
        dim: F, even and at least 4.
        scale: what times are multiplied by first: 1000 spreads [0, 1] over the waves as steps of diffusion are.
    """

    def __init__(self, dim: int, scale: float = 1.0) -> None:
        super().__init__()
        self.dim, self.scale = dim, scale
        self.layers = nn.Sequential(nn.Linear(dim, 2 * dim), nn.GELU(), nn.Linear(2 * dim, dim), nn.GELU())

    def forward(self, time: Tensor) -> Tensor:
        waves = sinusoidal(self.scale * time.float(), self.dim)
        features: Tensor = self.layers(waves.to(dtype_of(self)))
        return features


def rotation(length: int, head_dim: int, like: Tensor, base: float = 10_000.0) -> Tensor:
    """Cosines and sines (2, length, head_dim) of rotary positions 0 … length - 1, computed in float32."""
    positions = torch.arange(length, device=like.device, dtype=torch.float32)
    exponents = torch.arange(0, head_dim, 2, device=like.device, dtype=torch.float32) / head_dim
    angles = torch.outer(positions, torch.pow(base, -exponents)).repeat(1, 2)
    return torch.stack((angles.cos(), angles.sin())).to(like.dtype)


def rotate(x: Tensor, rotation: Tensor) -> Tensor:
    """(…, L, head_dim) turned by rotary positions: dimension i and i + head_dim/2 make a plane."""
    cosine, sine = rotation
    first, second = x.chunk(2, dim=-1)
    turned: Tensor = x * cosine + torch.cat((-second, first), dim=-1) * sine
    return turned


def _heads(x: Tensor, n_heads: int) -> Tensor:
    """(B, L, D) -> (B, H, L, D/H)."""
    return x.reshape(*x.shape[:-1], n_heads, -1).transpose(1, 2)
