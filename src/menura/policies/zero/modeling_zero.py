"""ZeroPolicy: the normalized action 0, whatever is seen. Shapes: B batch, D state, T chunk, A action."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..common.losses import masked_l1
from ..common.untrained import UntrainedPolicy
from .configuration_zero import ZeroPolicyConfig


class ZeroPolicy(UntrainedPolicy):
    """Always answers 0 in normalized units: the mean of the demonstrated actions (`processor: {action: zscore}`) or the
    middle of their range (`minmax`). Physical zeros are `menura eval -m zero`.

    There is nothing to train: it audits everything around a policy, and its loss is what any policy must stay below.
    """

    config_class = ZeroPolicyConfig

    action: Tensor

    def __init__(self, config: ZeroPolicyConfig) -> None:
        super().__init__(config)
        self.keep("action", torch.zeros(config.action_dim))
        self.post_init()  # type: ignore[no-untyped-call]

    def forward(
        self,
        state: Tensor,
        actions: Tensor | None = None,
        is_pad: Tensor | None = None,
        state_mask: Tensor | None = None,
        action_mask: Tensor | None = None,
    ) -> Tensor | dict[str, Tensor]:
        """Zeros (B, T, A), or how far `actions` (B, T, A) are from them: {'loss'}. `state` (B, D) says how many rows
        there are."""
        chunk = self.action.expand(len(state), self.config.chunk_size, -1)
        return chunk if actions is None else {"loss": masked_l1(chunk, actions, is_pad, action_mask)}

    @torch.no_grad()
    def select_action(self, obs_dict: dict[str, Any]) -> Tensor:
        """Zeros (B, T, A)."""
        chunk: Tensor = self(obs_dict["state"])
        return chunk
