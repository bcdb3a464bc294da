"""What a policy takes from the data at once, before any step: its `fit_to_data`, where it has one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from torch import nn

from menura.data import Mixture, Windows, collate
from menura.processing.processor import Processor

_ROWS, _ROWS_WITH_IMAGES = 1024, 32  # in memory at once


def fit_to_data(policy: nn.Module, data: Windows | Mixture, processor: Processor) -> None:
    """Call `policy.fit_to_data(batches)` with every frame's processed batch, in the data's order."""
    hook = getattr(policy, "fit_to_data", None)
    if callable(hook):
        hook(_in_order(data, processor))


def learns(policy: nn.Module) -> bool:
    """Whether there is anything to train; policies that audit what is around them have nothing."""
    return any(parameter.requires_grad for parameter in policy.parameters())


def _in_order(data: Windows | Mixture, processor: Processor) -> Iterator[dict[str, Any]]:
    rows = _ROWS_WITH_IMAGES if processor.camera_names else _ROWS
    for first in range(0, len(data), rows):
        yield processor.inputs(collate(data.__getitems__(np.arange(first, min(first + rows, len(data))))))
