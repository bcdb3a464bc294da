"""An image as where a few things are in it: a ResNet, spatial softmax and a linear layer, as in robomimic, Diffusion
Policy and VQ-BeT.

Shapes: N images, H W pixels, h w of the crop, P points.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from .initialization import begins_by
from .resnet import ResNetBackbone
from .spatial_softmax import SpatialSoftmax


class KeypointEncoder(nn.Module):
    """(N, 3, H, W) normalized pixels -> (N, feature_size), none below 0.

    Args:
        backbone: feature maps of an image.
        channels: how many maps.
        n_keypoints: P, points that are looked for.
        feature_size: numbers an image becomes.
        crop_size: (h, w) of what is seen of the image: its centre, in training a place drawn for each image; None sees
            all of it.
        crop_is_random: False: in training too what is seen is the centre.
        resize_shape: (height, width) that images are resized to before; None leaves them as they are.
    """

    def __init__(
        self,
        backbone: ResNetBackbone,
        channels: int,
        n_keypoints: int,
        feature_size: int,
        crop_size: Sequence[int] | None = None,
        *,
        crop_is_random: bool = True,
        resize_shape: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.keypoints = SpatialSoftmax(channels, n_keypoints)
        self.projection = begins_by(nn.Linear.reset_parameters, nn.Linear(2 * n_keypoints, feature_size))
        self.crop_size = crop_size
        self.crop_is_random = crop_is_random
        self.resize_shape = None if resize_shape is None else list(resize_shape)

    def forward(self, image: Tensor) -> Tensor:
        if self.resize_shape is not None:
            image = functional.interpolate(image, self.resize_shape, mode="bilinear", antialias=True)
        if self.crop_size is not None:
            crop = random_crop if self.training and self.crop_is_random else center_crop
            image = crop(image, *self.crop_size)
        features: Tensor = self.projection(self.keypoints(self.backbone(image))).relu()
        return features


def center_crop(image: Tensor, height: int, width: int) -> Tensor:
    """(N, 3, H, W) -> (N, 3, h, w); half a pixel goes to the even side, as in torchvision."""
    top, left = round((image.shape[-2] - height) / 2), round((image.shape[-1] - width) / 2)
    return image[..., top : top + height, left : left + width]


def random_crop(image: Tensor, height: int, width: int) -> Tensor:
    """(N, 3, H, W) -> (N, 3, h, w), each image at a place of its own."""
    count, device = len(image), image.device
    top = torch.randint(image.shape[-2] - height + 1, (count, 1), device=device)
    left = torch.randint(image.shape[-1] - width + 1, (count, 1), device=device)
    rows = (top + torch.arange(height, device=device))[:, :, None]  # (N, h, 1)
    columns = (left + torch.arange(width, device=device))[:, None, :]  # (N, 1, w)
    numbers = torch.arange(count, device=device)[:, None, None]
    return image.permute(0, 2, 3, 1)[numbers, rows, columns].permute(0, 3, 1, 2)
