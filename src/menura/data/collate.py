"""From the arrays of a batch to tensors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np


def collate(batch: Mapping[str, Any] | Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Tensors that share the memory of a batch's arrays; a `collate_fn` for `DataLoader`.

    Args:
        batch: what `Windows.__getitems__` gives: arrays, B first, and lists of text. Or a list of single items, which
            are stacked first.

    Returns:
        The same keys: an array becomes a tensor of its dtype, a dict of arrays a dict of tensors, a list stays.
    """
    import torch

    if not isinstance(batch, Mapping):
        return collate(_stack(batch))

    def convert(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {key: convert(part) for key, part in value.items()}
        return torch.from_numpy(value) if isinstance(value, np.ndarray) else value

    return {key: convert(value) for key, value in batch.items()}


def _stack(items: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """One batch of single items: arrays and numbers are stacked, dicts descended into, text listed."""

    def stack(values: list[Any]) -> Any:
        if isinstance(values[0], Mapping):
            return _stack(values)
        return values if isinstance(values[0], str) else np.stack(values)

    return {key: stack([item[key] for item in items]) for key in items[0]}
