"""pi0 and pi0.5: sizes, and how each reads the state and the time."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import yaml

import menura.policies
from menura.policies.pi0.configuration_pi0 import PI0PolicyConfig
from menura.policies.pi0.modeling_pi0 import PI0Policy
from menura.policies.pi05.configuration_pi05 import PI05PolicyConfig
from menura.policies.pi05.expert_pi05 import AdaptiveRMSNorm
from menura.policies.pi05.modeling_pi05 import PI05Policy

TINY = Path(menura.policies.__file__).parents[1] / "configs" / "policy" / "tiny"
WIDTH, INTERMEDIATE, WORDS = 2048, 16384, 257152
#: What the last of PaliGemma's layers answers, and its norm: no action depends on it.
UNREAD = 2 * WIDTH * 2048 + 3 * WIDTH * INTERMEDIATE + 2 * WIDTH


def size(module: torch.nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def test_the_real_size_of_pi0_is_the_published_one():
    """3.3 B: the 3 B of PaliGemma and 300 M of the expert (arXiv 2410.24164, section IV). Checkpoints of openpi's
    converter hold 3.5 B: the expert has a table of words, too, which nothing reads."""
    with torch.device("meta"):
        policy = PI0Policy(PI0PolicyConfig(camera_names=["top"]))
    assert round((size(policy.paligemma) + UNREAD) / 1e9, 2) == 2.92  # google/paligemma-3b-pt-224
    assert round(size(policy.expert) / 1e6) == 311
    whole = size(policy) + UNREAD
    assert 3.2e9 < whole < 3.35e9
    assert round((whole + 1024 * WORDS) / 1e9, 1) == 3.5


def test_the_real_size_of_pi05():
    """As pi0, with three vectors of modulation for each of the expert's norms."""
    with torch.device("meta"):
        policy = PI05Policy(PI05PolicyConfig(camera_names=["top"]))
    modulation = sum(size(m) for m in policy.expert.modules() if isinstance(m, AdaptiveRMSNorm))
    assert modulation == 37 * (1024 * 3072 + 3072)
    assert round((size(policy.expert) - modulation) / 1e6) == 311


def tiny(name: str, **args):
    settings = {**yaml.safe_load((TINY / f"{name}.yaml").read_text())["args"], **args}
    cls = {"pi0": PI0Policy, "pi05": PI05Policy}[name]
    return cls(cls.config_class(state_dim=2, action_dim=2, **settings)).eval()


def test_pi0_reads_the_state_as_a_token_that_does_not_see_the_actions():
    """So that its keys and values are computed once: the condition holds one token more than the prompt."""
    policy = tiny("pi0")
    with torch.no_grad():
        condition = policy.condition({"task": ["go"], "state": torch.zeros(1, 2)})
        other = policy.condition({"task": ["go"], "state": torch.ones(1, 2)})
    keys, different = condition.seen[0][0], other.seen[0][0]
    assert keys.shape[2] == policy.config.tokenizer_max_length + 1
    assert torch.equal(keys[:, :, :-1], different[:, :, :-1])
    assert not torch.equal(keys[:, :, -1], different[:, :, -1])


def test_pi05_reads_the_state_in_its_prompt():
    policy = tiny("pi05")
    told = []
    original = policy.tokenize
    policy.tokenize = lambda texts, *rest: told.extend(texts) or original(texts, *rest)
    policy.select_action({"task": ["go_on"], "state": torch.tensor([[0.5, -1.0]])})
    assert told == ["Task: go on, State: 192 0;\nAction: "]


def test_texts_that_are_ever_new_are_not_remembered_for_ever(monkeypatch):
    from menura.policies.common import language

    monkeypatch.setattr(language, "REMEMBERED", 4)
    policy = tiny("pi05")
    for step in range(12):
        policy.condition({"task": ["go"], "state": torch.full((1, 2), step / 12)})
    assert len(policy._tokens) <= 5


def test_adaptive_norms_start_without_effect():
    """The residuals are closed, so that the expert begins as the identity (arXiv 2212.09748)."""
    policy = tiny("pi05")
    norm = policy.expert.layers[0].input_layernorm
    x, moment = torch.randn(2, 3, 48), torch.randn(2, 48)
    normed, gate = norm(x, moment)
    torch.testing.assert_close(normed, x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-6))
    assert not gate.any()


def test_adaptive_norms_scale_shift_and_gate():
    norm = AdaptiveRMSNorm(2, eps=0.0)
    norm.modulation.weight.data.zero_()
    norm.modulation.bias.data = torch.tensor([1.0, 0.0, 0.5, -0.5, 2.0, 3.0])
    normed, gate = norm(torch.tensor([[[3.0, 4.0]]]), torch.zeros(1, 2))
    root = 12.5**0.5
    torch.testing.assert_close(normed, torch.tensor([[[2 * 3 / root + 0.5, 4 / root - 0.5]]]))
    torch.testing.assert_close(gate, torch.tensor([[[2.0, 3.0]]]))


@pytest.mark.parametrize("config_class", [PI0PolicyConfig, PI05PolicyConfig])
def test_settings_that_make_no_policy_are_refused(config_class):
    with pytest.raises(ValueError, match="n_inference_steps"):
        config_class(n_inference_steps=0)


@pytest.mark.parametrize("name", ["pi0", "pi05"])
def test_gemmas_norms_start_without_effect(name):
    """They multiply by 1 + weight."""
    norms = [m for m in tiny(name).modules() if type(m).__name__ == "GemmaRMSNorm"]
    assert norms
    assert not any(norm.weight.any() for norm in norms)
