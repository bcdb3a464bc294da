"""What SmolVLA, pi0 and pi0.5 keep alike, each made as its tiny section says."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import yaml
from peft import LoraConfig, get_peft_model
from safetensors.torch import save_file
from transformers import (
    PaliGemmaConfig,
    PaliGemmaForConditionalGeneration,
    SmolVLMConfig,
    SmolVLMForConditionalGeneration,
)

import menura.policies
from menura.policies.contract import build_policy
from menura.policies.pi0.modeling_pi0 import PI0Policy
from menura.policies.pi05.modeling_pi05 import PI05Policy
from menura.policies.smolvla.modeling_smolvla import SmolVLAPolicy

CLASSES = {"smolvla": SmolVLAPolicy, "pi0": PI0Policy, "pi05": PI05Policy}
NAMES = list(CLASSES)
TINY = Path(menura.policies.__file__).parents[1] / "configs" / "policy" / "tiny"
TASKS = ["pick up the cube", "go"]


def args_of(name: str, **args):
    return {**yaml.safe_load((TINY / f"{name}.yaml").read_text())["args"], **args}


@pytest.fixture
def make(features):
    def policy(name: str, **args):
        torch.manual_seed(0)
        return build_policy(CLASSES[name], args_of(name, **args), features).eval()

    return policy


def observation(n_cameras: int = 2):
    random = torch.Generator().manual_seed(1)
    state = torch.randn(2, 5, generator=random)
    return {"task": TASKS, "state": state, "image": torch.rand(2, n_cameras, 3, 32, 32, generator=random) * 2 - 1}


@pytest.mark.parametrize("name", NAMES)
def test_a_chunk_is_the_noise_moved_along_the_flow(make, name):
    policy, obs = make(name), observation()
    noise = torch.randn(2, *policy.noise_shape)
    condition, sample = policy.condition(obs), noise
    with torch.no_grad():
        for step in range(5):
            sample = sample - policy.denoise(sample, torch.full((2,), 1 - step / 5), condition) / 5
    torch.testing.assert_close(policy.select_action(obs, noise=noise), sample[..., :3])


@pytest.mark.parametrize("name", NAMES)
def test_noise_of_another_shape_is_refused(make, name):
    with pytest.raises(ValueError, match=r"noise: expected the shape \(2, 8, 32\), got \(2, 8, 3\)"):
        make(name).select_action(observation(), noise=torch.randn(2, 8, 3))


@pytest.mark.parametrize("name", NAMES)
def test_a_camera_that_is_not_there_is_as_if_it_had_never_been(make, name):
    """Nothing attends to its tokens, and no position is theirs."""
    policy, obs = make(name), observation()
    noise = torch.randn(2, *policy.noise_shape)
    masked = {**obs, "image_mask": torch.tensor([[False, True], [False, True]])}
    alone = {**obs, "image": obs["image"][:, 1:]}
    torch.testing.assert_close(policy.select_action(masked, noise=noise), policy.select_action(alone, noise=noise))


@pytest.mark.parametrize("name", NAMES)
def test_nothing_of_the_observation_is_read_between_steps(make, name):
    policy, calls = make(name), {}
    for part, module in policy.named_modules():
        if part and "expert" not in part and "action" not in part and "time" not in part:
            module.register_forward_hook(lambda *_, part=part: calls.__setitem__(part, calls.get(part, 0) + 1))
    policy.select_action(observation())
    assert calls
    assert set(calls.values()) == {1}


@pytest.mark.filterwarnings("ignore:`gradient_checkpointing_enable`:FutureWarning")
@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_checkpointed_layers_have_the_same_gradients(make, name, reentrant):
    policy = make(name, train_expert_only=False).train()
    batch = {**observation(), "actions": torch.randn(2, 8, 3)}

    def gradients():
        torch.manual_seed(3)
        policy.zero_grad()
        policy(**batch)["loss"].backward()
        return {n: p.grad.clone() for n, p in policy.named_parameters() if p.grad is not None}

    plain = gradients()
    policy.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": reentrant})
    checkpointed = gradients()
    assert checkpointed.keys() == plain.keys()
    torch.testing.assert_close(checkpointed, plain)


@pytest.mark.parametrize("name", NAMES)
def test_in_bfloat16(make, name):
    policy, obs = make(name), observation()
    noise = torch.randn(2, *policy.noise_shape)
    expected = policy.select_action(obs, noise=noise)
    answer = policy.to(torch.bfloat16).select_action(obs, noise=noise)
    assert answer.dtype == torch.float32
    torch.testing.assert_close(answer, expected, rtol=0.1, atol=0.05)
    policy.train()(**obs, actions=torch.randn(2, 8, 3))["loss"].backward()


@pytest.mark.parametrize("name", NAMES)
def test_denoising_compiles(make, name):
    policy = make(name)
    condition, sample, time = policy.condition(observation()), torch.randn(2, *policy.noise_shape), torch.rand(2)
    torch._dynamo.reset()
    compiled = torch.compile(policy.denoise, backend="aot_eager", fullgraph=True)
    with torch.no_grad():
        torch.testing.assert_close(compiled(sample, time, condition), policy.denoise(sample, time, condition))


def learns(policy) -> set[str]:
    return {name.partition(".")[0] for name, p in policy.named_parameters() if p.requires_grad}


@pytest.mark.parametrize("name", NAMES)
def test_the_expert_alone_learns(make, name, tmp_path):
    policy = make(name, train_expert_only=True)
    frozen = {"vision_model", "connector", "language_model", "paligemma"}
    assert not learns(policy) & frozen
    assert {"expert", "action_projection", "action_head"} <= learns(policy)
    policy.save_pretrained(tmp_path)
    again = CLASSES[name].from_pretrained(tmp_path)
    assert learns(again) == learns(policy)
    adapted = get_peft_model(again, LoraConfig(target_modules=["q_proj"]))
    adapted.train()  # as a trainer does before every step
    assert any("language_model" in n for n, p in adapted.named_parameters() if p.requires_grad)


def test_what_the_originals_freeze_is_frozen(make):
    assert not learns(make("smolvla", train_expert_only=True)) & {"vision_model", "connector", "language_model"}
    assert "vision_model" not in learns(make("smolvla"))
    for name in ("pi0", "pi05"):
        assert all(p.requires_grad for p in make(name).parameters())
        vision = make(name, freeze_vision_encoder=True).paligemma.vision_tower
        assert not any(p.requires_grad for p in vision.parameters())


def pretrained(name: str, directory: Path, args: dict) -> torch.nn.Module:
    """The vision-language model by itself, as its authors' checkpoint is laid out, with more layers or words."""
    language, vision = args["language_model"], args["vision_model"]
    if name == "smolvla":
        text = {**language, "model_type": "llama", "num_hidden_layers": 4}
        config = SmolVLMConfig(text_config=text, vision_config=vision, scale_factor=args["scale_factor"])
        vlm = SmolVLMForConditionalGeneration(config)
        vlm.save_pretrained(directory)
    else:
        text = {**language, "model_type": "gemma", "vocab_size": 400}
        vision = {**vision, "model_type": "siglip_vision_model", "vision_use_head": False}
        width = language["hidden_size"]
        config = PaliGemmaConfig(text_config=text, vision_config=vision, projection_dim=width)
        vlm = PaliGemmaForConditionalGeneration(config)
        vlm.config.save_pretrained(directory)
        parts = {  # names of google/paligemma-3b-pt-224
            "vision_tower.vision_model.": vlm.model.vision_tower,
            "multi_modal_projector.": vlm.model.multi_modal_projector,
            "language_model.model.": vlm.model.language_model,
        }
        tensors = {prefix + key: value for prefix, part in parts.items() for key, value in part.state_dict().items()}
        save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})
    return vlm.model


