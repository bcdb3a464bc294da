"""Settings of `ReplayPolicy`."""

from __future__ import annotations

from typing import Any

from transformers import PretrainedConfig


class ReplayPolicyConfig(PretrainedConfig):
    """Settings of `ReplayPolicy`.

    Args:
        state_dim: width of the state; filled in from the data.
        action_dim: width of the action; filled in from the data.
        chunk_size: actions answered.
        n_action_steps: actions executed before asking again, at most `chunk_size`.
        n_episodes: demonstrations that are remembered; set when they are.
        longest_episode: steps of the longest; set when they are.
    """

    model_type = "menura_replay"

    def __init__(
        self,
        state_dim: int = 4,
        action_dim: int = 4,
        chunk_size: int = 16,
        n_action_steps: int = 16,
        n_episodes: int = 1,
        longest_episode: int = 1,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.state_dim = state_dim
        self.action_dim = action_dim
        self.chunk_size = chunk_size
        self.n_action_steps = n_action_steps
        self.n_episodes = n_episodes
        self.longest_episode = longest_episode
