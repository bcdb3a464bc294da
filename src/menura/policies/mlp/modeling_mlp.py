"""MLPPolicy: the smallest policy. State in, a chunk of actions out.

Shapes: B batch, O observation steps, D state, T chunk, A action.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import PretrainedConfig, PreTrainedModel

from ..common.losses import masked_l1


class MLPPolicyConfig(PretrainedConfig):
    """Settings of `MLPPolicy`; the defaults solve ALOHA's transfer cube from 50 demonstrations of state.

    Args:
        state_dim: width of the state; filled in from the data.
        action_dim: width of the action; filled in from the data.
        n_obs_steps: states given, newest last.
        chunk_size: actions predicted.
        n_action_steps: actions executed before predicting again, at most `chunk_size`.
        hidden_size: width of each hidden layer.
        num_layers: hidden layers.
        dropout: share of hidden units dropped in training, in [0, 1).
    """

    model_type = "menura_mlp"

    def __init__(
        self,
        state_dim: int = 14,
        action_dim: int = 14,
        n_obs_steps: int = 1,
        chunk_size: int = 50,
        n_action_steps: int = 25,
        hidden_size: int = 512,
        num_layers: int = 2,
        dropout: float = 0.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if min(hidden_size, num_layers) < 1:
            raise ValueError(f"expected hidden_size and num_layers of at least 1, got {hidden_size} and {num_layers}")
        self.state_dim = state_dim
        self.action_dim = action_dim
        self.n_obs_steps = n_obs_steps
        self.chunk_size = chunk_size
        self.n_action_steps = n_action_steps
        self.hidden_size = hidden_size
        self.num_layers = num_layers
        self.dropout = dropout


class MLPPolicy(PreTrainedModel):
    """A multi-layer perceptron that regresses the whole chunk from the newest states at once (L1 loss)."""

    config_class = MLPPolicyConfig

    def __init__(self, config: MLPPolicyConfig) -> None:
        super().__init__(config)
        width = config.n_obs_steps * config.state_dim
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
        state: Tensor,
        actions: Tensor | None = None,
        is_pad: Tensor | None = None,
        state_mask: Tensor | None = None,
        action_mask: Tensor | None = None,
    ) -> Tensor | dict[str, Tensor]:
        """The predicted chunk (B, T, A), or {'loss'} when `actions` (B, T, A) is given.

        `is_pad` (B, T) and, of datasets that differ, `action_mask` (B, A) say which of it counts; what `state_mask`
        (B, D) lacks is read as 0.
        """
        predicted = self.predict(state, state_mask)
        return predicted if actions is None else {"loss": masked_l1(predicted, actions, is_pad, action_mask)}

    @torch.no_grad()
    def select_action(self, obs_dict: dict[str, Any]) -> Tensor:
        """The chunk (B, T, A) in normalized units for `obs_dict['state']`."""
        return self.predict(obs_dict["state"], obs_dict.get("state_mask"))

    def predict(self, state: Tensor, state_mask: Tensor | None = None) -> Tensor:
        """(B, D) or (B, O, D), and what of it is there (B, D), -> (B, T, A)."""
        if state_mask is not None:
            state = state * (state_mask if state.dim() == 2 else state_mask[:, None])
        flat: Tensor = self.action_head(self.backbone(state.flatten(1)))  # (B, T·A)
        return flat.reshape(-1, self.config.chunk_size, self.config.action_dim)
