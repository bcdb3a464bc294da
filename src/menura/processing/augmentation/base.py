"""What an augmentation is, and how several are applied to a batch.

A user's own is a class in `augmentation/` with `__call__(batch, draw)`; `Augmentation` need not be derived from.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import torch

from menura.errors import ConfigError, ContractError
from menura.processing.images import ImageNormalization

Batch = dict[str, Any]


class Draw:
    """Random numbers for one batch: drawn on the CPU, so that every device gets the same, and few, so that it is fast.

    Args:
        seed: whatever the numbers shall depend on: the training's seed, the step, the rank.
        device: where they are used.
    """

    def __init__(self, seed: Sequence[int], device: torch.device) -> None:
        state = np.random.SeedSequence(list(seed)).generate_state(2, np.uint32)
        self._generator = torch.Generator().manual_seed(int(state[0]) << 32 | int(state[1]))
        self._device = device

    def uniform(self, shape: Sequence[int], low: float = 0.0, high: float = 1.0) -> torch.Tensor:
        """float32 of this shape in [low, high)."""
        return self._moved(torch.rand(*shape, generator=self._generator) * (high - low) + low)

    def normal(self, shape: Sequence[int]) -> torch.Tensor:
        """float32 of this shape, mean 0 and deviation 1."""
        return self._moved(torch.randn(*shape, generator=self._generator))

    def integers(self, shape: Sequence[int], low: int, high: int) -> torch.Tensor:
        """int64 of this shape in low … high."""
        return self._moved(torch.randint(low, high + 1, tuple(shape), generator=self._generator))

    def _moved(self, values: torch.Tensor) -> torch.Tensor:
        return values.to(self._device, non_blocking=True)


class Augmentation(Protocol):
    """Changes some of a batch's values, never its shapes.

    `batch` is what `Processor.inputs` made: `image` (B, [O,] K, 3, H, W) float32, here in [0, 1]; `state`, `actions`
    normalized; `is_pad`. It returns a batch with new tensors in it; those it was given it leaves as they are.
    """

    def __call__(self, batch: Batch, draw: Draw) -> Batch: ...


class Augmentations:
    """Several augmentations, applied in order.

    Args:
        augmentations: each an `Augmentation`.
        normalization: of the images that come in, which is undone before and done again after.
    """

    def __init__(self, augmentations: Sequence[Augmentation], normalization: ImageNormalization) -> None:
        for each in augmentations:
            if not callable(each):
                raise ContractError(
                    f"augmentation {type(each).__name__}: expected a method __call__(batch, draw), got none."
                )
        self._augmentations = list(augmentations)
        self._mean = torch.tensor(normalization.mean).reshape(3, 1, 1)
        self._std = torch.tensor(normalization.std).reshape(3, 1, 1)
        self._plain = normalization == ImageNormalization.parse("zero_one")

    def __call__(self, batch: Batch, seed: Sequence[int]) -> Batch:
        """A processed batch, augmented: a pure function of the batch and the seed."""
        if not self._augmentations:
            return batch
        device = next(value.device for value in batch.values() if isinstance(value, torch.Tensor))
        draw, shapes = Draw(seed, device), _shapes(batch)
        changed = dict(batch)
        images = not self._plain and "image" in batch and batch["image"].dim() >= 5
        if images:
            mean, std = self._mean.to(device), self._std.to(device)
            changed["image"] = changed["image"] * std + mean
        for augmentation in self._augmentations:
            changed = augmentation(changed, draw)
            if _shapes(changed) != shapes:
                raise ContractError(
                    f"augmentation {type(augmentation).__name__}: expected a batch of the shapes it was given, "
                    f"{shapes}, got {_shapes(changed)}."
                )
        if images:
            changed["image"] = (changed["image"] - mean) / std
        return changed


def _shapes(batch: Any) -> dict[str, tuple[int, ...]]:
    """Of the tensors."""
    if not isinstance(batch, dict):
        return {}
    return {key: tuple(value.shape) for key, value in batch.items() if isinstance(value, torch.Tensor)}


def interval(what: str, value: float | Sequence[float], least: float, most: float) -> tuple[float, float]:
    """`[low, high]`, or one number for 'up to that'; ConfigError outside of least … most."""
    low, high = (least, value) if isinstance(value, (int, float)) else (value[0], value[-1])
    if not least <= low <= high <= most:
        raise ConfigError(f"{what}: expected low ≤ high within {least:g} … {most:g}, got {value}.")
    return float(low), float(high)


def share(what: str, value: float) -> float:
    """A probability."""
    return interval(what, value, 0.0, 1.0)[1]
