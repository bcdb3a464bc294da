"""Convolutions with the channels last in memory, which is how images come and what processors compute fastest.

Numbers, shapes and what is saved are the same; only the order in memory is another.
"""

from __future__ import annotations

import torch
from torch import nn


def convolve_channels_last(policy: nn.Module) -> None:
    """Lay the weights of 2-D convolutions out channels-last, once, instead of at every step."""
    for module in policy.modules():
        if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
            module.weight.data = module.weight.data.contiguous(memory_format=torch.channels_last)


def lay_out_as_parameters(optimizer: torch.optim.Optimizer) -> None:
    """Lay loaded moments out as the parameters they belong to are: fused optimizers read both in one sweep."""
    for parameter, state in optimizer.state.items():
        for name, value in state.items():
            if isinstance(value, torch.Tensor) and value.shape == parameter.shape:
                state[name] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)
