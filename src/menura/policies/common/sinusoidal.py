"""Numbers as sines and cosines (Vaswani et al. 2017, arXiv 1706.03762, section 3.5)."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def sinusoidal(positions: Tensor, dim: int) -> Tensor:
    """(…,) -> (…, dim) float32: sines, then cosines, of dim/2 frequencies from 1 down to 1/10000, both included."""
    half = dim // 2
    exponents = torch.arange(half, device=positions.device, dtype=torch.float32) / (half - 1)
    angles = positions.float()[..., None] * torch.exp(-math.log(10_000) * exponents)
    return torch.cat((angles.sin(), angles.cos()), dim=-1)
