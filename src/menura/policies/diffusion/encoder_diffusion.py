"""What `DiffusionPolicy` makes of its observations: the state, and image points of every camera.

Shapes: B batch, O observation steps, K cameras, H W image, D state, P points, C condition of one step.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..common.keypoint_encoder import KeypointEncoder
from ..common.observed import camera_steps, given_images, state_steps
from ..common.resnet import ResNetBackbone
from .configuration_diffusion import DiffusionPolicyConfig


class ObservationEncoder(nn.Module):
    """States (B, [O,] D) and images (B, [O,] K, 3, H, W) -> (B, O, C): the robot's state, each camera's features, and
    the environment's state."""

    def __init__(self, config: DiffusionPolicyConfig) -> None:
        super().__init__()
        self.state_dim = config.state_dim
        self.robot_dim = config.state_dim - config.env_state_dim
        self.camera_names = config.camera_names
        self.n_cameras = len(config.camera_names or ())
        # One a camera, or one for all.
        self.cameras = nn.ModuleList(
            image_encoder(config) for _ in range(min(self.n_cameras, 1) if config.share_encoder else self.n_cameras)
        )
        self.width = config.state_dim + self.n_cameras * 2 * config.n_keypoints

    def forward(
        self, state: Tensor | None, image: Tensor | None, state_mask: Tensor | None, image_mask: Tensor | None
    ) -> Tensor:
        """What `state_mask` (B, D) and `image_mask` (B, K) lack is read as 0."""
        parts: list[Tensor] = []
        if self.state_dim:
            steps = state_steps(state, state_mask, self.state_dim, "DiffusionPolicy")
            parts = [steps[..., : self.robot_dim], steps[..., self.robot_dim :]]
        if self.n_cameras:
            image = given_images(image, self.camera_names, "DiffusionPolicy")
            features = self._encode(image.reshape(len(image), -1, *image.shape[-4:]))  # (B, O, K, 2P)
            parts.insert(1, camera_steps(features, image_mask, len(image), self.n_cameras).flatten(2))
        return torch.cat(parts, dim=-1)

    def _encode(self, image: Tensor) -> Tensor:
        """(B, O, K, 3, H, W) -> (B, O, K, 2P), every encoder's images as one batch."""
        if len(self.cameras) == 1:
            features: Tensor = self.cameras[0](image.flatten(0, 2))
            return features.unflatten(0, image.shape[:3])  # type: ignore[no-any-return, no-untyped-call]
        each = [encoder(image[:, :, k].flatten(0, 1)) for k, encoder in enumerate(self.cameras)]  # (B·O, 2P)
        return torch.stack(each, dim=1).unflatten(0, image.shape[:2])  # type: ignore[no-any-return, no-untyped-call]


def image_encoder(config: DiffusionPolicyConfig) -> KeypointEncoder:
    """Images (N, 3, H, W) -> (N, 2P)."""
    backbone = ResNetBackbone(
        config.backbone_widths,
        config.backbone_depths,
        config.backbone_norm,
        config.pretrained_backbone,
        block=config.backbone_block,
    )
    return KeypointEncoder(
        backbone,
        config.backbone_widths[-1],
        config.n_keypoints,
        2 * config.n_keypoints,
        config.crop_shape,
        crop_is_random=config.crop_is_random,
        resize_shape=config.resize_shape,
    )
