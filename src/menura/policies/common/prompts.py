"""What language models of robots are told, in training and inference alike."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

#: Bins of one dimension of the state (openpi, `models/tokenizer.py`: 256 between -1 and 1).
STATE_BINS = 256


def task_line(task: str) -> str:
    """The task ended by a line feed, after which PaliGemma and SmolVLA answer (openpi, `models/tokenizer.py`)."""
    return task if task.endswith("\n") else f"{task}\n"


def state_bins(state: Tensor) -> list[list[int]]:
    """The bin (B, S) of each dimension of a normalized state (B, S): 0 … 255 between -1 and 1, -1 below."""
    edges = torch.linspace(-1, 1, STATE_BINS + 1, dtype=torch.float64, device=state.device)[:-1]
    bins: list[list[int]] = (torch.bucketize(state.double(), edges, right=True) - 1).tolist()
    return bins


def task_and_state(tasks: Sequence[str], state: Tensor) -> list[str]:
    """The prompts of pi05 for a batch: task, state (B, S) in bins, and where the action begins (openpi,
    `models/tokenizer.py`, `discrete_state_input`)."""
    prompts = []
    for task, bins in zip(tasks, state_bins(state), strict=True):
        told = task.strip().replace("_", " ").replace("\n", " ")
        prompts.append(f"Task: {told}, State: {' '.join(map(str, bins))};\nAction: ")
    return prompts


def openvla_prompt(task: str) -> str:
    """OpenVLA's (`vla/datasets/datasets.py`, `RLDSBatchTransform`).

    It ends in a space, of which Llama's tokenizer makes the token 29871: the one that the original puts there by hand
    when acting.
    """
    return f"In: What action should the robot take to {task.strip().lower()}?\nOut: "
