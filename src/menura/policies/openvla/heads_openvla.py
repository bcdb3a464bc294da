"""How OpenVLA answers: actions as tokens, or by the heads of OpenVLA-OFT (Kim et al. 2025, arXiv 2502.19645).

Shapes: B batch, T chunk, A action, D width of the language model.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


class ActionBins:
    """Actions in [-1, 1] and the tokens that say them: bin i is the token `end` - 1 - i.

    As in the original (`action_tokenizer.py`) there are as many bounds as bins, so that the last bin holds 1 alone and
    is answered as the one before it.

    Args:
        n_bins: of one dimension.
        end: one past the last action token.
    """

    def __init__(self, n_bins: int, end: int) -> None:
        self.n_bins = n_bins
        self.end = end

    def ids(self, actions: Tensor) -> Tensor:
        """(…) in [-1, 1], clipped to it -> token ids (…) int64."""
        bounds = self._bounds(actions.device)
        bins = torch.bucketize(actions.to(bounds.dtype).clamp(-1, 1), bounds, right=True) - 1
        return self.token_of(bins)

    def values(self, bins: Tensor) -> Tensor:
        """(…) 0 to `n_bins` - 1 -> the middles of the bins (…) float32."""
        bounds = self._bounds(bins.device)
        middles = (bounds[:-1] + bounds[1:]) / 2
        return middles[bins.clamp(max=self.n_bins - 2)].float()

    def token_of(self, bins: Tensor) -> Tensor:
        return self.end - 1 - bins

    def _bounds(self, device: torch.device) -> Tensor:
        precise = torch.float32 if device.type == "mps" else torch.float64
        return torch.linspace(-1, 1, self.n_bins, dtype=precise, device=device)


class MLPResNet(nn.Module):
    """(B, T, `width_in`) -> (B, T, `width_out`): OFT's head for numbers (`action_heads.py`), two residual blocks."""

    def __init__(self, width_in: int, width: int, width_out: int) -> None:
        super().__init__()
        self.norm_in = nn.LayerNorm(width_in)
        self.fc_in = nn.Linear(width_in, width)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width), nn.ReLU()) for _ in range(2)
        )
        self.norm_out = nn.LayerNorm(width)
        self.fc_out = nn.Linear(width, width_out)

    def forward(self, x: Tensor) -> Tensor:
        x = nn.functional.relu(self.fc_in(self.norm_in(x)))
        for block in self.blocks:
            x = x + block(x)
        answer: Tensor = self.fc_out(self.norm_out(x))
        return answer


class ToLanguage(nn.Module):
    """Numbers (…, `width_in`) as tokens (…, D): how OFT reads the state and noisy actions (`projectors.py`)."""

    def __init__(self, width_in: int, width: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width_in, width)
        self.fc2 = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        token: Tensor = self.fc2(nn.functional.gelu(self.fc1(x)))
        return token


def time_token(time: Tensor, width: int) -> Tensor:
    """Sines and cosines (B, `width`) float32 of a diffusion time (B,) (`action_heads.py`)."""
    half = width // 2
    rates = torch.exp(torch.arange(half, device=time.device) * (-math.log(10000) / (half - 1)))
    angles = time[:, None].float() * rates
    return torch.cat((angles.sin(), angles.cos()), dim=-1)
