"""Layers that begin with other weights because of what holds them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TypeVar

from torch import nn

Layer = TypeVar("Layer", bound=nn.Module)


def begins_by(draw: Callable[[Layer], None], layer: Layer) -> Layer:
    """The layer, whose `reset_parameters` is `draw(layer)` from now on.

    A policy's `_init_weights` cannot see to it at what holds the layer: `transformers` calls it, of models that are not
    its own, only with modules that have parameters of their own (`PreTrainedModel._initialize_weights`).
    """
    layer.reset_parameters = partial(draw, layer)  # type: ignore[assignment]
    return layer


def begins_by_itself(layer: nn.Module) -> bool:
    """Whether `begins_by` said how the layer begins."""
    return "reset_parameters" in vars(layer)


def zeros_(layer: nn.Linear) -> None:
    """Weights of 0, and no bias."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)


def uniform_(layer: nn.Linear, bound: float) -> None:
    """Weights and bias, if there is one, uniform in [-bound, bound]."""
    for parameter in layer.parameters():
        nn.init.uniform_(parameter, -bound, bound)


def normal_(layer: nn.Linear | nn.Embedding, std: float) -> None:
    """Normal weights and no bias."""
    nn.init.normal_(layer.weight, std=std)
    if isinstance(layer, nn.Linear) and layer.bias is not None:
        nn.init.zeros_(layer.bias)
