"""RDT: against the authors' formulas, its conditions, the unified vector, the size of the real ones."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from diffusers import DPMSolverMultistepScheduler
from torch import Tensor
from torch.nn import functional

import menura
from menura.policies.common.dpm_solver import sample_dpm
from menura.policies.rdt.configuration_rdt import RDTPolicyConfig
from menura.policies.rdt.modeling_rdt import RDTPolicy
from menura.policies.rdt.weights_rdt import our_name

TINY = yaml.safe_load((Path(menura.__file__).parent / "configs/policy/tiny/rdt.yaml").read_text())["args"]
STATE, ACTION, UNIFIED, CHUNK, WIDTH, HEADS = 5, 3, 16, 8, 64, 2


def make(**args: Any) -> RDTPolicy:
    given = {**TINY, "state_dim": STATE, "action_dim": ACTION, "camera_names": ["front", "wrist"], **args}
    return RDTPolicy(RDTPolicyConfig(**given))


def observe(rows: int = 2, cameras: int = 2, state: int = STATE) -> dict[str, Any]:
    return {
        "state": torch.randn(rows, 2, state),
        "image": torch.randn(rows, 2, cameras, 3, 32, 32),
        "task": ["open the drawer", "pick up the cube"][:rows],
    }


# The network of the authors' code (`models/rdt/model.py`, `blocks.py`, `rdt_runner.py`), by its formulas, on weights
# under its names.


def linear(x: Tensor, weights: dict[str, Tensor], name: str) -> Tensor:
    return functional.linear(x, weights[f"{name}.weight"], weights[f"{name}.bias"])


def norm(x: Tensor, weights: dict[str, Tensor], name: str) -> Tensor:
    return x / (x.var(dim=-1, keepdim=True) + 1e-6).sqrt() * weights[f"{name}.weight"]


def attention(q: Tensor, k: Tensor, v: Tensor, weights: dict[str, Tensor], name: str) -> Tensor:
    q, k, v = (x.reshape(len(x), -1, HEADS, WIDTH // HEADS).transpose(1, 2) for x in (q, k, v))
    q, k = norm(q, weights, f"{name}.q_norm"), norm(k, weights, f"{name}.k_norm")
    shares = (q @ k.transpose(-2, -1) / math.sqrt(WIDTH // HEADS)).softmax(dim=-1)
    return linear((shares @ v).transpose(1, 2).flatten(2), weights, f"{name}.proj")


def mlp(x: Tensor, weights: dict[str, Tensor], names: list[str], activation: Any) -> Tensor:
    for name in names[:-1]:
        x = activation(linear(x, weights, name))
    return linear(x, weights, names[-1])


def gelu(x: Tensor) -> Tensor:
    return functional.gelu(x, approximate="tanh")


def embedded(number: Tensor, weights: dict[str, Tensor], name: str) -> Tensor:
    angles = number[:, None] * 10_000 ** (-torch.arange(128) / 128)
    waves = torch.cat([angles.cos(), angles.sin()], dim=1)
    return mlp(waves, weights, [f"{name}.mlp.0", f"{name}.mlp.2"], functional.silu)[:, None]


def authors_network(
    weights: dict[str, Tensor], noisy: Tensor, time: Tensor, state: Tensor, language: Tensor, images: Tensor
) -> Tensor:
    vectors = torch.cat([state[:, None], noisy], dim=1)
    vectors = torch.cat([vectors, torch.ones_like(vectors)], dim=2)
    x = mlp(vectors, weights, [f"state_adaptor.{i}" for i in (0, 2, 4)], gelu)
    frequency = torch.full((len(x),), 25.0)
    x = torch.cat(
        [embedded(time, weights, "model.t_embedder"), embedded(frequency, weights, "model.freq_embedder"), x], dim=1
    )
    x = x + weights["model.x_pos_embed"]
    language = mlp(language, weights, ["lang_adaptor.0", "lang_adaptor.2"], gelu)
    language = language + weights["model.lang_cond_pos_embed"][:, : language.shape[1]]
    images = mlp(images, weights, ["img_adaptor.0", "img_adaptor.2"], gelu) + weights["model.img_cond_pos_embed"]
    for i in range(4):
        block, condition = f"model.blocks.{i}", (language, images)[i % 2]
        normed = norm(x, weights, f"{block}.norm1")
        x = x + attention(*linear(normed, weights, f"{block}.attn.qkv").chunk(3, dim=2), weights, f"{block}.attn")
        q = linear(norm(x, weights, f"{block}.norm2"), weights, f"{block}.cross_attn.q")
        k, v = linear(condition, weights, f"{block}.cross_attn.kv").chunk(2, dim=2)
        x = x + attention(q, k, v, weights, f"{block}.cross_attn")
        x = x + mlp(norm(x, weights, f"{block}.norm3"), weights, [f"{block}.ffn.fc1", f"{block}.ffn.fc2"], gelu)
    x = norm(x, weights, "model.final_layer.norm_final")
    return mlp(x, weights, [f"model.final_layer.ffn_final.fc{i}" for i in (1, 2)], gelu)[:, -CHUNK:]


def authors_weights(n_cameras: int = 3) -> dict[str, Tensor]:
    """Random weights of a tiny one, under the names in `robotics-diffusion-transformer/rdt-1b`."""
    shapes: dict[str, tuple[int, ...]] = {
        "model.x_pos_embed": (1, 3 + CHUNK, WIDTH),
        "model.lang_cond_pos_embed": (1, 32, WIDTH),
        "model.img_cond_pos_embed": (1, 2 * n_cameras * 4, WIDTH),
    }

    def add(name: str, out: int, into: int) -> None:
        shapes.update({f"{name}.weight": (out, into), f"{name}.bias": (out,)})

    for name in ("model.t_embedder", "model.freq_embedder"):
        add(f"{name}.mlp.0", WIDTH, 256)
        add(f"{name}.mlp.2", WIDTH, WIDTH)
    for name, into in (("lang_adaptor", 32), ("img_adaptor", 32), ("state_adaptor", 2 * UNIFIED)):
        for i in (0, 2, 4) if name == "state_adaptor" else (0, 2):
            add(f"{name}.{i}", WIDTH, WIDTH if i else into)
    for block in (f"model.blocks.{i}" for i in range(4)):
        for i in (1, 2, 3):
            shapes[f"{block}.norm{i}.weight"] = (WIDTH,)
        add(f"{block}.attn.qkv", 3 * WIDTH, WIDTH)
        add(f"{block}.cross_attn.q", WIDTH, WIDTH)
        add(f"{block}.cross_attn.kv", 2 * WIDTH, WIDTH)
        for kind in ("attn", "cross_attn"):
            add(f"{block}.{kind}.proj", WIDTH, WIDTH)
            for part in ("q_norm", "k_norm"):
                shapes[f"{block}.{kind}.{part}.weight"] = (WIDTH // HEADS,)
        for layer in ("fc1", "fc2"):
            add(f"{block}.ffn.{layer}", WIDTH, WIDTH)
    shapes["model.final_layer.norm_final.weight"] = (WIDTH,)
    add("model.final_layer.ffn_final.fc1", WIDTH, WIDTH)
    add("model.final_layer.ffn_final.fc2", UNIFIED, WIDTH)
    return {name: 0.1 * torch.randn(shape) for name, shape in shapes.items()}


def test_weights_of_the_authors_answer_as_in_their_network(tmp_path):
    weights = authors_weights()
    torch.save(weights, tmp_path / "pytorch_model.bin")
    cameras = ["exterior", "right", "left"]
    policy = make(state_dim=UNIFIED, action_dim=UNIFIED, camera_names=cameras, pretrained=str(tmp_path)).eval()
    obs = observe(cameras=3, state=UNIFIED)
    noisy, time = torch.randn(2, CHUNK, UNIFIED), torch.tensor([3, 40])
    with torch.no_grad():
        condition = policy.condition(obs)
        tokens = [policy.text_encoder([task], policy._tokenize) for task in obs["task"]]
        language = [hidden[:, mask[0]] for hidden, mask in tokens]  # each as long as its text is, as theirs is
        images = policy.vision_encoder(obs["image"]).flatten(1, 3)
        got = policy.denoise(noisy, time, condition)
        state = obs["state"][:, -1]
        for row in (slice(0, 1), slice(1, 2)):
            expected = authors_network(weights, noisy[row], time[row], state[row], language[row.start], images[row])
            torch.testing.assert_close(got[row], expected, rtol=1e-4, atol=1e-5)


def test_fewer_cameras_and_shorter_chunks_are_taken_out_of_the_authors_weights(tmp_path):
    weights = authors_weights()
    torch.save(weights, tmp_path / "pytorch_model.bin")
    policy = make(pretrained=str(tmp_path), chunk_size=4)
    images = weights["model.img_cond_pos_embed"].reshape(2, 3, 4, WIDTH)
    assert torch.equal(policy.transformer.image_positions, images[:, :2].flatten(0, 2))
    assert torch.equal(policy.transformer.positions, weights["model.x_pos_embed"][0, :7])
    assert make(pretrained=str(tmp_path), camera_names=None).transformer.blocks[1].cross_attention is None
    # Written as a checkpoint, the directory is asked no more.
    policy.save_pretrained(tmp_path / "saved")
    (tmp_path / "pytorch_model.bin").unlink()
    again = RDTPolicy.from_pretrained(tmp_path / "saved")
    assert torch.equal(again.transformer.positions, policy.transformer.positions)


def test_weights_that_do_not_fit_are_refused_by_name(tmp_path):
    weights = authors_weights()
    del weights["model.blocks.3.ffn.fc2.bias"]
    torch.save(weights, tmp_path / "pytorch_model.bin")
    with pytest.raises(ValueError, match=r"transformer\.blocks\.3\.feedforward\.outer\.bias of shape \[64\], got None"):
        make(pretrained=str(tmp_path))


def test_every_name_of_the_authors_is_one_of_ours():
    assert our_name("model.final_layer.ffn_final.fc2.bias") == "transformer.final_layers.outer.bias"
    ours = {our_name(name) for name in authors_weights()}
    assert ours == {n for n in make().state_dict() if not n.startswith(("text_encoder.", "vision_encoder."))}


@pytest.mark.parametrize("steps", [1, 2, 5, 16])
def test_the_solver_steps_as_in_diffusers(steps):
    matrix = 0.3 * torch.randn(3, 3)

    def guess(sample: Tensor, time: Tensor) -> Tensor:
        return torch.tanh(sample @ matrix + time[:, None, None] / 1000)

    noise = torch.randn(2, 4, 3)
    scheduler = DPMSolverMultistepScheduler(
        num_train_timesteps=1000, beta_schedule="squaredcos_cap_v2", prediction_type="sample"
    )
    scheduler.set_timesteps(steps)
    expected = noise
    for time in scheduler.timesteps:
        expected = scheduler.step(guess(expected, time.expand(2)), time, expected).prev_sample
    torch.testing.assert_close(sample_dpm(guess, noise, steps), expected, rtol=1e-5, atol=1e-6)


def test_states_and_actions_lie_where_the_indices_say():
    policy = make(state_indices=[10, 0, 1, 2, 3], action_indices=[4, 15, 0])
    values = torch.arange(1.0, 6.0)[None]
    unified = policy._unified(values, policy.config.state_indices)[0]
    assert unified[[10, 0, 1, 2, 3]].tolist() == [1, 2, 3, 4, 5]
    assert unified.count_nonzero() == 5
    assert policy._own(torch.arange(16.0)).tolist() == [4, 15, 0]
    condition = policy.condition(observe())
    assert condition.indicator[0].nonzero().flatten().tolist() == [0, 4, 15]
    clean = policy.denoise(torch.randn(2, CHUNK, UNIFIED), torch.tensor([5, 5]), condition)
    assert not clean[..., [1, 2, 3, 5, 14]].any()


def test_actions_lie_with_the_state_when_they_are_as_many():
    args = {**TINY, "state_dim": 3, "action_dim": 3, "state_indices": [5, 6, 10]}
    assert RDTPolicyConfig(**args).action_indices == [5, 6, 10]


@pytest.mark.parametrize("indices", [[0, 1], [0, 1, 1], [0, 1, 16]])
def test_wrong_indices_are_refused(indices):
    with pytest.raises(ValueError, match="3 different places from 0 to 15"):
        RDTPolicyConfig(**{**TINY, "action_dim": 3, "action_indices": indices})


def test_every_condition_matters():
    policy = make().eval()
    obs, noise = observe(), torch.randn(2, CHUNK, UNIFIED)
    answer = policy.select_action(obs, noise=noise)
    for key in ("state", "image"):
        changed = obs[key].clone()
        changed[:, -1] += 1.0
        assert not torch.allclose(policy.select_action({**obs, key: changed}, noise=noise), answer, atol=1e-6)
    older = obs["image"].clone()
    older[:, 0] += 1.0
    assert not torch.allclose(policy.select_action({**obs, "image": older}, noise=noise), answer, atol=1e-6)
    assert not torch.allclose(policy.select_action({**obs, "task": ["", ""]}, noise=noise), answer, atol=1e-6)
    policy.config.control_frequency = 5.0
    assert not torch.allclose(policy.select_action(obs, noise=noise), answer, atol=1e-6)


def test_a_row_without_any_image_answers():
    policy = make().eval()
    obs, noise = observe(), torch.randn(2, CHUNK, UNIFIED)
    mask = torch.tensor([[False, False], [True, True]])
    answer = policy.select_action({**obs, "image_mask": mask}, noise=noise)
    assert torch.isfinite(answer).all()
    obs["image"][0] = 7.0
    torch.testing.assert_close(policy.select_action({**obs, "image_mask": mask}, noise=noise), answer)


def test_the_first_observation_repeated_is_not_looked_at():
    policy = make().eval()
    obs, noise = observe(), torch.randn(2, CHUNK, UNIFIED)
    obs["observation_is_pad"] = torch.tensor([[True, False], [True, False]])
    answer = policy.select_action(obs, noise=noise)
    obs["image"][:, 0] = 7.0
    torch.testing.assert_close(policy.select_action(obs, noise=noise), answer)


def test_a_text_is_encoded_once(monkeypatch):
    policy = make().eval()
    calls = []
    monkeypatch.setattr(policy, "_tokenize", lambda texts: calls.append(texts) or RDTPolicy._tokenize(policy, texts))
    obs = observe()
    first = policy.select_action(obs, noise=torch.zeros(2, CHUNK, UNIFIED))
    assert torch.equal(policy.select_action(obs, noise=torch.zeros(2, CHUNK, UNIFIED)), first)
    assert calls == [["open the drawer", "pick up the cube"]]


@pytest.mark.parametrize(
    ("args", "published"), [({}, 1.2e9), ({"hidden_size": 1024, "n_layers": 14, "n_heads": 32}, 0.17e9)]
)
def test_the_real_ones_are_as_large_as_published(args, published):
    """1.2 B (section 4 of the paper) and 170 M (the authors' README), encoders not counted."""
    with torch.device("meta"):
        policy = RDTPolicy(RDTPolicyConfig(camera_names=["exterior", "right", "left"], **args))
    parts = {name: sum(p.numel() for p in part.parameters()) for name, part in policy.named_children()}
    assert parts["text_encoder"] == 4_762_310_656  # T5-v1.1-XXL's encoder
    assert parts["vision_encoder"] == 412_987_248  # SigLIP-so400m, without the pooling head
    learnt = sum(p.numel() for p in policy.parameters() if p.requires_grad)
    assert abs(learnt - published) < 0.05 * published


def test_what_was_encoded_while_acting_serves_training_too():
    policy = make()
    obs = observe()
    with torch.inference_mode():
        policy.select_action(obs)
    policy(**obs, actions=torch.randn(2, CHUNK, ACTION))["loss"].backward()
    assert policy.language_adaptor[0].weight.grad.any()