@pytest.mark.parametrize("name", NAMES)
def test_a_pretrained_backbone_is_read_when_made_for_training(make, name, tmp_path):
    vlm = pretrained(name, tmp_path / "vlm", args_of(name))
    policy = make(name, pretrained_backbone=str(tmp_path / "vlm"))
    if name == "smolvla":
        pairs = [(policy.language_model, vlm.text_model), (policy.vision_model, vlm.vision_model)]
        pairs.append((policy.connector, vlm.connector))
    else:
        own = policy.paligemma
        pairs = [(own.language_model, vlm.language_model), (own.vision_tower, vlm.vision_tower)]
        pairs.append((own.projector, vlm.multi_modal_projector.linear))
    for ours, theirs in pairs:
        weights = theirs.state_dict()
        for key, value in ours.state_dict().items():
            assert torch.equal(value, weights[key][: len(value)]), key
    policy.save_pretrained(tmp_path / "policy")
    for file in (tmp_path / "vlm").iterdir():
        file.unlink()
    again = CLASSES[name].from_pretrained(tmp_path / "policy").eval()
    noise = torch.randn(2, *policy.noise_shape)
    assert torch.equal(
        again.select_action(observation(), noise=noise), policy.select_action(observation(), noise=noise)
    )


@pytest.mark.parametrize("name", NAMES)
def test_a_backbone_of_other_sizes_is_refused(make, name, tmp_path):
    pretrained(name, tmp_path, args_of(name))
    larger = {**args_of(name)["language_model"], "intermediate_size": 256}
    with pytest.raises(ValueError, match=r"pretrained_backbone .*expected weights for layers\.0\.mlp"):
        make(name, pretrained_backbone=str(tmp_path), language_model=larger)


@pytest.mark.parametrize("name", NAMES)
def test_without_a_state(name, features):
    policy = CLASSES[name](CLASSES[name].config_class(**args_of(name, state_dim=0, action_dim=3))).eval()
    noise = torch.randn(2, *policy.noise_shape)
    assert policy.select_action({"task": TASKS}, noise=noise).shape == (2, 8, 3)


@pytest.mark.parametrize("name", NAMES)
def test_what_is_missing_is_named(make, name):
    policy = make(name)
    with pytest.raises(ValueError, match="expected a state of width 5, got none"):
        policy.select_action({"task": TASKS, "image": observation()["image"]})
    with pytest.raises(ValueError, match=r"expected images of \['front', 'wrist'\], got none"):
        policy.select_action({"task": TASKS, "state": observation()["state"]})


@pytest.mark.parametrize("name", NAMES)
def test_wider_actions_than_the_weights_have_are_refused(name):
    with pytest.raises(ValueError, match="max_action_dim = 32"):
        CLASSES[name].config_class(action_dim=33)
