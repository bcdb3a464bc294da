"""Freed memory is kept for the next step."""

from __future__ import annotations

import subprocess
import sys

import pytest

FAULTS = """
import resource, torch
from menura.training.memory import keep_freed_memory
if {keep}:
    keep_freed_memory()
net = torch.nn.Sequential(
    torch.nn.Conv2d(3, 32, 5, 2, 2), torch.nn.GroupNorm(4, 32), torch.nn.ReLU(), torch.nn.Conv2d(32, 32, 3, 2, 1)
)
torch.set_num_threads(1)
def step():
    net(torch.ones(32, 3, 84, 84)).square().mean().backward()
for _ in range(5):
    step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    step()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="mallopt is glibc's")
def test_large_blocks_are_not_faulted_in_again_at_every_step() -> None:
    def faults(keep: bool) -> int:
        command = [sys.executable, "-c", FAULTS.format(keep=keep)]
        return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)

    assert faults(keep=True) * 10 < faults(keep=False)
