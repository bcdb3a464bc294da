"""A prefix read once, and an expert that attends to it, against one sequence in which all are computed together."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import DynamicCache, GemmaConfig, GemmaModel, LlamaConfig
from transformers.models.gemma.modeling_gemma import apply_rotary_pos_emb

from menura.policies.common.action_expert import (
    GemmaCachedLayer,
    LlamaCachedLayer,
    PrefixModel,
    rotate,
    rotation_at,
    time_embedding,
)
from menura.policies.common.block_masks import block_causal_mask, positions_of

SIZES = {"vocab_size": 20, "num_hidden_layers": 3, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8}
KINDS = {"gemma": (GemmaCachedLayer, GemmaConfig), "llama": (LlamaCachedLayer, LlamaConfig)}
N_PREFIX, N_SUFFIX = 5, 4
BLOCKS = (N_PREFIX, 1, N_SUFFIX - 1)


def parts(kind: str):
    torch.manual_seed(0)
    layer_class, config_class = KINDS[kind]
    prefix = PrefixModel(layer_class, config_class(**SIZES, hidden_size=24, intermediate_size=32))
    narrow = config_class(**SIZES, hidden_size=16, intermediate_size=20)
    expert = [layer_class(narrow, i) for i in range(3)]
    there = torch.ones(2, N_PREFIX + N_SUFFIX, dtype=torch.bool)
    there[1, 2:4] = False
    return prefix, expert, torch.randn(2, N_PREFIX, 24), torch.randn(2, N_SUFFIX, 16), there


def together(prefix: PrefixModel, expert: list, x: Tensor, y: Tensor, there: Tensor) -> Tensor:
    """One sequence, softmax written out (openpi, `gemma.py`, `Attention`)."""
    positions = there.long().cumsum(1) - 1
    frequencies = 10_000.0 ** (-torch.arange(0, 8, 2) / 8)
    angles = positions[..., None] * frequencies
    cosine, sine = (torch.cat([f(angles)] * 2, dim=-1)[:, None] for f in (torch.cos, torch.sin))
    numbers = torch.tensor([0] * N_PREFIX + [1] + [2] * (N_SUFFIX - 1))
    seen = (numbers[None, :] <= numbers[:, None]) & there[:, None, :]

    def split(projected: Tensor) -> Tensor:
        return projected.reshape(2, projected.shape[1], -1, 8).transpose(1, 2)

    def turn(heads: Tensor) -> Tensor:
        return heads * cosine + torch.cat((-heads[..., 4:], heads[..., :4]), dim=-1) * sine

    for number, (layer, own) in enumerate(zip(prefix.layers, expert, strict=True)):
        a, b = layer.input_layernorm(x), own.input_layernorm(y)
        keys = turn(split(torch.cat((layer.self_attn.k_proj(a), own.self_attn.k_proj(b)), dim=1)))
        values = split(torch.cat((layer.self_attn.v_proj(a), own.self_attn.v_proj(b)), dim=1))
        last = number == len(expert) - 1  # what the prefix answers there is read by nothing
        of_prefix = torch.zeros(2, N_PREFIX, 32) if last else layer.self_attn.q_proj(a)
        queries = turn(split(torch.cat((of_prefix, own.self_attn.q_proj(b)), dim=1)))
        scores = queries @ keys.repeat_interleave(2, dim=1).transpose(2, 3) / math.sqrt(8)
        weights = scores.masked_fill(~seen[:, None], -1e30).softmax(dim=-1)
        mixed = (weights @ values.repeat_interleave(2, dim=1)).transpose(1, 2).reshape(2, -1, 32)
        y = y + own.self_attn.o_proj(mixed[:, N_PREFIX:])
        y = y + own.mlp(own.post_attention_layernorm(y))
        if not last:
            x = x + layer.self_attn.o_proj(mixed[:, :N_PREFIX])
            x = x + layer.mlp(layer.post_attention_layernorm(x))
    return y


@pytest.mark.parametrize("kind", KINDS)
def test_with_a_cache_it_is_the_same_as_in_one_sequence(kind):
    prefix, expert, x, y, there = parts(kind)
    expected = together(prefix, expert, x, y, there)
    rotation = rotation_at(positions_of(there)[:, :N_PREFIX], 8)
    seen = prefix(x, rotation, block_causal_mask(there[:, :N_PREFIX], (N_PREFIX,)))
    mask = block_causal_mask(there, BLOCKS, N_SUFFIX)
    rotation = rotation_at(positions_of(there)[:, N_PREFIX:], 8)
    for layer, past in zip(expert, seen, strict=True):
        y, _, _ = layer(y, rotation, mask, *past)
    torch.testing.assert_close(y, expected, rtol=1e-4, atol=1e-5)


def test_the_prefix_is_what_transformers_caches():
    prefix, _, _, _, there = parts("gemma")
    config = GemmaConfig(**SIZES, hidden_size=24, intermediate_size=32, attn_implementation="eager")
    gemma = GemmaModel(config).eval()
    prefix.load(gemma.state_dict(), "gemma")
    ids, there = torch.randint(0, 20, (2, N_PREFIX)), there[:, :N_PREFIX]
    mask = block_causal_mask(there, (N_PREFIX,))
    cache = DynamicCache(config=config)
    additive = torch.where(mask, 0.0, -1e30)
    with torch.no_grad():
        gemma(ids, attention_mask=additive, position_ids=positions_of(there), past_key_values=cache)
        seen = prefix(prefix.embed(ids), rotation_at(positions_of(there), 8), mask)
    for layer, (keys, values) in zip(cache.layers, seen, strict=True):
        torch.testing.assert_close(keys, layer.keys, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(values, layer.values, rtol=1e-4, atol=1e-5)


def test_queries_turn_as_in_transformers():
    queries, positions = torch.randn(1, 2, 3, 8), torch.tensor([[0, 4, 9]])
    angles = positions[..., None] * 10_000.0 ** (-torch.arange(0, 8, 2) / 8)
    angles = torch.cat((angles, angles), dim=-1)
    expected, _ = apply_rotary_pos_emb(queries, queries, angles.cos(), angles.sin())
    torch.testing.assert_close(rotate(queries, rotation_at(positions, 8)), expected)


def test_weights_of_another_size_are_refused():
    prefix, *_ = parts("gemma")
    with pytest.raises(ValueError, match=r"pretrained_backbone there: expected weights for .*got \(2, 2\)"):
        prefix.load({**prefix.state_dict(), "layers.0.mlp.up_proj.weight": torch.zeros(2, 2)}, "there")
    more_heads = torch.zeros(32, 24)
    with pytest.raises(ValueError, match=r"v_proj.weight of shape \(16, 24\), got \(32, 24\)"):
        prefix.load({**prefix.state_dict(), "layers.1.self_attn.v_proj.weight": more_heads}, "there")
    with pytest.raises(ValueError, match=r"got none"):
        prefix.load({}, "there")


def test_the_embedding_of_the_time_is_openpis():
    time = np.array([0.0, 0.3, 1.0])
    periods = 4e-3 * (4.0 / 4e-3) ** np.linspace(0, 1, 4)
    angles = 2 * np.pi * time[:, None] / periods
    expected = np.concatenate((np.sin(angles), np.cos(angles)), axis=1)
    embedded = time_embedding(torch.tensor(time, dtype=torch.float64), 8)
    np.testing.assert_allclose(embedded.numpy(), expected, atol=1e-6)
    assert embedded.dtype == torch.float32
