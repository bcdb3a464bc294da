"""The conditional 1-D U-Net over action chunks of Diffusion Policy (Chi et al. 2023, arXiv 2303.04137, DP-C).

Convolutions over time, modulated by FiLM (Perez et al. 2018, arXiv 1709.07871). FiLM is linear in the features of the
denoising time and of the condition, side by side, so that the condition's part is computed once a chunk and all blocks
share one matrix product.

Shapes: B batch, T chunk, A action, C condition, F modulations of all blocks, D channels, L steps (T, halved by level).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers.modeling_layers import GradientCheckpointingLayer

from .convolutions import ShortConv1d, ShortConvTranspose1d
from .initialization import begins_by, uniform_
from .sinusoidal import sinusoidal

#: Of the last block, whatever `n_groups` says, in the authors' code (`conditional_unet1d.py`) and in LeRobot's.
LAST_GROUPS = 8


class ConditionalUNet(nn.Module):
    """Noisy chunks (B, T, A) and times (B,) -> what is predicted of them (B, T, A), given modulations.

    Args:
        action_dim: A.
        condition_dim: C.
        widths: channels of each level; between two the steps are halved, and a chunk of any length will do.
        kernel_size: of the convolutions, odd.
        n_groups: of the group norms, a divisor of every width.
        time_dim: width of the features of the denoising time.
        film_scale: FiLM scales as well as shifts.

    Raises:
        ValueError: widths and groups, or a kernel, that do not fit.
    """

    def __init__(
        self,
        action_dim: int,
        condition_dim: int,
        widths: Sequence[int] = (512, 1024, 2048),
        kernel_size: int = 5,
        n_groups: int = 8,
        time_dim: int = 128,
        film_scale: bool = True,
    ) -> None:
        super().__init__()
        if any(width % n_groups for width in widths) or widths[0] % LAST_GROUPS:
            raise ValueError(f"expected widths to be multiples of {n_groups} and of {LAST_GROUPS}, got {list(widths)}")
        if kernel_size % 2 == 0:
            raise ValueError(f"expected kernel_size to be odd, got {kernel_size}")

        def block(before: int, after: int) -> ResidualBlock:
            return ResidualBlock(before, after, kernel_size, n_groups, film_scale)

        levels = list(pairwise((action_dim, *widths)))
        self.time_features = TimeFeatures(time_dim)
        self.down = nn.ModuleList(
            Level(block(before, after), block(after, after), None if i == len(levels) - 1 else halving(after))
            for i, (before, after) in enumerate(levels)
        )
        self.middle = Level(block(widths[-1], widths[-1]), block(widths[-1], widths[-1]))
        # A level reads what the level above it left and what its own way down did.
        self.up = nn.ModuleList(
            Level(block(2 * after, before), block(before, before), doubling(before))
            for before, after in reversed(levels[1:])
        )
        self.last = ConvolutionBlock(widths[0], widths[0], kernel_size, LAST_GROUPS)
        self.output = ShortConv1d(widths[0], action_dim, 1)
        blocks = [b for level in (*self.down, self.middle, *self.up) for b in (level.first, level.second)]
        self.film_widths = [b.film_width for b in blocks]
        self.film = FiLM(time_dim, condition_dim, sum(self.film_widths))

    def modulation(self, condition: Tensor) -> Tensor:
        """(B, C) -> (B, F): the part of all blocks' FiLM that stays the same over the denoising steps."""
        modulation: Tensor = self.film.condition(functional.mish(condition))
        return modulation

    def forward(self, sample: Tensor, time: Tensor, modulation: Tensor) -> Tensor:
        """(B, T, A), (B,) and `modulation(condition)` (B, F) -> (B, T, A)."""
        features = self.time_features(time, sample.dtype)
        film = modulation + self.film.time(functional.mish(features))  # (B, F)
        parts = iter(film.unsqueeze(-1).split(self.film_widths, dim=1))

        x = sample.transpose(1, 2)  # (B, A, T)
        skipped: list[Tensor] = []
        for level in self.down:
            before, x = level(x, next(parts), next(parts))
            skipped.append(before)
        x, _ = self.middle(x, next(parts), next(parts))
        for level in self.up:
            _, x = level(torch.cat((x, skipped.pop()), dim=1), next(parts), next(parts))
            # Halving rounds up: a length that is no multiple is cut to that of the level it meets.
            x = x[..., : skipped[-1].shape[-1]]
        output: Tensor = self.output(self.last(x))
        return output.transpose(1, 2)


