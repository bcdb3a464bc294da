"""What `OctoPolicy` makes tokens of observations with.

Shapes: N images, H W image, n tokens, D width.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from .configuration_octo import STEM_STRIDE, OctoPolicyConfig

N_BINS = 256
N_GROUPS = 32  # of the group norms


class ImageTokenizer(nn.Module):
    """Four convolutions that halve the image each, then one token a pixel that is left (Xiao et al. 2021, arXiv
    2106.14881: early convolutions help transformers see better)."""

    def __init__(self, config: OctoPolicyConfig, image_size: Sequence[int]) -> None:
        super().__init__()
        self.image_size = list(image_size)
        self.n_tokens = (image_size[0] // STEM_STRIDE) * (image_size[1] // STEM_STRIDE)
        widths = [3, *config.stem_widths]
        self.stem = nn.Sequential()
        for before, after in pairwise(widths):
            self.stem.append(StandardizedConv2d(before, after, 3, stride=2, padding=1))
            self.stem.append(nn.GroupNorm(N_GROUPS, after, eps=1e-6))
            self.stem.append(nn.ReLU())
        self.embedding = nn.Conv2d(widths[-1], config.image_token_size, 1)
        self.projection = nn.Linear(config.image_token_size, config.hidden_size)

    def forward(self, image: Tensor) -> Tensor:
        """(N, 3, H, W) normalized -> (N, n, D)."""
        if list(image.shape[-2:]) != self.image_size:
            image = functional.interpolate(image.float(), self.image_size, mode="bilinear", antialias=True)
        pixels = image.to(self.embedding.weight.dtype, memory_format=torch.channels_last)
        maps = self.embedding(self.stem(pixels))
        tokens: Tensor = self.projection(maps.flatten(2).transpose(1, 2))
        return tokens


class StandardizedConv2d(nn.Conv2d):
    """A convolution whose weights are standardized, one output channel at a time (Qiao et al. 2019, arXiv
    1903.10520)."""

    def forward(self, input: Tensor) -> Tensor:
        weight = self.weight - self.weight.mean(dim=(1, 2, 3), keepdim=True)
        weight = weight / (weight.std(dim=(1, 2, 3), keepdim=True, unbiased=False) + 1e-5)
        output: Tensor = self._conv_forward(input, weight, self.bias)
        return output


class StateTokenizer(nn.Module):
    """Each number is one of 256 bins that are equally likely under a standard normal; one token a dimension."""

    def __init__(self, config: OctoPolicyConfig) -> None:
        super().__init__()
        self.n_tokens = config.state_dim
        self.bins = nn.Embedding(N_BINS, config.hidden_size)

    def forward(self, state: Tensor) -> Tensor:
        """(…, S) normalized -> (…, S, D)."""
        tokens: Tensor = self.bins(bins(state))
        return tokens


def bins(values: Tensor) -> Tensor:
    """The bin of each value, 0 … 255: the share of a standard normal that lies below it."""
    shares: Tensor = torch.special.ndtr(values.float())
    return (shares * N_BINS).long().clamp(0, N_BINS - 1)
