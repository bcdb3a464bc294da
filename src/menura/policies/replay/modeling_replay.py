"""ReplayPolicy: a demonstration's own actions. Shapes: B batch, E episodes, L steps, D state, T chunk, A action."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from ..common.losses import masked_l1
from ..common.untrained import UntrainedPolicy
from .configuration_replay import ReplayPolicyConfig


class ReplayPolicy(UntrainedPolicy):
    """Plays back the demonstration whose state at this step of the episode is the nearest.

    There is nothing to train: `fit_to_data` remembers the demonstrations. From a start that was demonstrated, in an
    environment that repeats itself, it does what was done, through everything that a policy's actions go through;
    `menura replay` executes the recorded actions as they stand.
    """

    config_class = ReplayPolicyConfig

    states: Tensor
    actions: Tensor
    lengths: Tensor

    def __init__(self, config: ReplayPolicyConfig) -> None:
        super().__init__(config)
        self._allocate()
        self.post_init()  # type: ignore[no-untyped-call]

    def _allocate(self, device: torch.device | None = None) -> None:
        config = self.config
        states = torch.zeros(config.n_episodes, config.longest_episode, config.state_dim, device=device)
        actions = torch.zeros(config.n_episodes, config.longest_episode, config.action_dim, device=device)
        self.keep("states", states)
        self.keep("actions", actions)
        self.register_buffer("lengths", torch.ones(config.n_episodes, dtype=torch.int64, device=device))

    @torch.no_grad()
    def fit_to_data(self, batches: Iterable[Mapping[str, Any]]) -> None:
        """Remember the episodes in processed batches that hold every frame, in order; an episode begins at step 0."""
        episodes: list[list[tuple[Tensor, Tensor]]] = []
        for batch in batches:
            for state, actions, step in zip(batch["state"], batch["actions"], batch["timestep"].tolist(), strict=True):
                if step == 0 or not episodes:
                    episodes.append([])
                episodes[-1].append((state, actions[0]))
        self.config.n_episodes, self.config.longest_episode = len(episodes), max(map(len, episodes))
        self._allocate(self.states.device)
        for number, episode in enumerate(episodes):
            states, actions = zip(*episode, strict=True)
            self.states[number, : len(episode)] = torch.stack(states)
            self.actions[number, : len(episode)] = torch.stack(actions)
            self.lengths[number] = len(episode)

    def forward(
        self,
        state: Tensor,
        timestep: Tensor | None = None,
        actions: Tensor | None = None,
        is_pad: Tensor | None = None,
        state_mask: Tensor | None = None,
        action_mask: Tensor | None = None,
    ) -> Tensor | dict[str, Tensor]:
        """The chunk (B, T, A) that was demonstrated from `state` (B, D) at `timestep` (B,) on (0 when None), its last
        action held after its end; or how far `actions` (B, T, A) are from it: {'loss'}."""
        if timestep is None:
            timestep = torch.zeros(len(state), dtype=torch.int64, device=state.device)
        if state_mask is not None:
            state = state * state_mask
        numbers = torch.arange(len(self.lengths), device=state.device)
        now = torch.minimum(timestep[:, None], self.lengths - 1)  # (B, E)
        distance = (self.states[numbers, now] - state[:, None]).square().sum(dim=-1)  # (B, E)
        nearest = distance.argmin(dim=1)
        steps = timestep[:, None] + torch.arange(self.config.chunk_size, device=state.device)
        chunk = self.actions[nearest[:, None], torch.minimum(steps, self.lengths[nearest, None] - 1)]
        return chunk if actions is None else {"loss": masked_l1(chunk, actions, is_pad, action_mask)}

    @torch.no_grad()
    def select_action(self, obs_dict: dict[str, Any]) -> Tensor:
        """The chunk (B, T, A) in normalized units for `obs_dict['state']` at `obs_dict['timestep']`."""
        chunk: Tensor = self(obs_dict["state"], obs_dict.get("timestep"))
        return chunk