class Level(nn.Module):
    """Two blocks of one width, and the convolution to the next level's length, where there is one."""

    def __init__(self, first: ResidualBlock, second: ResidualBlock, resample: nn.Module | None = None) -> None:
        super().__init__()
        self.first = first
        self.second = second
        self.resample = nn.Identity() if resample is None else resample

    def forward(self, x: Tensor, first_film: Tensor, second_film: Tensor) -> tuple[Tensor, Tensor]:
        """(B, D, L) -> what the blocks make of it, and that at the next level's length."""
        x = self.second(self.first(x, first_film), second_film)
        return x, self.resample(x)


class ResidualBlock(GradientCheckpointingLayer):
    """Two convolutions, the first one's result modulated, and a way around them."""

    def __init__(self, before: int, after: int, kernel_size: int, n_groups: int, film_scale: bool) -> None:
        super().__init__()
        self.first = ConvolutionBlock(before, after, kernel_size, n_groups)
        self.second = ConvolutionBlock(after, after, kernel_size, n_groups)
        self.around = nn.Identity() if before == after else ShortConv1d(before, after, 1)
        self.film_scale = film_scale
        self.film_width = 2 * after if film_scale else after

    def forward(self, x: Tensor, film: Tensor) -> Tensor:
        """(B, D, L) and the block's part of FiLM (B, D or 2D, 1) -> (B, D', L)."""
        hidden = self.first(x)
        if self.film_scale:
            scale, shift = film.chunk(2, dim=1)
            hidden = torch.addcmul(shift, scale, hidden)
        else:
            hidden = hidden + film
        result: Tensor = self.second(hidden) + self.around(x)
        return result


class ConvolutionBlock(nn.Sequential):
    """Convolution, group norm, Mish."""

    def __init__(self, before: int, after: int, kernel_size: int, n_groups: int) -> None:
        convolution = ShortConv1d(before, after, kernel_size, padding=kernel_size // 2)
        super().__init__(convolution, nn.GroupNorm(n_groups, after), nn.Mish())


class FiLM(nn.Module):
    """The modulations of all blocks: a linear layer over [time, condition], kept as the two parts it is the sum of."""

    def __init__(self, time_dim: int, condition_dim: int, width: int) -> None:
        super().__init__()
        as_one = partial(uniform_, bound=(time_dim + condition_dim) ** -0.5)  # PyTorch's own of the two together
        self.time = begins_by(as_one, nn.Linear(time_dim, width, bias=False))
        self.condition = begins_by(as_one, nn.Linear(condition_dim, width))


class TimeFeatures(nn.Sequential):
    """Denoising times (B,) -> features (B, D): sines and cosines, and an MLP on them."""

    def __init__(self, width: int) -> None:
        super().__init__(nn.Linear(width, 4 * width), nn.Mish(), nn.Linear(4 * width, width))
        self.width = width

    def forward(self, time: Tensor, dtype: torch.dtype) -> Tensor:  # type: ignore[override]
        features: Tensor = super().forward(sinusoidal(time, self.width).to(dtype))  # type: ignore[no-untyped-call]
        return features


def halving(width: int) -> ShortConv1d:
    """(B, D, L) -> (B, D, ceil(L / 2))."""
    return ShortConv1d(width, width, 3, stride=2, padding=1)


def doubling(width: int) -> ShortConvTranspose1d:
    """(B, D, L) -> (B, D, 2L)."""
    return ShortConvTranspose1d(width, width, 4, stride=2, padding=1)
