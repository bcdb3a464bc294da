"""Means of the scalars a policy returns beside its loss, without waiting for the device at every step."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from accelerate import Accelerator  # type: ignore[import-untyped]
from torch import Tensor


class ScalarMeans:
    """Sums scalars on their device; reads them only when asked."""

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._counts: dict[str, int] = {}

    def add(self, scalars: Mapping[str, Tensor]) -> None:
        """Take in detached scalar tensors."""
        for name, value in scalars.items():
            if name in self._sums:
                self._sums[name] += value
                self._counts[name] += 1
            else:
                self._sums[name] = value.float().clone()
                self._counts[name] = 1

    def take(self, accelerator: Accelerator) -> dict[str, float]:
        """The means since the last call, over all processes, which must have added the same names."""
        if not self._sums:
            return {}
        names = sorted(self._sums)
        means = torch.stack([self._sums[name].reshape(()) / self._counts[name] for name in names])
        means = accelerator.reduce(means, reduction="mean")
        self._sums, self._counts = {}, {}
        return dict(zip(names, means.tolist(), strict=True))

    def state(self) -> dict[str, Any]:
        return {"sums": self._sums, "counts": self._counts}

    def load(self, state: Mapping[str, Any], device: torch.device) -> None:
        self._sums = {name: value.to(device) for name, value in state["sums"].items()}
        self._counts = dict(state["counts"])
