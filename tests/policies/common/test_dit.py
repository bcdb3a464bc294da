"""The diffusion transformer against a naive one, which computes everything anew and token by token."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional

from menura.policies.common.dit import DiT
from menura.policies.common.sinusoidal import sinusoidal

WIDTH, HEADS, TIME, CONDITION = 8, 2, 4, 6


def dit(**args) -> DiT:
    torch.manual_seed(0)
    model = DiT(3, 4, WIDTH, 2, HEADS, CONDITION, time_dim=TIME, **args).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model


def norm(x):
    return (x - x.mean(-1, keepdim=True)) / (x.var(-1, unbiased=False, keepdim=True) + 1e-6).sqrt()


def attend(queries, keys, values):
    """Head by head and token by token."""
    size, rows = WIDTH // HEADS, []
    for query in queries:
        heads = []
        for h in range(HEADS):
            part = slice(h * size, (h + 1) * size)
            weights = torch.stack([(query[part] @ key[part]) / math.sqrt(size) for key in keys]).softmax(0)
            heads.append(sum(w * value[part] for w, value in zip(weights, values, strict=True)))
        rows.append(torch.cat(heads))
    return torch.stack(rows)


def naive(model: DiT, sample, time, condition, memory=None, visible=None):
    """One row: (T, A), (), (C,), (N, D) -> (T, A)."""
    waves = sinusoidal(1000 * time, TIME)
    features = functional.silu(torch.cat([model.time_features.layers(waves), condition]))  # side by side
    x = model.input(sample) + model.positions.weight

    def modulated(modulation):
        weight = torch.cat([modulation.time.weight, modulation.condition.weight], dim=1)
        return (weight @ features + modulation.time.bias).chunk(modulation.parts)

    for block in model.blocks:
        parts = list(modulated(block.modulation))
        shift, scale, gate = parts[:3]
        queries, keys, values = block.attention.queries_keys_values(norm(x) * (1 + scale) + shift).chunk(3, -1)
        x = x + gate * block.attention.output(attend(queries, keys, values))
        if memory is not None:
            shift, scale, gate = parts[3:6]
            cross, seen = block.cross_attention, memory[visible]
            queries = cross.queries(norm(x) * (1 + scale) + shift)
            x = x + gate * cross.output(attend(queries, cross.keys(seen), cross.values(seen)))
        shift, scale, gate = parts[-3:]
        x = x + gate * block.feedforward(norm(x) * (1 + scale) + shift)
    shift, scale = modulated(model.output_modulation)
    return model.output(norm(x) * (1 + scale) + shift)


@pytest.mark.parametrize("remembers", [False, True])
def test_it_is_the_naive_one(remembers):
    model = dit(memory=remembers, rotary=False, learned_positions=True)
    sample, time, condition = torch.randn(3, 4, 3), torch.rand(3), torch.randn(3, CONDITION)
    memory = torch.randn(3, 5, WIDTH) if remembers else None
    visible = torch.rand(3, 5) < 0.7
    visible[:, 0] = True
    with torch.no_grad():
        got = model(sample, time, model.constants(condition, memory, visible if remembers else None))
        for row in range(3):
            rest = () if memory is None else (memory[row], visible[row])
            expected = naive(model, sample[row], time[row], condition[row], *rest)
            torch.testing.assert_close(got[row], expected, rtol=1e-4, atol=1e-5)


def test_at_first_every_block_lets_its_input_through_and_nothing_is_said():
    torch.manual_seed(0)
    model = DiT(3, 4, WIDTH, 2, HEADS, CONDITION, time_dim=TIME)
    for module in model.modules():
        if isinstance(module, torch.nn.Linear):
            module.reset_parameters()
    sample = torch.randn(2, 4, 3)
    said = model(sample, torch.rand(2), model.constants(torch.randn(2, CONDITION)))
    assert torch.equal(said, torch.zeros_like(sample))
