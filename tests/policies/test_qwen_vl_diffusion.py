"""Qwen-VL with a diffusion or flow head: against `transformers`, prompts, reasoning, LoRA, the real ones' sizes."""

from __future__ import annotations

import copy
import fnmatch
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from torch import nn
from transformers import AutoConfig, AutoModelForImageTextToText
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

import menura
from menura.config.finetuning import finetuning_problem
from menura.policies.qwen_vl_diffusion.backbone_qwen_vl_diffusion import patches
from menura.policies.qwen_vl_diffusion.configuration_qwen_vl_diffusion import (
    LORA_TARGETS,
    PUBLISHED,
    QwenVLDiffusionPolicyConfig,
)
from menura.policies.qwen_vl_diffusion.modeling_qwen_vl_diffusion import QwenVLDiffusionPolicy
from menura.policies.qwen_vl_diffusion.prompt_qwen_vl_diffusion import around_instruction, split_task
from menura.processing.images import ImageNormalization

TINY = yaml.safe_load(
    (Path(menura.__file__).parent / "configs/policy/tiny/qwen_vl_diffusion.yaml").read_text(encoding="utf-8")
)["args"]
TEXT = {**TINY["backbone_config"]["text_config"], "num_hidden_layers": 2}
SHARED = {**TINY["backbone_config"], "text_config": TEXT}
ROPE = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [4, 6, 6]}
VISION = {
    "depth": 2,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_heads": 2,
    "out_hidden_size": 64,
    "patch_size": 8,
}
FAMILIES: dict[str, dict[str, Any]] = {
    "qwen2_vl": {**SHARED, "vision_config": {**SHARED["vision_config"], "depth": 2}},
    "qwen2_5_vl": {**SHARED, "vision_config": {**VISION, "window_size": 16, "fullatt_block_indexes": [1]}},
    "qwen3_vl": {
        **SHARED,
        "text_config": {
            **SHARED["text_config"],
            "head_dim": 32,
            "rope_parameters": {**ROPE, "mrope_interleaved": True},
        },
        "vision_config": {**VISION, "num_position_embeddings": 16, "deepstack_visual_indexes": [0]},
    },
}
every_family = pytest.mark.parametrize("family", FAMILIES)
every_head = pytest.mark.parametrize("head", ["diffusion", "flow"])
CHUNK, STATE, ACTION = 8, 5, 3


def make(family: str = "qwen2_vl", **args: Any) -> QwenVLDiffusionPolicy:
    given = {**TINY, "backbone": family, "backbone_config": FAMILIES[family], "state_dim": STATE, "action_dim": ACTION}
    return QwenVLDiffusionPolicy(QwenVLDiffusionPolicyConfig(**{**given, "camera_names": ["front", "wrist"], **args}))


def observe(rows: int = 2) -> dict[str, Any]:
    tasks = ["open the drawer", "pick up the cube"]
    return {"state": torch.randn(rows, STATE), "image": torch.randn(rows, 2, 3, 32, 32), "task": tasks[:rows]}


def moved(policy: QwenVLDiffusionPolicy) -> QwenVLDiffusionPolicy:
    """Away from layers that start at 0."""
    with torch.no_grad():
        for parameter in policy.head.parameters():
            parameter += 0.02 * torch.randn_like(parameter)
    return policy.eval()


