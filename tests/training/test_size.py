"""A training that cannot fit into memory is refused before the policy is made."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import psutil
import pytest
import torch

from menura.errors import ConfigError
from menura.policies.flow.configuration_flow import FlowPolicyConfig
from menura.policies.flow.modeling_flow import FlowPolicy
from menura.policies.mlp.configuration_mlp import MLPPolicyConfig
from menura.policies.mlp.modeling_mlp import MLPPolicy
from menura.training.size import require_memory

CONFIG = MLPPolicyConfig(state_dim=4, action_dim=2, hidden_size=64)
WEIGHTS = sum(parameter.numel() for parameter in MLPPolicy(CONFIG).parameters())


def task(**training: Any) -> Any:
    return SimpleNamespace(config=SimpleNamespace(training=training), locate=lambda key: f"x.yaml:{len(key)}")


@pytest.fixture
def memory(monkeypatch: pytest.MonkeyPatch) -> Any:
    def set_free(numbers: float) -> None:
        monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=4 * numbers))

    monkeypatch.setattr(torch.accelerator, "is_available", lambda: False)
    return set_free


@pytest.mark.parametrize(
    ("training", "copies"),
    [
        ({}, 4),
        ({"optim": "sgd"}, 2),
        ({"peft": {"r": 8}}, 1),
        ({"freeze": ["*"]}, 1),
    ],
    ids=["adamw", "sgd", "adapters", "frozen"],
)
def test_weights_gradients_and_moments_must_fit(memory: Any, training: dict[str, Any], copies: int) -> None:
    memory(copies * WEIGHTS)
    require_memory(task(**training), MLPPolicy, CONFIG)
    memory(copies * WEIGHTS - 1)
    with pytest.raises(
        ConfigError, match=r"MLPPolicy with 0 million parameters, .* Train it on a GPU, .* \(x.yaml:6\)"
    ):
        require_memory(task(**training), MLPPolicy, CONFIG)


def test_an_accelerator_says_itself_what_does_not_fit(memory: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    memory(0)
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    require_memory(task(), MLPPolicy, CONFIG)
    with pytest.raises(ConfigError):
        require_memory(task(use_cpu=True), MLPPolicy, CONFIG)


def test_what_only_pretrained_weights_know_is_not_counted(memory: Any) -> None:
    memory(0)
    require_memory(
        task(),
        FlowPolicy,
        FlowPolicyConfig(state_dim=4, action_dim=2, camera_names=["top"], pretrained_backbone="no/such"),
    )
