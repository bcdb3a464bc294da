"""SmolVLA: sizes, and which layers attend to what."""

from __future__ import annotations

import pytest
import torch

from menura.policies.common.action_expert import LlamaCachedLayer
from menura.policies.smolvla.configuration_smolvla import SmolVLAPolicyConfig
from menura.policies.smolvla.expert_smolvla import CrossLayer
from menura.policies.smolvla.modeling_smolvla import SmolVLAPolicy


@pytest.fixture(scope="module")
def real() -> SmolVLAPolicy:
    with torch.device("meta"):
        return SmolVLAPolicy(SmolVLAPolicyConfig(camera_names=["top"]))


def size(module: torch.nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def test_the_real_size_is_the_published_one(real):
    """450 M parameters, about 100 M of them the expert's (arXiv 2506.01844, section 3.1), with the parts of SmolVLM
    that no action depends on: its head, its last norm, and what the last of the 16 layers answers."""
    width, intermediate, words = 960, 2560, 49280
    unread = words * width + width + 2 * width * width + 3 * width * intermediate + width
    assert round((size(real) + unread) / 1e6) == 450
    assert round(size(real.expert) / 1e6) == 98


def test_the_expert_and_the_projections_learn(real):
    learning = sum(p.numel() for p in real.parameters() if p.requires_grad)
    assert learning == size(real) - size(real.vision_model) - size(real.connector) - size(real.language_model)
    assert round(learning / 1e6) == 100


def test_layers_attend_in_turn_to_the_actions_and_to_the_prefix(real):
    assert [type(layer) for layer in real.expert.layers] == [LlamaCachedLayer, CrossLayer] * 8


@pytest.mark.parametrize(("every", "attending"), [(0, []), (1, [0, 1, 2, 3]), (3, [0, 3])])
def test_how_many_layers_attend_to_the_actions(every, attending):
    with torch.device("meta"):
        policy = SmolVLAPolicy(SmolVLAPolicyConfig(n_layers=4, self_attention_every=every))
    found = [i for i, layer in enumerate(policy.expert.layers) if isinstance(layer, LlamaCachedLayer)]
    assert found == attending


def test_actions_do_not_see_those_after_them():
    config = SmolVLAPolicyConfig(
        chunk_size=5,
        tokenizer="bytes",
        n_layers=2,
        language_model={"vocab_size": 384, "hidden_size": 32, "num_attention_heads": 2, "num_key_value_heads": 1}
        | {"head_dim": 16, "intermediate_size": 32},
    )
    policy = SmolVLAPolicy(config).eval()
    condition = policy.condition({"task": ["go"], "state": torch.zeros(1, 6)})
    sample, time = torch.randn(1, 5, 32), torch.tensor([0.5])
    changed = sample.clone()
    changed[:, 3] += 1
    with torch.no_grad():
        before, after = policy.denoise(sample, time, condition), policy.denoise(changed, time, condition)
    same = (before == after).all(dim=-1)[0].tolist()
    assert same == [True, True, True, False, False]


@pytest.mark.parametrize("wrong", [{"n_layers": 0}, {"self_attention_every": -1}, {"n_inference_steps": 0}])
def test_settings_that_make_no_policy_are_refused(wrong):
    with pytest.raises(ValueError, match="expected n_layers"):
        SmolVLAPolicyConfig(**wrong)
