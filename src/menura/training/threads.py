"""What training on the CPU asks of the process: how many threads, and what becomes of freed memory."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

#: Parameters below which a second thread costs more than it brings: the threads wait for each other by spinning, on a
#: busy machine for several times the work itself.
SMALL_POLICY = 5_000_000

# Of glibc's malloc.h; the threshold for mmap may not be larger (mallopt(3)).
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_LARGEST_MMAP_THRESHOLD = 32 * 1024 * 1024
_KEPT = 1024 * 1024 * 1024


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


def keep_freed_memory() -> None:
    """Let glibc keep up to 1 GiB of freed memory for the next step, where it otherwise goes back to the kernel.

    Activations are large and are freed at every step; getting them back as fresh, zeroed pages took a fifth of the
    time of a small convolutional policy. Elsewhere than on Linux with glibc this does nothing.
    """
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, _LARGEST_MMAP_THRESHOLD)
        mallopt(_M_TRIM_THRESHOLD, _KEPT)