@pytest.mark.parametrize(
    ("patch", "side", "family"), [(14, 224, "qwen2_vl"), (14, 56, "qwen2_5_vl"), (16, 224, "qwen3_vl")]
)
def test_pixels_are_those_of_the_image_processor(patch, side, family):
    """From the same picture: our normalization and patches, and the processor of `transformers`."""
    config = QwenVLDiffusionPolicyConfig(backbone=family)
    normalization = ImageNormalization.parse(config.image_normalize)
    mean, std = (list(part) for part in (normalization.mean, normalization.std))
    processor = Qwen2VLImageProcessorPil(patch_size=patch, image_mean=mean, image_std=std)
    pictures = [np.random.default_rng(i).integers(0, 256, (side, 2 * side, 3), dtype=np.uint8) for i in range(2)]
    # 224 is no size that the processor would change.
    expected = processor([Image.fromarray(picture) for picture in pictures], return_tensors="pt", do_resize=side > 100)
    image = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2)
    factor, addend = normalization.table()
    normalized = image * factor[:, None, None] + addend[:, None, None]
    got = patches(normalized, patch, 2, 2)
    assert expected.image_grid_thw.tolist() == [[1, side // patch, 2 * side // patch]] * 2
    torch.testing.assert_close(got, torch.as_tensor(expected.pixel_values), rtol=1e-5, atol=1e-5)


@every_family
def test_the_sequence_is_read_as_transformers_reads_it(family):
    policy = make(family, image_size=[32, 48]).eval()
    backbone = policy.backbone
    model = AutoModelForImageTextToText.from_config(AutoConfig.for_model(family, **FAMILIES[family])).eval().model
    model.visual.load_state_dict(backbone.visual.state_dict())
    model.language_model.load_state_dict(backbone.language_model.state_dict())

    before, after = torch.arange(5), torch.randint(5, 300, (2, 7))
    mask = torch.ones(2, 7, dtype=torch.bool)
    mask[1, 3:5] = False
    image = torch.randn(2, 2, 3, 32, 48)
    tokens = backbone.tokens(before, image, None, after, mask)

    pictures = torch.tensor([382, *[380] * 6, 383]).repeat(2).expand(2, -1)  # 2 × 3 tokens between two marks
    ids = torch.cat([before.expand(2, -1), pictures, after], dim=1)
    there = torch.cat([torch.ones(2, ids.shape[1] - 7, dtype=torch.bool), mask], dim=1)
    inputs = {
        "attention_mask": there.long(),
        "image_grid_thw": torch.tensor([[1, 4, 6]] * 4),
        "mm_token_type_ids": (ids == 380).int(),
    }
    positions, _ = model.get_rope_index(ids, **inputs)
    assert torch.equal(positions[:, there], tokens.positions[:, there])
    with torch.no_grad():
        expected = model(input_ids=ids, pixel_values=patches(image.flatten(0, 1), 8, 2, 2), **inputs).last_hidden_state
        got = backbone(tokens)
    torch.testing.assert_close(got[there], expected[there], rtol=1e-4, atol=1e-5)


def test_the_prompt_is_the_chat_of_qwen():
    before, after = around_instruction("You are a helpful assistant.")
    assert before == "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n"
    assert after == "<|im_end|>\n<|im_start|>assistant\n"
    assert around_instruction(None)[0] == "<|im_start|>user\n"


def test_training_and_inference_read_one_prompt(monkeypatch):
    policy = make(reasoning_weight=1.0)
    seen = []
    original = policy.backbone.tokens
    monkeypatch.setattr(policy.backbone, "tokens", lambda *args: seen.append(args) or original(*args))
    obs = observe()
    obs["task"] = ["open the drawer ||| It is closed.", "pick up the cube"]
    policy(**obs, actions=torch.randn(2, CHUNK, ACTION))
    policy.select_action(obs)
    (before, _, _, after, mask), (acting_before, _, _, acting_after, acting_mask) = seen
    length = acting_after.shape[1]
    assert torch.equal(before, acting_before)
    assert torch.equal(after[:, :length], acting_after)
    assert torch.equal(mask[:, :length], acting_mask)
    assert policy.tokenizer.decode(before) == "<|im_start|>user\n"
    assert policy.tokenizer.decode(acting_after[0][acting_mask[0]]).replace("</s>", "") == (
        "open the drawer<|im_end|>\n<|im_start|>assistant\n"
    )


@every_head
def test_everything_observed_matters(head):
    policy = moved(make(head=head))
    obs, noise = observe(), torch.randn(2, CHUNK, ACTION)
    answer = policy.select_action(obs, noise=noise)
    assert torch.equal(policy.select_action(obs, noise=noise), answer)
    for key, value in (("state", obs["state"] + 1), ("image", obs["image"] + 1), ("task", ["stop", "go"])):
        changed = policy.select_action({**obs, key: value}, noise=noise)
        assert not torch.allclose(changed, answer, rtol=1e-4, atol=1e-6), key


def test_guesses_are_clipped_to_what_was_seen_in_training():
    """As those from almost pure noise would run away."""
    policy = moved(make(head="diffusion", n_inference_steps=50))  # as many as in training
    with torch.no_grad():
        policy.head.unet.output.bias += 5.0  # wrong about all noise
    answer = policy.select_action(observe(), noise=torch.randn(2, CHUNK, ACTION))
    assert float(answer.abs().max()) <= 1
    actions = torch.randn(2, CHUNK, ACTION).clamp(-1, 1)
    actions[..., 1] = 2.5
    policy.train()(**observe(), actions=actions)
    assert policy.head.action_bound.largest.tolist() == [1, 2.5, 1]


@every_head
def test_what_is_not_there_does_not_matter(head):
    policy = moved(make(head=head))
    obs, noise = observe(), torch.randn(2, CHUNK, ACTION)
    obs["image_mask"] = torch.tensor([[True, False], [False, False]])
    obs["state_mask"] = torch.tensor([[True] * 4 + [False]] * 2)
    answer = policy.select_action(obs, noise=noise)
    changed = copy.deepcopy(obs)
    changed["image"][~obs["image_mask"]] = 3.0
    changed["state"][:, -1] = 3.0
    torch.testing.assert_close(policy.select_action(changed, noise=noise), answer, rtol=1e-4, atol=1e-5)
    # More room for the instruction is more padding.
    longer = moved(make(head=head, tokenizer_max_length=40))
    longer.load_state_dict(policy.state_dict())
    torch.testing.assert_close(longer.select_action(obs, noise=noise), answer, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("task", "parts"),
    [
        ("pick up the cup ||| It is left of the plate.", ("pick up the cup", "It is left of the plate.")),
        ("pick up the cup", ("pick up the cup", "")),
        ("a|||b|||c", ("a", "b|||c")),
    ],
)
def test_instruction_and_reasoning_are_told_apart(task, parts):
    assert split_task(task, "|||") == parts


def test_actions_do_not_depend_on_the_reasoning():
    policy = moved(make(reasoning_weight=1.0))
    obs, noise = observe(), torch.randn(2, CHUNK, ACTION)
    answer = policy.select_action(obs, noise=noise)
    with_reasons = {**obs, "task": [f"{task} ||| because" for task in obs["task"]]}
    assert torch.equal(policy.select_action(with_reasons, noise=noise), answer)
    actions = torch.randn(2, CHUNK, ACTION)
    losses = []
    for given in (obs, with_reasons):
        torch.manual_seed(0)
        losses.append(policy(**given, actions=actions))
    torch.testing.assert_close(losses[0]["action_loss"], losses[1]["action_loss"])
    assert losses[0]["reasoning_loss"] == 0
    assert losses[1]["reasoning_loss"] > 1
    assert losses[1]["loss"] == losses[1]["action_loss"] + losses[1]["reasoning_loss"]


def test_the_reasoning_loss_is_the_cross_entropy_of_its_tokens_alone():
    policy = make(reasoning_weight=1.0).eval()
    obs = observe(1)
    tokens = policy.tokenizer("up<|im_end|>").input_ids
    prompt = policy._prompt(obs["task"])
    after = torch.cat([prompt.after, torch.tensor([tokens])], dim=1)
    mask = torch.cat([prompt.after_mask, torch.ones(1, len(tokens), dtype=torch.bool)], dim=1)
    with torch.no_grad():
        hidden = policy.backbone(policy.backbone.tokens(prompt.before, obs["image"], None, after, mask))
        logits = hidden[0] @ policy.backbone.language_model.embed_tokens.weight.T
        logs = logits.log_softmax(dim=-1)
        expected = -torch.stack([logs[-1 - len(tokens) + i, token] for i, token in enumerate(tokens)]).mean()
        obs["task"] = [f"{obs['task'][0]} ||| up"]
        got = policy(**obs, actions=torch.zeros(1, CHUNK, ACTION))["reasoning_loss"]
    torch.testing.assert_close(got, expected)


@pytest.mark.parametrize("family", ["qwen2_vl", "qwen3_vl"])
def test_it_learns_to_reason_and_says_so(family):
    policy = make(family, reasoning_weight=1.0, reasoning_max_length=14).train()
    obs = observe()
    obs["task"] = ["open the drawer ||| up", "pick up the cube ||| no"]
    optimizer = torch.optim.AdamW(policy.parameters(), lr=3e-3)
    for _ in range(40):
        optimizer.zero_grad()
        policy(**obs, actions=torch.zeros(2, CHUNK, ACTION))["reasoning_loss"].backward()
        optimizer.step()
    assert policy.eval().reason(obs) == ["up", "no"]  # token by token, with a cache of what was read


@every_family
@every_head
def test_every_family_learns_saves_and_loads(family, head, tmp_path):
    untied = {**FAMILIES[family], "tie_word_embeddings": False}
    policy = make(family, head=head, backbone_config=untied, reasoning_weight=0.5)
    obs = observe()
    obs["task"] = [f"{task} ||| yes" for task in obs["task"]]
    moved(policy)(**obs, actions=torch.randn(2, CHUNK, ACTION))["loss"].backward()
    without = [name for name, p in policy.named_parameters() if p.grad is None or not p.grad.any()]
    assert without == []
    policy.save_pretrained(tmp_path)
    again = QwenVLDiffusionPolicy.from_pretrained(tmp_path).eval()
    noise = torch.randn(2, CHUNK, ACTION)
    assert torch.equal(again.select_action(obs, noise=noise), policy.select_action(obs, noise=noise))


def test_pretrained_weights_are_kept_and_not_asked_for_again(tmp_path):
    model = AutoModelForImageTextToText.from_config(AutoConfig.for_model("qwen2_vl", **FAMILIES["qwen2_vl"]))
    model.save_pretrained(tmp_path / "qwen")
    args = {"pretrained_backbone": str(tmp_path / "qwen"), "backbone_config": None}
    policy = make(**args)
    for name, weight in model.model.state_dict().items():
        assert torch.equal(policy.backbone.state_dict()[name], weight), name
    policy.save_pretrained(tmp_path / "policy")
    (tmp_path / "qwen" / "config.json").unlink()
    again = QwenVLDiffusionPolicy.from_pretrained(tmp_path / "policy")
    assert torch.equal(again.backbone.visual.merger.mlp[0].weight, model.model.visual.merger.mlp[0].weight)


def test_pretrained_weights_of_another_family_are_refused(tmp_path):
    AutoConfig.for_model("qwen3_vl", **FAMILIES["qwen3_vl"]).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"expected a qwen2_vl, got .* a qwen3_vl"):
        make(pretrained_backbone=str(tmp_path), backbone_config=None)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ({"backbone": "llava"}, "qwen2_vl, qwen2_5_vl, qwen3_vl, got 'llava'"),
        ({"head": "mlp"}, "diffusion or flow, got 'mlp'"),
        ({"pooling": "max"}, "mean or last, got 'max'"),
        ({"reasoning_weight": -1.0}, "at least 0, got -1"),
    ],
)
def test_wrong_settings_are_refused(args, message):
    with pytest.raises(ValueError, match=message):
        QwenVLDiffusionPolicyConfig(**args)


