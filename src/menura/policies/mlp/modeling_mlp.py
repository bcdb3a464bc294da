"""MLPPolicy: the smallest policy. State, and features of images where there are some, in; a chunk of actions out.

Shapes: B batch, O observation steps, D state, K cameras, F features of all cameras, T chunk, A action.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from ..common.losses import masked_l1
from ..common.observed import camera_steps, state_steps
from .configuration_mlp import MLPPolicyConfig


class MLPPolicy(PreTrainedModel):
    """A multi-layer perceptron that regresses the whole chunk from the newest observations at once (L1 loss)."""

    config_class = MLPPolicyConfig

    def __init__(self, config: MLPPolicyConfig) -> None:
        super().__init__(config)
        width = config.n_obs_steps * (config.state_dim + config.image_feature_dim)
        layers: list[nn.Module] = []
        for _ in range(config.num_layers):
            layers += [nn.Linear(width, config.hidden_size), nn.ReLU(), nn.Dropout(config.dropout)]
            width = config.hidden_size
        self.backbone = nn.Sequential(*layers)
        self.action_head = nn.Linear(width, config.chunk_size * config.action_dim)
        self.post_init()  # type: ignore[no-untyped-call]

    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, nn.Linear):
            module.reset_parameters()  # PyTorch's own, uniform in 1/sqrt(fan_in); transformers' is normal(0, 0.02)

    def forward(
        self,
        state: Tensor | None = None,
        image_features: Tensor | None = None,
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
        predicted = self.predict(state, image_features, state_mask, image_mask)
        return predicted if actions is None else {"loss": masked_l1(predicted, actions, is_pad, action_mask)}

    @torch.no_grad()
    def select_action(self, obs_dict: dict[str, Any]) -> Tensor:
        """The chunk (B, T, A) in normalized units for `obs_dict['state']` and `obs_dict['image_features']`."""
        keys = ("state", "image_features", "state_mask", "image_mask")
        return self.predict(*(obs_dict.get(key) for key in keys))

    def predict(
        self,
        state: Tensor | None,
        image_features: Tensor | None = None,
        state_mask: Tensor | None = None,
        image_mask: Tensor | None = None,
    ) -> Tensor:
        """(B, [O,] D) and (B, [O,] F), and what of them is there (B, D) and (B, K), -> (B, T, A)."""
        parts: list[Tensor] = []
        if self.config.state_dim:
            parts.append(state_steps(state, state_mask, self.config.state_dim, "MLPPolicy").flatten(1))
        if self.config.image_feature_dim:
            if image_features is None:
                raise ValueError(
                    f"MLPPolicy: expected image features of width {self.config.image_feature_dim}, got none."
                )
            n_cameras = 1 if image_mask is None else image_mask.shape[1]
            features = image_features.reshape(-1, self.config.image_feature_dim // n_cameras)  # (B·O·K, F/K)
            parts.append(camera_steps(features, image_mask, len(image_features), n_cameras).flatten(1))
        flat: Tensor = self.action_head(self.backbone(torch.cat(parts, dim=1)))  # (B, T·A)
        return flat.reshape(-1, self.config.chunk_size, self.config.action_dim)
