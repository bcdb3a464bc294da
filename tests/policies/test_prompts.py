"""What language models are told."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from menura.policies.common.prompts import state_bins, task_and_state, task_line


def test_a_task_ends_in_one_line_feed():
    assert task_line("open the door") == "open the door\n"
    assert task_line("open the door\n") == "open the door\n"


def test_pi05_is_told_task_and_state():
    state = torch.tensor([[-1.0, 0.0, 0.999], [-1.5, 1.0, -0.5]])
    assert task_and_state([" pick_up\nit ", "go"], state) == [
        "Task: pick up it, State: 0 128 255;\nAction: ",
        "Task: go, State: -1 255 64;\nAction: ",
    ]


@given(st.lists(st.floats(-2, 2, width=32), min_size=1, max_size=20))
def test_bins_are_those_of_numpy(values):
    """As openpi and LeRobot compute them."""
    edges = np.linspace(-1, 1, 256 + 1)[:-1]
    expected = np.digitize(np.array(values, np.float32), bins=edges) - 1
    assert state_bins(torch.tensor([values]))[0] == expected.tolist()
