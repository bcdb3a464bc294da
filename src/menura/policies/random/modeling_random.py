"""RandomPolicy: actions drawn from the demonstrated range, whatever is seen. Shapes: B batch, D state, T chunk, A
action."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ..common.losses import masked_l1
from ..common.noise import draw_noise
from ..common.untrained import UntrainedPolicy
from .configuration_random import RandomPolicyConfig


class RandomPolicy(UntrainedPolicy):
    """Uniform between the smallest and the largest demonstrated action, in each dimension anew at every step.

    There is nothing to train: `fit_to_data` measures the range. What an environment itself allows is drawn from by
    `menura eval -m random`.
    """

    config_class = RandomPolicyConfig

    low: Tensor
    high: Tensor

    def __init__(self, config: RandomPolicyConfig) -> None:
        super().__init__(config)
        self.keep("low", -torch.ones(config.action_dim))
        self.keep("high", torch.ones(config.action_dim))
        self.post_init()  # type: ignore[no-untyped-call]

    @torch.no_grad()
    def fit_to_data(self, batches: Iterable[Mapping[str, Any]]) -> None:
        """Measure the range of the actions in processed batches that hold every frame."""
        low, high = torch.full_like(self.low, torch.inf), torch.full_like(self.high, -torch.inf)
        for batch in batches:
            actions = batch["actions"][~batch["is_pad"]]  # (n, A)
            low, high = torch.minimum(low, actions.amin(dim=0)), torch.maximum(high, actions.amax(dim=0))
        self.low.copy_(low)
        self.high.copy_(high)

    def forward(
        self,
        state: Tensor,
        actions: Tensor | None = None,
        is_pad: Tensor | None = None,
        state_mask: Tensor | None = None,
        action_mask: Tensor | None = None,
    ) -> Tensor | dict[str, Tensor]:
        """A random chunk (B, T, A), or how far `actions` (B, T, A) are from one: {'loss'}. `state` (B, D) says how many
        rows."""
        chunk = self.select_action({"state": state})
        return chunk if actions is None else {"loss": masked_l1(chunk, actions, is_pad, action_mask)}

    @torch.no_grad()
    def select_action(
        self,
        obs_dict: dict[str, Any],
        noise: Tensor | None = None,
        generator: Sequence[torch.Generator] | None = None,
    ) -> Tensor:
        """A chunk (B, T, A) in normalized units, of standard normal `noise` (B, T, A), which is drawn when None."""
        if noise is None:
            shape = (len(obs_dict["state"]), self.config.chunk_size, self.config.action_dim)
            noise = draw_noise(shape, self.low, generator)
        share: Tensor = torch.special.ndtr(noise)  # uniform in [0, 1]
        return self.low + (self.high - self.low) * share
