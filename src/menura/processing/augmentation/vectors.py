"""Noise on the state and on the actions, in normalized units: standard deviations of the data with `zscore`."""

from __future__ import annotations

import torch

from menura.errors import ConfigError, ContractError
from menura.processing.augmentation.base import Batch, Draw


class StateNoise:
    """Adds normal noise to the state, the same to all steps of an observation.

    Args:
        std: its deviation, in normalized units.
    """

    def __init__(self, std: float = 0.02) -> None:
        self.std = _deviation("StateNoise.std", std)

    def __call__(self, batch: Batch, draw: Draw) -> Batch:
        state = batch.get("state")
        if state is None:
            raise ContractError("augmentation StateNoise: expected a state, got none. Leave it out.")
        noise = draw.normal((len(state), state.shape[-1])) * self.std
        noise = noise[:, None] if state.dim() == 3 else noise
        return {**batch, "state": state + _there(noise, batch.get("state_mask"))}


class ActionNoise:
    """Adds normal noise to the actions to be learnt, each for itself.

    Args:
        std: its deviation, in normalized units.
    """

    def __init__(self, std: float = 0.01) -> None:
        self.std = _deviation("ActionNoise.std", std)

    def __call__(self, batch: Batch, draw: Draw) -> Batch:
        noise = draw.normal(batch["actions"].shape) * self.std
        return {**batch, "actions": batch["actions"] + _there(noise, batch.get("action_mask"))}


def _there(noise: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
    """Noise only where a dataset has the dimension."""
    if mask is None:
        return noise
    return noise * (mask[:, None] if noise.dim() == 3 else mask)


def _deviation(what: str, value: float) -> float:
    if not value >= 0:
        raise ConfigError(f"{what}: expected a number ≥ 0, got {value}.")
    return float(value)
