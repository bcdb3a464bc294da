"""Where in an image a feature is: Levine et al. 2016 (arXiv 1504.00702), Finn et al. 2016 (arXiv 1509.06113).

Shapes: N images, C feature maps, P points, H W of a map.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class SpatialSoftmax(nn.Module):
    """Feature maps (N, C, H, W) -> P points as (N, 2P), each the mean of one combination of the maps."""

    def __init__(self, channels: int, n_points: int) -> None:
        super().__init__()
        self.projection = nn.Conv2d(channels, n_points, 1)

    def forward(self, maps: Tensor) -> Tensor:
        return spatial_softmax(self.projection(maps))


def spatial_softmax(maps: Tensor) -> Tensor:
    """The mean position (x, y), each in [-1, 1], of every map's softmax: (N, C, H, W) -> (N, 2C).

    It is computed in float32, which positions need, and given in the dtype of the maps.
    """
    height, width = maps.shape[-2:]
    weights = maps.flatten(2).float().softmax(dim=-1).unflatten(2, (height, width))  # type: ignore[no-untyped-call]
    x = (weights.sum(dim=2) * torch.linspace(-1, 1, width, device=maps.device)).sum(dim=-1)  # (N, C)
    y = (weights.sum(dim=3) * torch.linspace(-1, 1, height, device=maps.device)).sum(dim=-1)
    return torch.stack((x, y), dim=-1).flatten(1).to(maps.dtype)
