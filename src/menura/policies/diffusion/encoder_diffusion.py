"""What `DiffusionPolicy` makes of its observations: the state, and image points of every camera.

Shapes: B batch, O observation steps, K cameras, H W image, D state, P points, C condition of one step.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..common.resnet import ResNetBackbone
from ..common.spatial_softmax import SpatialSoftmax
from .configuration_diffusion import DiffusionPolicyConfig


class ObservationEncoder(nn.Module):
    """States (B, [O,] D) and images (B, [O,] K, 3, H, W) -> (B, O, C): the state, then each camera's features."""

    def __init__(self, config: DiffusionPolicyConfig) -> None:
        super().__init__()
        self.state_dim = config.state_dim
        self.n_cameras = len(config.camera_names or ())
        # One a camera, or one for all.
        self.cameras = nn.ModuleList(
            ImageEncoder(config) for _ in range(min(self.n_cameras, 1) if config.share_encoder else self.n_cameras)
        )
        self.width = config.state_dim + self.n_cameras * 2 * config.n_keypoints

    def forward(
        self, state: Tensor | None, image: Tensor | None, state_mask: Tensor | None, image_mask: Tensor | None
    ) -> Tensor:
        """What `state_mask` (B, D) and `image_mask` (B, K) lack is read as 0."""
        parts: list[Tensor] = []
        if self.state_dim:
            if state is None:
                raise ValueError(f"DiffusionPolicy: expected a state of width {self.state_dim}, got none.")
            steps = state.reshape(len(state), -1, self.state_dim)  # (B, O, D)
            parts.append(steps if state_mask is None else steps * state_mask[:, None])
        if self.n_cameras:
            if image is None:
                raise ValueError(f"DiffusionPolicy: expected images of {self.n_cameras} cameras, got none.")
            features = self._encode(image.reshape(len(image), -1, *image.shape[-4:]))  # (B, O, K, 2P)
            if image_mask is not None:
                features = features * image_mask[:, None, :, None]
            parts.append(features.flatten(2))
        return torch.cat(parts, dim=-1)

    def _encode(self, image: Tensor) -> Tensor:
        """(B, O, K, 3, H, W) -> (B, O, K, 2P), every encoder's images as one batch."""
        if len(self.cameras) == 1:
            features: Tensor = self.cameras[0](image.flatten(0, 2))
            return features.unflatten(0, image.shape[:3])  # type: ignore[no-any-return, no-untyped-call]
        each = [encoder(image[:, :, k].flatten(0, 1)) for k, encoder in enumerate(self.cameras)]  # (B·O, 2P)
        return torch.stack(each, dim=1).unflatten(0, image.shape[:2])  # type: ignore[no-any-return, no-untyped-call]


class ImageEncoder(nn.Module):
    """Images (N, 3, H, W) -> (N, 2P): a part of them through a ResNet, a spatial softmax and a layer."""

    def __init__(self, config: DiffusionPolicyConfig) -> None:
        super().__init__()
        self.resize_shape = config.resize_shape
        self.crop_shape = config.crop_shape
        self.crop_is_random = config.crop_is_random
        self.backbone = ResNetBackbone(
            config.backbone_widths, config.backbone_depths, config.backbone_norm, config.pretrained_backbone
        )
        self.points = SpatialSoftmax(config.backbone_widths[-1], config.n_keypoints)
        self.output = nn.Linear(2 * config.n_keypoints, 2 * config.n_keypoints)

    def forward(self, image: Tensor) -> Tensor:
        if self.resize_shape is not None:
            image = functional.interpolate(image, self.resize_shape, mode="bilinear", antialias=True)
        if self.crop_shape is not None:
            height, width = self.crop_shape
            crop = random_crop if self.training and self.crop_is_random else centre_crop
            image = crop(image, height, width)
        return functional.relu(self.output(self.points(self.backbone(image))))


def centre_crop(image: Tensor, height: int, width: int) -> Tensor:
    """(N, C, H, W) -> (N, C, height, width); of an odd margin as `torchvision` has it."""
    top, left = round((image.shape[2] - height) / 2), round((image.shape[3] - width) / 2)
    return image[:, :, top : top + height, left : left + width]


def random_crop(image: Tensor, height: int, width: int) -> Tensor:
    """(N, C, H, W) -> (N, C, height, width), each image at a place of its own."""
    n, device = len(image), image.device
    top = torch.randint(image.shape[2] - height + 1, (n, 1, 1), device=device)
    left = torch.randint(image.shape[3] - width + 1, (n, 1, 1), device=device)
    rows = top + torch.arange(height, device=device)[:, None]  # (N, height, 1)
    columns = left + torch.arange(width, device=device)  # (N, 1, width)
    cropped = image[torch.arange(n, device=device)[:, None, None], :, rows, columns]  # (N, height, width, C)
    return cropped.permute(0, 3, 1, 2)  # channels last, as the backbone wants it
