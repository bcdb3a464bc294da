"""How weights begin: what a policy's `_init_weights` says of a module is what the module begins as."""

from __future__ import annotations

import copy
import pickle
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import nn
from transformers import PreTrainedModel

import menura
from menura import components
from menura.policies.checking.samples import default_encoder_dim, default_features
from menura.policies.common.initialization import begins_by, begins_by_itself, normal_, zeros_
from menura.policies.contract import Contract, build_policy

TINY = Path(menura.__file__).parent / "configs" / "policy" / "tiny"


def tiny(name: str, **args: Any) -> PreTrainedModel:
    section = yaml.safe_load((TINY / f"{name}.yaml").read_text())
    policy_class = components.load("policy", section["class"], Path())
    args = {**(section.get("args") or {}), **args}
    contract = Contract.of(policy_class)
    features = default_features(policy_class.config_class, contract, args)
    dim = default_encoder_dim(policy_class.config_class, contract, features, args)
    return build_policy(policy_class, args, features, image_encoder_dim=dim)


@pytest.mark.parametrize(
    ("name", "args"),
    [
        *((path.stem, {}) for path in sorted(TINY.glob("*.yaml"))),
        ("diffusion", {"denoiser": "transformer"}),
        ("vqbet", {"camera_names": ["front"]}),
    ],
)
def test_nothing_is_said_of_modules_that_transformers_passes_over(name: str, args: dict[str, Any]) -> None:
    """It calls `_init_weights` with modules that have parameters of their own alone."""
    policy = tiny(name, **args)
    before = {key: value.clone() for key, value in policy.state_dict().items()}
    for module in policy.modules():
        if not any(True for _ in module.parameters(recurse=False)):
            policy._init_weights(module)
    assert not [key for key, value in policy.state_dict().items() if not torch.equal(value, before[key])]


@pytest.mark.parametrize("again", [copy.deepcopy, lambda layer: pickle.loads(pickle.dumps(layer))])
def test_a_copy_of_a_layer_begins_as_the_layer(again: Any) -> None:
    layer = begins_by(partial(normal_, std=3.0), nn.Linear(100, 100))
    copied = again(layer)
    before = layer.weight.clone()
    copied.reset_parameters()
    assert float(copied.weight.detach().std()) == pytest.approx(3, rel=0.05)
    assert not copied.bias.any()
    assert torch.equal(layer.weight, before)
    assert begins_by_itself(copied)
    assert not begins_by_itself(nn.Linear(1, 1))


def test_layers_that_begin_at_0() -> None:
    layer = begins_by(zeros_, nn.Linear(3, 2, bias=False))
    layer.reset_parameters()
    assert not layer.weight.any()


def test_the_initial_weights_of_the_authors() -> None:
    blocks = tiny("vqbet", hidden_size=64, n_layers=2).transformer.blocks
    for block in blocks:
        assert float(block.attention.qkv.weight.detach().std()) == pytest.approx(0.02, rel=0.1)
        assert float(block.attention.out.weight.detach().std()) == pytest.approx(0.01, rel=0.1)
    denoiser = tiny("diffusion", denoiser="transformer", hidden_size=64).denoiser
    assert float(denoiser.layers[0].action_projection.weight.detach().std()) == pytest.approx(0.02, rel=0.1)
    embedder = tiny("rdt").transformer.time_embedder
    assert float(embedder.inner.weight.detach().std()) == pytest.approx(0.02, rel=0.1)
