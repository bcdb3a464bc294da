"""DiTMultitaskPolicy: its size, its parts, and what it computes once."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from transformers import CLIPConfig, CLIPModel

from menura.policies.common.dit import rotate, rotation
from menura.policies.dit_multitask.configuration_dit_multitask import DiTMultitaskPolicyConfig
from menura.policies.dit_multitask.modeling_dit_multitask import DiTMultitaskPolicy

HALF = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
VISION = {**HALF, "image_size": 32, "patch_size": 16}
TEXT = {**HALF, "vocab_size": 384, "max_position_embeddings": 77, "bos_token_id": 0, "eos_token_id": 1}
#: openai/clip-vit-base-patch16, the text half.
CLIP_TEXT = {"model_type": "clip_text_model", "hidden_size": 512, "intermediate_size": 2048, "num_hidden_layers": 12}
CLIP_TEXT |= {"num_attention_heads": 8, "vocab_size": 49408, "max_position_embeddings": 77}

LEROBOT_PARAMETERS = 220_846_862  # made with those halves of CLIP


def small(**args) -> DiTMultitaskPolicy:
    torch.manual_seed(0)
    defaults = {
        "state_dim": 3,
        "action_dim": 2,
        "camera_names": ["front"],
        "image_size": [32, 32],
        "chunk_size": 4,
        "n_action_steps": 2,
        "hidden_size": 32,
        "n_layers": 2,
        "n_heads": 2,
        "time_dim": 16,
        "n_diffusion_steps": 10,
        "prediction_type": "sample",
        "vision_encoder": {"model_type": "clip_vision_model", **VISION},
        "text_encoder": {"model_type": "clip_text_model", **TEXT},
        "tokenizer": "bytes",
    }
    return DiTMultitaskPolicy(DiTMultitaskPolicyConfig(**{**defaults, **args})).eval()


def observed(rows: int, cameras: int = 1) -> dict:
    return {
        "state": torch.randn(rows, 2, 3),
        "image": torch.rand(rows, 2, cameras, 3, 32, 32),
        "task": ["open the door", "close it"] * (rows // 2),
    }


def test_with_lerobots_defaults_it_is_as_large_as_lerobots():
    config = DiTMultitaskPolicyConfig(
        state_dim=14, action_dim=14, camera_names=["front"], learned_positions=False,
        text_encoder=CLIP_TEXT, tokenizer="bytes",
    )  # fmt: skip
    with torch.device("meta"):
        policy = DiTMultitaskPolicy(config)
    # As LeRobot 0.6.1 builds it of CLIP ViT-B/16 for a state and an action of 14 and one camera; but for the layer norm
    # of CLIP's pooled output, two times 768 weights, which neither uses.
    assert sum(p.numel() for p in policy.parameters()) == LEROBOT_PARAMETERS - 2 * 768
    assert sum(p.numel() for p in policy.vision.parameters()) == 85_799_424 - 2 * 768
    assert sum(p.numel() for p in policy.text.parameters()) == 63_165_952  # CLIP's text model


@pytest.mark.parametrize("objective", ["diffusion", "flow"])
def test_it_answers_the_chunk_from_now_on_of_what_it_predicts(objective):
    policy = small(objective=objective)
    assert policy.config.action_offsets == [-1, 0, 1, 2, 3]
    assert policy.noise_shape == (5, 2)
    noise = torch.randn(2, 5, 2)
    obs = observed(2)
    with torch.no_grad():
        answer = policy.select_action(obs, noise=noise)
        condition = policy.condition(obs)
        if objective == "flow":
            expected = noise
            for i in range(10):
                expected = expected + 0.1 * policy.denoise(expected, torch.full((2,), i / 10), condition)
        else:
            denoise = lambda sample, time: policy.denoise(sample, time, condition)  # noqa: E731
            expected = policy.process.sample(denoise, noise, 10, 1.0)
    assert answer.shape == (2, 4, 2)
    torch.testing.assert_close(answer, expected[:, 1:], rtol=1e-4, atol=1e-5)


def test_rotary_positions_are_those_of_the_paper():
    """RoFormer, equation 34: pairs of dimensions turned by position · base^(-2i/d)."""
    x = torch.randn(5, 6)
    turned = rotate(x, rotation(5, 6, like=x))
    for position in range(5):
        for i in range(3):
            angle = torch.tensor(position * 10_000 ** (-2 * i / 6))
            a, b = x[position, i], x[position, i + 3]
            torch.testing.assert_close(turned[position, i], a * angle.cos() - b * angle.sin())
            torch.testing.assert_close(turned[position, i + 3], b * angle.cos() + a * angle.sin())


def test_siglip_sees_and_reads_as_well(tmp_path):
    policy = small(
        vision_encoder={"model_type": "siglip_vision_model", **VISION},
        vision_pooling="pooler",
        text_encoder={"model_type": "siglip_text_model", **HALF, "vocab_size": 384, "max_position_embeddings": 77,
                      "projection_size": 32},
    )  # fmt: skip
    obs, noise = observed(2), torch.randn(2, 5, 2)
    loss = policy.train()(**obs, actions=torch.randn(2, 5, 2))["loss"]
    loss.backward()
    expected = policy.eval().select_action(obs, noise=noise)
    policy.save_pretrained(tmp_path)
    assert torch.equal(DiTMultitaskPolicy.from_pretrained(tmp_path).select_action(obs, noise=noise), expected)


def test_clip_from_a_directory_gives_both_halves(tmp_path):
    clip = CLIPModel(CLIPConfig(vision_config=VISION, text_config=TEXT)).eval()
    clip.save_pretrained(tmp_path / "clip")
    names = {"vision_encoder": None, "pretrained_backbone": str(tmp_path / "clip")}
    policy = small(**names, text_encoder=str(tmp_path / "clip"))
    image, ids = torch.rand(2, 3, 32, 32), torch.tensor([[5, 6, 1, 0], [7, 1, 0, 0]])
    with torch.no_grad():
        torch.testing.assert_close(policy.vision(image), clip.vision_model(image).last_hidden_state[:, 0])
        mask = torch.tensor([[1, 1, 1, 0], [1, 1, 0, 0]], dtype=torch.bool)
        pooled = clip.text_model(ids, attention_mask=mask).pooler_output
        torch.testing.assert_close(policy.text.encode(ids, mask)[0], pooled)
    assert policy.config.vision_encoder["model_type"] == "clip_vision_model"
    assert policy.config.pretrained_backbone is None


def test_the_vision_model_learns_more_slowly_and_the_text_model_not_at_all():
    policy = small()
    rest, vision = policy.get_optim_groups(SimpleNamespace(learning_rate=1e-3, weight_decay=0.0))
    assert (rest["lr"], vision["lr"]) == (1e-3, pytest.approx(1e-4))
    assert {id(p) for p in vision["params"]} == {id(p) for p in policy.vision.parameters()}
    frozen = {id(p) for p in policy.text.parameters()}
    assert not frozen & {id(p) for p in rest["params"]}
    assert len(frozen) + len(rest["params"]) + len(vision["params"]) == len(list(policy.parameters()))


def test_images_are_seen_once_a_chunk_all_in_one_batch():
    policy = small(camera_names=["front", "wrist"])
    seen: list[int] = []
    policy.vision.register_forward_hook(lambda _m, args, _o: seen.append(len(args[0])))
    policy.select_action(observed(2, cameras=2))
    assert seen == [2 * 2 * 2]  # rows, steps, cameras


def test_a_crop_is_the_centre_when_acting():
    policy = small(image_size=[40, 40], crop_shape=[32, 32])
    image = torch.rand(2, 2, 1, 3, 40, 40)
    obs = {**observed(2), "image": image}
    noise = torch.randn(2, 5, 2)
    cut = {**obs, "image": image[..., 4:36, 4:36]}
    expected = small().select_action(cut, noise=noise)
    torch.testing.assert_close(policy.select_action(obs, noise=noise), expected)
