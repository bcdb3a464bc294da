"""What a module computes in."""

from __future__ import annotations

import torch
from torch import nn


def dtype_of(module: nn.Module) -> torch.dtype:
    """The dtype of its first parameter of floating point: weights of 4 or 8 bits are bytes."""
    return next((p.dtype for p in module.parameters() if p.is_floating_point()), torch.get_default_dtype())