def test_an_image_size_that_makes_no_whole_tokens_is_refused():
    with pytest.raises(ValueError, match=r"image_size to be multiples of 16, .* got \[32, 40\]"):
        make(image_size=[32, 40])


@every_family
def test_the_patterns_for_lora_name_exactly_these_parts(family):
    policy = make(family)
    modules = dict(policy.named_modules())
    layers = {name for name, module in modules.items() if isinstance(module, nn.Linear)}
    part = {
        "vision": {name for name in layers if name.startswith("backbone.visual.blocks.")},
        "merger": {name for name in layers if "merger" in name},
        "language": {name for name in layers if name.startswith("backbone.language_model.")},
    }
    for name, pattern in LORA_TARGETS.items():
        assert {layer for layer in modules if re.fullmatch(pattern, layer)} == part[name] != set()
    assert set().union(*part.values()) == {name for name in layers if name.startswith("backbone.")}


def test_the_section_shows_how_parts_are_adapted():
    """The example in `configs/policy/qwen_vl_diffusion.yaml`, as it stands."""
    peft = pytest.importorskip("peft")
    section = (Path(menura.__file__).parent / "configs/policy/qwen_vl_diffusion.yaml").read_text(encoding="utf-8")
    example = section.partition("#\n# training:")[2]
    training = yaml.safe_load("\n".join(line.removeprefix("# ") for line in example.splitlines()))
    assert training["peft"]["target_modules"] == "|".join(LORA_TARGETS.values())
    assert [finetuning_problem(key, training) for key in ("peft", "learning_rates")] == [None, None]

    adapted = peft.get_peft_model(make(), peft.LoraConfig(**training["peft"]))
    learnt = {name for name, parameter in adapted.named_parameters() if parameter.requires_grad}
    adapters = {name for name in learnt if "lora" in name and ".backbone." in name}
    assert all(any(part in name for name in adapters) for part in (".visual.blocks.", ".merger.", ".language_model."))
    assert sum(".language_model." in name for name in adapters) == 2 * 2 * 7  # A and B of 7 layers in 2 blocks
    whole = {name.removeprefix("base_model.model.").partition(".")[0] for name in learnt - adapters}
    assert whole == {"prompt_norm", "projection", "state_projection", "head"}
    for pattern in training["learning_rates"]:
        assert any(fnmatch.fnmatchcase(name, pattern) for name in adapters)
    adapted(**observe(), actions=torch.randn(2, CHUNK, ACTION))["loss"].backward()


def test_it_runs_in_bfloat16():
    policy = moved(make()).to(torch.bfloat16)
    answer = policy.select_action(observe(), noise=torch.randn(2, CHUNK, ACTION))
    assert answer.dtype == torch.float32
    assert torch.isfinite(answer).all()


@pytest.mark.parametrize(
    ("family", "published"),
    [("qwen2_vl", 2_208_985_600), ("qwen2_5_vl", 3_754_622_976), ("qwen3_vl", 2_127_532_032)],
)
def test_the_real_ones_are_as_large_as_published(family, published):
    """Of Qwen2-VL-2B, Qwen2.5-VL-3B and Qwen3-VL-2B: the parameters of the weights on the Hub."""
    with torch.device("meta"):
        policy = QwenVLDiffusionPolicy(QwenVLDiffusionPolicyConfig(backbone=family, camera_names=["front"]))
    assert sum(parameter.numel() for parameter in policy.backbone.parameters()) == published
    assert PUBLISHED[family]["tie_word_embeddings"]
