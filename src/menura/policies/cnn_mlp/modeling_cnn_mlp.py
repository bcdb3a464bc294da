"""CNNMLPPolicy: a convolutional encoder and an MLP; the small one is cheap enough to train from pixels on a CPU.

Shapes: B batch, O observation steps, K cameras, C channels, H W image, D state, T chunk, A action.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from ..common.losses import masked_l1
from ..common.observed import camera_steps, given_images, state_steps
from ..common.resnet import ResNetBackbone
from ..common.spatial_softmax import SpatialSoftmax, spatial_softmax
from .configuration_cnn_mlp import CNNMLPPolicyConfig


class CNNMLPPolicy(PreTrainedModel):
    """Regresses a chunk of actions from where each feature map sees its feature, and the state (L1 loss).

    All cameras and observation steps share one encoder and pass through it as one batch.
    """

    config_class = CNNMLPPolicyConfig

    def __init__(self, config: CNNMLPPolicyConfig) -> None:
        super().__init__(config)
        self.n_cameras = len(config.camera_names or ())
        self.encoder = _encoder(config) if self.n_cameras else None
        width = config.n_obs_steps * (config.state_dim + self.n_cameras * 2 * config.channels)
        self.head = nn.Sequential(
            nn.Linear(width, config.hidden_size),
            nn.ReLU(),
            nn.Linear(config.hidden_size, config.hidden_size),
            nn.ReLU(),
            nn.Linear(config.hidden_size, config.chunk_size * config.action_dim),
        )
        self.post_init()  # type: ignore[no-untyped-call]

    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, (nn.Linear, nn.Conv2d, nn.GroupNorm)):
            module.reset_parameters()  # PyTorch's own, uniform in 1/sqrt(fan_in); transformers' is normal(0, 0.02)

    def forward(
        self,
        state: Tensor | None = None,
        image: Tensor | None = None,
        actions: Tensor | None = None,
        is_pad: Tensor | None = None,
        state_mask: Tensor | None = None,
        image_mask: Tensor | None = None,
        action_mask: Tensor | None = None,
    ) -> Tensor | dict[str, Tensor]:
        """The predicted chunk (B, T, A), or {'loss'} when `actions` (B, T, A) is given.

        `is_pad` (B, T) and, of datasets that differ, `action_mask` (B, A) say which of it counts; what `state_mask`
        (B, D) and `image_mask` (B, K) lack is read as 0.
        """
        predicted = self.predict(state, image, state_mask, image_mask)
        return predicted if actions is None else {"loss": masked_l1(predicted, actions, is_pad, action_mask)}

    @torch.no_grad()
    def select_action(self, obs_dict: dict[str, Any]) -> Tensor:
        """The chunk (B, T, A) in normalized units for `obs_dict['state']` and `obs_dict['image']`."""
        keys = ("state", "image", "state_mask", "image_mask")
        return self.predict(*(obs_dict.get(key) for key in keys))

    def predict(
        self,
        state: Tensor | None,
        image: Tensor | None,
        state_mask: Tensor | None = None,
        image_mask: Tensor | None = None,
    ) -> Tensor:
        """(B, [O,] D) and (B, [O,] K, 3, H, W), and what of them is there (B, D) and (B, K), -> (B, T, A)."""
        parts: list[Tensor] = []
        if self.encoder is not None:
            image = given_images(image, self.config.camera_names, "CNNMLPPolicy")
            points = self.encoder(image.flatten(0, -4))  # (B·O·K, 3, H, W) -> (B·O·K, 2C)
            parts.append(camera_steps(points, image_mask, len(image), self.n_cameras).flatten(1))
        if self.config.state_dim:
            parts.append(state_steps(state, state_mask, self.config.state_dim, "CNNMLPPolicy").flatten(1))
        flat: Tensor = self.head(torch.cat(parts, dim=1))  # (B, T·A)
        return flat.reshape(-1, self.config.chunk_size, self.config.action_dim)


def _encoder(config: CNNMLPPolicyConfig) -> nn.Module:
    """(N, 3, H, W) -> (N, 2C)."""
    if config.encoder == "small":
        return PointEncoder(config.channels)
    backbone = ResNetBackbone(
        config.backbone_widths, config.backbone_depths, config.backbone_norm, config.pretrained_backbone
    )
    return nn.Sequential(backbone, SpatialSoftmax(config.backbone_widths[-1], config.channels))


class PointEncoder(nn.Module):
    """Three convolutions and a spatial softmax: each of C feature maps becomes one image point.

    Spatial softmax: Levine et al. 2016 (arXiv 1504.00702), Finn et al. 2016 (arXiv 1509.06113).
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(3, channels, kernel_size=5, stride=2, padding=2),
            nn.GroupNorm(8, channels),
            nn.ReLU(),
            nn.Conv2d(channels, channels, kernel_size=3, stride=2, padding=1),
            nn.GroupNorm(8, channels),
            nn.ReLU(),
            nn.Conv2d(channels, channels, kernel_size=3, padding=1),
            nn.GroupNorm(8, channels),
            nn.ReLU(),
        )

    def forward(self, image: Tensor) -> Tensor:
        """(N, 3, H, W) -> (N, 2C)."""
        # Channels last is the layout pixels come in, and the faster one for convolutions on CPU and GPU alike.
        return spatial_softmax(self.layers(image.contiguous(memory_format=torch.channels_last)))
