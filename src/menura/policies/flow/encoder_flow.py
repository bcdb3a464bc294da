"""What `FlowPolicy` sees, as the condition of its transformer.

Shapes: B batch, O observation steps, K cameras, H W image, n tokens of an image, N of all, S state, F image features of
a camera, D width.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..common.backbones import settings_of
from ..common.dtypes import dtype_of
from ..common.learned import vectors
from ..common.observed import camera_steps, state_steps
from ..common.text_encoder import FrozenTextEncoder, Tokenize
from ..common.vision import VisionBackbone
from .configuration_flow import FlowPolicyConfig


class Observed(NamedTuple):
    """What the transformer is conditioned on.

    Attributes:
        vector: (B, D), which modulates its blocks.
        tokens: (B, N, D), to which it attends; None without pixels.
        visible: (B, N) true for those that are there; None for all.
    """

    vector: Tensor
    tokens: Tensor | None = None
    visible: Tensor | None = None


class ObservationEncoder(nn.Module):
    """State, text and features of images become one vector, pixels become tokens.

    Names of pretrained parts in `config` are replaced by their settings.
    """

    def __init__(self, config: FlowPolicyConfig) -> None:
        super().__init__()
        self.n_cameras = len(config.camera_names or ())
        self.state_dim, self.feature_dim = config.state_dim, config.image_feature_dim or 0
        self.text = None
        if config.text_encoder is not None:
            self.text = FrozenTextEncoder(config.text_encoder)
            config.text_encoder = settings_of(self.text.model)
        self.images = ImageTokens(config) if self.n_cameras and not self.feature_dim else None
        n_numbers = config.n_obs_steps * (self.state_dim + self.feature_dim)
        n_numbers += 0 if self.text is None else self.text.width
        if not n_numbers and self.images is None:
            raise ValueError("FlowPolicy: expected a state, cameras or a text_encoder, got state_dim 0 and no other.")
        width = config.hidden_size
        # Layers of its own, because what modulates the blocks of the transformer is linear in the vector.
        self.layers = nn.Sequential(
            nn.Linear(n_numbers or 1, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width)
        )

    def forward(self, obs: Mapping[str, Any], tokenize: Tokenize) -> Observed:
        """Of an observation as `select_action` is given it; `tokenize` is for its task."""
        parts = []
        state_mask, image_mask = obs.get("state_mask"), obs.get("image_mask")
        if self.state_dim:
            parts.append(state_steps(obs.get("state"), state_mask, self.state_dim, "FlowPolicy"))
        if self.feature_dim:
            features = _required(obs, "image")
            of_cameras = features.reshape(-1, self.feature_dim // self.n_cameras)  # (B·O·K, F)
            parts.append(camera_steps(of_cameras, image_mask, len(features), self.n_cameras))
        if self.text is not None:
            # To a common scale: encoders differ by a factor of twenty.
            text = self.text(_required(obs, "task"), tokenize)
            parts.append(functional.layer_norm(text, text.shape[-1:]))
        if not parts:  # but pixels
            parts.append(torch.ones(len(_required(obs, "image")), 1, device=obs["image"].device))
        dtype = dtype_of(self.layers)
        vector = self.layers(torch.cat([part.flatten(1).to(dtype) for part in parts], dim=1))
        if self.images is None:
            return Observed(vector)
        return Observed(vector, *self.images(_required(obs, "image"), image_mask))


class ImageTokens(nn.Module):
    """Images of all steps and cameras, in one batch through the vision model, as tokens."""

    def __init__(self, config: FlowPolicyConfig) -> None:
        super().__init__()
        source = config.pretrained_backbone or config.backbone
        assert source is not None  # the config has seen to it
        self.backbone = VisionBackbone(source, config.backbone_norm)
        config.backbone, config.pretrained_backbone = settings_of(self.backbone.model), None
        self.norm = nn.LayerNorm(self.backbone.width)
        self.projection = nn.Linear(self.backbone.width, config.hidden_size)
        self.sources = nn.Embedding(config.n_obs_steps * len(config.camera_names or ()), config.hidden_size)
        self.nothing = nn.Embedding(1, config.hidden_size)  # to attend to where no camera is there

    def forward(self, image: Tensor, image_mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """(B, [O,] K, 3, H, W) and (B, K) -> (B, 1 + O·K·n, D) and which are there (B, 1 + O·K·n)."""
        rows, n_sources = len(image), self.sources.num_embeddings
        tokens = self.projection(self.norm(self.backbone(image.flatten(0, -4))))  # (B·O·K, n, D)
        tokens = tokens.unflatten(0, (rows, n_sources)) + vectors(self.sources, image)[:, None]
        nothing = vectors(self.nothing, image).expand(rows, 1, -1)
        visible = None
        if image_mask is not None:
            n_steps, n_tokens = n_sources // image_mask.shape[1], tokens.shape[2]
            cameras = image_mask.repeat(1, n_steps).repeat_interleave(n_tokens, dim=1)  # (B, O·K·n)
            visible = torch.cat((cameras.new_ones(rows, 1), cameras), dim=1)
        return torch.cat((nothing, tokens.flatten(1, 2)), dim=1), visible


def _required(obs: Mapping[str, Any], key: str) -> Any:
    if obs.get(key) is None:
        raise ValueError(f"FlowPolicy: expected an observation with {key!r}, got {', '.join(obs) or 'nothing'}.")
    return obs[key]
