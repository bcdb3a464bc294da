"""Settings of `RandomPolicy`."""

from __future__ import annotations

from typing import Any

from transformers import PretrainedConfig


class RandomPolicyConfig(PretrainedConfig):
    """Settings of `RandomPolicy`.

    Args:
        state_dim: width of the state; filled in from the data.
        action_dim: width of the action; filled in from the data.
        chunk_size: actions answered.
        n_action_steps: actions executed before asking again, at most `chunk_size`.
    """

    model_type = "menura_random"

    def __init__(
        self,
        state_dim: int = 4,
        action_dim: int = 4,
        chunk_size: int = 16,
        n_action_steps: int = 16,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.state_dim = state_dim
        self.action_dim = action_dim
        self.chunk_size = chunk_size
        self.n_action_steps = n_action_steps
