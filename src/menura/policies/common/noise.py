"""What sampling policies draw: one row's sample does not depend on the batch it sits in."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def draw_noise(shape: Sequence[int], like: Tensor, generator: Sequence[torch.Generator] | None = None) -> Tensor:
    """Standard normal noise (B, …) with the device and dtype of `like`.

    Args:
        shape: of the result, rows first.
        like: whose device and dtype.
        generator: one a row, each of which draws its own row; None draws all from PyTorch's own generator.
    """
    if generator is None:
        return torch.randn(*shape, device=like.device, dtype=like.dtype)
    if len(generator) != shape[0]:
        raise ValueError(f"noise: expected {shape[0]} generators, one a row, got {len(generator)}.")
    rows = [torch.randn(*shape[1:], generator=one, device=one.device, dtype=like.dtype) for one in generator]
    return torch.stack(rows).to(like.device)
