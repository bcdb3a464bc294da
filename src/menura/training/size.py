"""What a training keeps in memory at least: found out before a policy is made, not by the kernel that ends it."""

from __future__ import annotations

import copy
import fnmatch
from collections.abc import Mapping
from typing import Any

import psutil
import torch
from transformers import PretrainedConfig, PreTrainedModel

from menura.config import ResolvedTask
from menura.errors import ConfigError

_FLOAT32 = 4  # bytes
# Numbers that an optimizer keeps for each that learns; of others none is counted.
_STATES: Mapping[str, int] = {"adamw_torch": 2, "adamw_torch_fused": 2}
_DEFAULT_OPTIMIZER = "adamw_torch_fused"
_OWN = "menura.policies."


def require_memory(task: ResolvedTask, policy_class: type[PreTrainedModel], config: PretrainedConfig) -> None:
    """Refuse a training on the CPU whose weights, gradients and optimizer cannot be in memory; activations come on top.

    Counted on the meta device, which takes a moment for billions of parameters, too. An accelerator says itself that
    its memory is full. Not counted are a user's own policies, which need not be made on the meta device before they are
    trained, and those whose sizes stand in pretrained weights.

    Raises:
        ConfigError: it needs more than is free.
    """
    training = task.config.training
    if torch.accelerator.is_available() and not training.get("use_cpu"):
        return
    if not policy_class.__module__.startswith(_OWN):
        return
    try:
        with torch.device("meta"):
            policy = policy_class(copy.deepcopy(config))
    except ValueError:  # its sizes stand in pretrained weights; and what is wrong is told when it is made in earnest
        return
    weights = sum(parameter.numel() for parameter in policy.parameters())
    learning = _learning(policy, training)
    states = _STATES.get(str(training.get("optim", _DEFAULT_OPTIMIZER)), 0)
    needed = _FLOAT32 * (weights + learning * (1 + states))
    free = psutil.virtual_memory().available
    if needed > free:
        raise ConfigError(
            f"policy: expected a training that fits into the {free / 1e9:.0f} GB of memory that are free, got "
            f"{policy_class.__name__} with {weights / 1e6:,.0f} million parameters, {learning / 1e6:,.0f} million of "
            f"which learn: weights, gradients and optimizer need {needed / 1e9:.0f} GB. Train it on a GPU, let less "
            f"of it learn (training.peft: {{r: 8}}, training.freeze), or make it smaller ({task.locate('policy')})"
        )


def _learning(policy: PreTrainedModel, training: Mapping[str, Any]) -> int:
    """Numbers that learn; of a policy with adapters, which are small, none."""
    if training.get("peft"):
        return 0
    patterns = training.get("freeze") or ()
    return sum(
        parameter.numel()
        for name, parameter in policy.named_parameters()
        if parameter.requires_grad and not any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)
    )
