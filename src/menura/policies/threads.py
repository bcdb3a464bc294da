"""How many threads a policy is worth on the CPU."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

#: Parameters below which a second thread costs more than it brings: the threads wait for each other by spinning, on a
#: busy machine for several times the work itself.
SMALL_POLICY = 5_000_000


@contextmanager
def suitable_threads(policy: nn.Module) -> Iterator[None]:
    """One torch thread for a small policy on the CPU, unless OMP_NUM_THREADS says otherwise; as before afterwards."""
    on_cpu = all(parameter.device.type == "cpu" for parameter in policy.parameters())
    small = sum(parameter.numel() for parameter in policy.parameters()) < SMALL_POLICY
    if not (on_cpu and small) or "OMP_NUM_THREADS" in os.environ:
        yield
        return
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
