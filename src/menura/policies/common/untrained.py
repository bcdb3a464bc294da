"""Policies that learn nothing by gradients, with what they know as parameters that are none of an optimizer's."""

from __future__ import annotations

from torch import Tensor, nn
from transformers import PreTrainedModel


class UntrainedPolicy(PreTrainedModel):
    """A policy whose parameters are fixed, or taken from the data at once by its `fit_to_data`."""

    def keep(self, name: str, value: Tensor) -> None:
        """Remember a tensor of floating point under that name. A parameter, since `transformers` reads a model's dtype
        off these."""
        self.register_parameter(name, nn.Parameter(value, requires_grad=False))

    def train(self, mode: bool = True) -> UntrainedPolicy:
        """As usual, but nothing learns: `from_pretrained`, which ends here, makes parameters that do."""
        super().train(mode)
        return self.requires_grad_(False)
