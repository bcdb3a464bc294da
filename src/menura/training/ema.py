"""Exponential moving average of a policy's weights."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

DEFAULT_DECAY = 0.9999


class WeightAverage:
    """Averages the trainable parameters of a model after every optimizer step: `mean += (1 - d) (weights - mean)`.

    The decay warms up with the number of updates n, `d = min(decay, 1 - (1 + n) ** -0.75)`, so that short runs do not
    remember their random start. This is the schedule that Diffusion Policy trains with (Chi et al. 2023; its form is
    Katherine Crowson's `EMAWarmup` in k-diffusion, here with inv_gamma 1 and power 3/4). The first update copies the
    weights.

    Frozen parameters and buffers (a batch norm's running statistics) are the model's own. Means are kept in float32.
    """

    def __init__(self, model: nn.Module, decay: float = DEFAULT_DECAY) -> None:
        self.decay = decay
        self.updates = 0
        self._parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self._means = {name: p.detach().float().clone() for name, p in self._parameters.items()}

    @torch.no_grad()
    def update(self) -> None:
        """Take in the model's weights as they are now."""
        decay = min(self.decay, 1.0 - (1.0 + self.updates) ** -0.75)
        self.updates += 1
        weights = [p.detach().float() for p in self._parameters.values()]
        torch._foreach_lerp_(list(self._means.values()), weights, 1.0 - decay)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """The model has the averaged weights inside, and its own again afterwards."""
        own = {name: p.detach().clone() for name, p in self._parameters.items()}
        self._copy_to_model(self._means)
        try:
            yield
        finally:
            self._copy_to_model(own)

    def state(self) -> dict[str, int | dict[str, Tensor]]:
        """What a checkpoint needs to go on."""
        return {"updates": self.updates, "means": self._means, "weights": dict(self._parameters)}

    def load(self, state: dict[str, int | dict[str, Tensor]]) -> None:
        """Take back `state`: the means, and the model's own weights."""
        updates, means, weights = state["updates"], state["means"], state["weights"]
        assert isinstance(updates, int)
        assert isinstance(means, dict)
        assert isinstance(weights, dict)
        self.updates = updates
        for name, mean in self._means.items():
            mean.copy_(means[name])
        self._copy_to_model(weights)

    @torch.no_grad()
    def _copy_to_model(self, weights: dict[str, Tensor]) -> None:
        for name, parameter in self._parameters.items():
            parameter.copy_(weights[name])


class UpdateAverage(TrainerCallback):
    """Takes in the weights after every optimizer step."""

    def __init__(self, averages: WeightAverage) -> None:
        self.averages = averages

    def on_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.averages.update()
