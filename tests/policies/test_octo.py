"""Octo: who attends to whom, its tokenizers, its head, the size of the real ones."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

import menura
from menura.policies.octo.configuration_octo import OctoPolicyConfig
from menura.policies.octo.head_octo import DiffusionHead
from menura.policies.octo.modeling_octo import OctoPolicy
from menura.policies.octo.tokenizers_octo import StandardizedConv2d, bins
from menura.policies.octo.transformer_octo import block_mask

TINY = yaml.safe_load((Path(menura.__file__).parent / "configs/policy/tiny/octo.yaml").read_text())["args"]
STATE, ACTION, CHUNK = 5, 3, 4


def make(**args: Any) -> OctoPolicy:
    given = {**TINY, "state_dim": STATE, "action_dim": ACTION, "camera_names": ["front", "wrist"], **args}
    return OctoPolicy(OctoPolicyConfig(**given))


def observe(rows: int = 2) -> dict[str, Any]:
    tasks = ["open the drawer", "pick up the cube"]
    return {"state": torch.randn(rows, 2, STATE), "image": torch.randn(rows, 2, 2, 3, 32, 32), "task": tasks[:rows]}


def test_the_mask_is_as_drawn_by_hand():
    """Two tokens of instruction (L); two steps of two observation tokens (a, b) and one readout (r)."""
    drawn = """
         L L  a b r  a b r
      L  x x  . . .  . . .
      L  x x  . . .  . . .
      a  x x  x x .  . . .
      b  x x  x x .  . . .
      r  x x  x x x  . . .
      a  x x  x x .  x x .
      b  x x  x x .  x x .
      r  x x  x x x  x x x
    """
    rows = [line.split()[1:] for line in drawn.strip().splitlines()[1:]]
    expected = torch.tensor([[mark == "x" for mark in row] for row in rows])
    assert torch.equal(block_mask(2, 2, 2, 1, torch.device("cpu")), expected)


def test_what_the_transformer_is_given(monkeypatch):
    """Instruction, then each step: front (2 × 2 tokens), wrist (1), state (5), instruction again, readout."""
    policy = make().eval()
    seen = {}
    monkeypatch.setattr(
        policy.transformer, "forward", lambda x, visible: seen.update(tokens=x, visible=visible) or torch.zeros_like(x)
    )
    obs = observe()
    obs["image_mask"] = torch.tensor([[True, False], [True, True]])
    obs["state_mask"] = torch.tensor([[True] * 5, [True] * 4 + [False]])
    obs["observation_is_pad"] = torch.tensor([[False, False], [True, False]])
    policy.condition(obs)
    length, step = 16, 4 + 1 + 5 + 16 + 1
    assert seen["tokens"].shape == (2, length + 2 * step, 64)
    newest = seen["visible"][:, 0, -1]  # what the last readout attends to
    n_text = [len(text) + 1 for text in obs["task"]]  # bytes and the end of the sequence
    text = [torch.arange(16) < n for n in n_text]
    yes, no = torch.tensor([True]), torch.tensor([False])
    first = [yes] * 4 + [no] + [yes] * 5 + [text[0], yes]
    assert torch.equal(newest[0], torch.cat([text[0], *first, *first]))
    padded = [no] * (step - 1) + [yes]
    second = [yes] * 5 + [yes] * 4 + [no, text[1], yes]
    assert torch.equal(newest[1], torch.cat([text[1], *padded, *second]))
    # The instruction is repeated as it is, its positions included.
    tokens = seen["tokens"]
    assert torch.equal(tokens[:, :16], tokens[:, 16 + 10 : 16 + 26])
    assert torch.equal(tokens[:, :16], tokens[:, 16 + step + 10 : 16 + step + 26])


def test_readouts_read_and_do_not_write():
    policy = make().eval()
    seen = []
    policy.transformer.register_forward_hook(lambda module, inputs, output: seen.append(output))
    obs = observe()
    policy.condition(obs)
    with torch.no_grad():
        policy.readouts += 1.0
    policy.condition(obs)
    step = 4 + 1 + 5 + 16 + 1
    is_readout = torch.zeros(16 + 2 * step, dtype=torch.bool)
    is_readout[[15 + step, 15 + 2 * step]] = True
    assert torch.equal(seen[0][:, ~is_readout], seen[1][:, ~is_readout])
    assert not torch.allclose(seen[0][:, is_readout], seen[1][:, is_readout])


def test_everything_observed_matters():
    policy = make().eval()
    obs, noise = observe(), torch.randn(2, CHUNK, ACTION)
    answer = policy.select_action(obs, noise=noise)
    for key in ("state", "image"):
        for step in (0, 1):
            changed = obs[key].clone()
            changed[:, step] += 1.0
            assert not torch.equal(policy.select_action({**obs, key: changed}, noise=noise), answer), (key, step)
    assert not torch.equal(policy.select_action({**obs, "task": ["stop", "go"]}, noise=noise), answer)


def test_a_padded_observation_does_not_matter():
    policy = make().eval()
    obs, noise = observe(), torch.randn(2, CHUNK, ACTION)
    obs["observation_is_pad"] = torch.tensor([[True, False]] * 2)
    answer = policy.select_action(obs, noise=noise)
    obs["image"][:, 0], obs["state"][:, 0] = 7.0, 7.0
    torch.testing.assert_close(policy.select_action(obs, noise=noise), answer)


def test_without_proprio_the_state_is_not_read():
    policy = make(proprio=False).eval()
    obs, noise = observe(), torch.randn(2, CHUNK, ACTION)
    answer = policy.select_action(obs, noise=noise)
    assert torch.equal(policy.select_action({**obs, "state": obs["state"] + 1}, noise=noise), answer)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ({"camera_names": []}, "a camera in camera_names, or proprio"),
        ({"image_size": [250, 250]}, "image_size to be multiples of 16"),
        ({"stem_widths": [32, 96, 192]}, "four multiples of 32"),
        ({"hidden_size": 100}, "multiple of n_heads"),
        ({"scheduler": "euler"}, "one of ddpm, ddim, got 'euler'"),
    ],
)
def test_wrong_settings_are_refused(args, message):
    with pytest.raises(ValueError, match=message), torch.device("meta"):
        OctoPolicy(OctoPolicyConfig(**args))


def test_bins_are_equally_likely_and_end_at_the_last():
    normal = torch.distributions.Normal(0.0, 1.0)
    edges = normal.icdf(torch.arange(1, 256) / 256)
    values = torch.cat([torch.randn(500), torch.tensor([-9.0, 9.0])])
    assert torch.equal(bins(values), torch.bucketize(values, edges, right=True))
    assert bins(torch.tensor([-9.0, 0.0, 9.0])).tolist() == [0, 128, 255]
    counts = torch.bincount(bins(torch.randn(100_000)), minlength=256)
    assert (counts.float() - 100_000 / 256).abs().max() < 6 * math.sqrt(100_000 / 256)


def test_weights_of_convolutions_are_standardized():
    convolution = StandardizedConv2d(3, 4, 3)
    with torch.no_grad():
        convolution.weight.mul_(7.0).add_(3.0)
    plain = torch.nn.Conv2d(3, 4, 3)
    weight = convolution.weight.detach().flatten(1)
    standard = (weight - weight.mean(dim=1, keepdim=True)) / (weight.std(dim=1, keepdim=True, unbiased=False) + 1e-5)
    plain.load_state_dict({"weight": standard.reshape(4, 3, 3, 3), "bias": convolution.bias.detach()})
    image = torch.randn(2, 3, 8, 8)
    torch.testing.assert_close(convolution(image), plain(image))


def test_the_head_is_the_authors():
    """Its first layer over [time, observation, actions], computed in two parts."""
    config = OctoPolicyConfig(**TINY, state_dim=STATE, action_dim=ACTION)
    head = DiffusionHead(config)
    head.reset_parameters()
    readout, sample, time = torch.randn(2, 64), torch.randn(2, CHUNK, ACTION), torch.tensor([3, 7])
    waves = 2 * math.pi * time[:, None] * head.frequencies
    first, _, second = head.time_layers
    features = second(torch.nn.functional.silu(first(torch.cat([waves.cos(), waves.sin()], dim=1))))
    weight = torch.cat([head.input.weight[:, :32], head.condition_input.weight, head.input.weight[:, 32:]], dim=1)
    x = torch.cat([features, readout, sample.flatten(1)], dim=1) @ weight.T + head.condition_input.bias
    for block in head.blocks:
        norm, widen, _, narrow = block.layers
        x = x + narrow(torch.nn.functional.silu(widen(norm(x))))
    expected = head.output[1](torch.nn.functional.silu(x)).reshape(2, CHUNK, ACTION)
    torch.testing.assert_close(head(sample, time, head.constants(readout)), expected)


def test_the_authors_scheduler_draws_from_the_generators():
    policy = make(scheduler="ddpm", n_inference_steps=20).eval()
    generators = [[torch.Generator().manual_seed(seed) for seed in (1, 2)] for _ in range(2)]
    obs = observe()
    first, second = (policy.select_action(obs, generator=generator) for generator in generators)
    assert torch.equal(first, second)
    assert first.abs().max() <= 5.0


@pytest.mark.parametrize(
    ("args", "published"), [({}, 27e6), ({"hidden_size": 768, "n_heads": 12, "feedforward_size": 3072}, 93e6)]
)
def test_the_real_ones_are_as_large_as_published(args, published):
    """Octo-Small 27 M and Octo-Base 93 M (README of the authors' code), the text encoder not counted."""
    with torch.device("meta"):
        policy = OctoPolicy(OctoPolicyConfig(camera_names=["primary", "wrist"], **args))
    assert sum(p.numel() for p in policy.text_encoder.parameters()) == 109_628_544  # T5-base's encoder
    learnt = sum(p.numel() for p in policy.parameters() if p.requires_grad)
    assert abs(learnt - published) < 0.05 * published
