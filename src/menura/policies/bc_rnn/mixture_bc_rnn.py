"""A mixture of Gaussians with diagonal covariances, as an LSTM's output says.

Shapes: … any leading axes, M modes, W numbers (a chunk's actions side by side).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional


@dataclass(frozen=True)
class Mixture:
    """Attributes: `log_weights` (…, M), which sum to 1 as probabilities; `means` and `stds` (…, M, W)."""

    log_weights: Tensor
    means: Tensor
    stds: Tensor

    def log_likelihood(self, values: Tensor, counts: Tensor) -> Tensor:
        """The log density (…) of those of `values` (…, W) that count (…, W) bool; the others are integrated out."""
        standardized = (values.unsqueeze(-2) - self.means) / self.stds
        each = -0.5 * standardized.square() - self.stds.log() - 0.5 * math.log(2 * math.pi)  # (…, M, W)
        of_modes = torch.where(counts.unsqueeze(-2), each, 0.0).sum(dim=-1)  # (…, M)
        return torch.logsumexp(self.log_weights + of_modes, dim=-1)

    def sample(self, noise: Tensor, std: float | None = None) -> Tensor:
        """(…, W) from standard normal `noise` (…, 1 + W): its first number chooses the mode, the others are around it.

        `std`: instead of each mode's own.
        """
        chance = torch.special.ndtr(noise[..., :1])  # uniform in [0, 1]
        below = self.log_weights.exp().cumsum(dim=-1)[..., :-1] < chance
        mode = below.sum(dim=-1)[..., None, None].expand(*self.means.shape[:-2], 1, self.means.shape[-1])
        mean = self.means.gather(-2, mode).squeeze(-2)
        return mean + noise[..., 1:] * (self.stds.gather(-2, mode).squeeze(-2) if std is None else std)


class MixtureHead(nn.Module):
    """(…, H) -> a `Mixture` of M Gaussians over W numbers, in float32.

    `bounded`: means in [-1, 1]. Standard deviations are a softplus, plus `min_std`.
    """

    def __init__(self, hidden_size: int, n_modes: int, width: int, *, min_std: float, bounded: bool) -> None:
        super().__init__()
        self.weights = nn.Linear(hidden_size, n_modes)
        self.means = nn.Linear(hidden_size, n_modes * width)
        self.stds = nn.Linear(hidden_size, n_modes * width)
        self.n_modes, self.min_std, self.bounded = n_modes, min_std, bounded

    def forward(self, x: Tensor) -> Mixture:
        means = self.means(x).float().unflatten(-1, (self.n_modes, -1))
        raw = self.stds(x).float().unflatten(-1, (self.n_modes, -1))
        return Mixture(
            log_weights=self.weights(x).float().log_softmax(dim=-1),
            means=means.tanh() if self.bounded else means,
            stds=functional.softplus(raw) + self.min_std,
        )
