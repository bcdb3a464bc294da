"""How many threads a policy gets on the CPU."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from menura.policies.threads import suitable_threads


def test_a_small_policy_gets_one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with suitable_threads(nn.Linear(10, 10)):
            assert torch.get_num_threads() == 1
        assert torch.get_num_threads() == 2
        with suitable_threads(nn.Linear(3000, 3000)):
            assert torch.get_num_threads() == 2
        monkeypatch.setenv("OMP_NUM_THREADS", "2")
        with suitable_threads(nn.Linear(10, 10)):
            assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
