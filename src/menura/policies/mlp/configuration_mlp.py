"""Settings of `MLPPolicy`."""

from __future__ import annotations

from typing import Any

from transformers import PretrainedConfig


class MLPPolicyConfig(PretrainedConfig):
    """Settings of `MLPPolicy`; the defaults solve ALOHA's transfer cube from 50 demonstrations of state.

    Args:
        state_dim: width of the state, 0 for none; filled in from the data.
        action_dim: width of the action; filled in from the data.
        image_feature_dim: width of the image features of all cameras, filled in where the task has an `image_encoder`
            (which stays frozen); 0: state alone, and no camera is looked at.
        n_obs_steps: observations given, newest last.
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
        image_feature_dim: int = 0,
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
        if state_dim + image_feature_dim < 1:
            raise ValueError("expected a state or image features to see, got a state_dim and image_feature_dim of 0")
        self.state_dim = state_dim
        self.action_dim = action_dim
        self.image_feature_dim = image_feature_dim
        # All of the data's, or none: it never sees pixels.
        self.camera_names: list[str] | None = None if image_feature_dim else []
        self.n_obs_steps = n_obs_steps
        self.chunk_size = chunk_size
        self.n_action_steps = n_action_steps
        self.hidden_size = hidden_size
        self.num_layers = num_layers
        self.dropout = dropout
