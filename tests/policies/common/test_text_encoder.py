"""Frozen text encoders of several families: what is taken of them, and that it can be made again."""

from __future__ import annotations

import pytest
import torch

from menura.policies.common.backbones import build_backbone, settings_of
from menura.policies.common.text_encoder import FrozenT5, FrozenTextEncoder

SMALL = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 50}
FAMILIES = {
    "bert": {"model_type": "bert", **SMALL},
    "clip": {"model_type": "clip_text_model", **SMALL, "eos_token_id": 1},
    "siglip": {"model_type": "siglip_text_model", **SMALL, "projection_size": 16},
    "t5": {"model_type": "t5", "d_model": 16, "d_kv": 8, "d_ff": 16, "num_layers": 1, "num_heads": 2, "vocab_size": 50},
}


def tokenize(texts):
    ids = torch.tensor([[2 + len(text), 3, 1] for text in texts])
    return ids, torch.ones_like(ids, dtype=torch.bool)


@pytest.mark.parametrize("family", FAMILIES)
def test_it_is_made_again_of_its_settings(family):
    encoder = FrozenTextEncoder(FAMILIES[family])
    assert not any(p.requires_grad for p in encoder.train().parameters())
    assert not encoder.model.training
    vectors = encoder(["a", "bcd"], tokenize)
    assert vectors.shape == (2, 16)
    again = FrozenTextEncoder(settings_of(encoder.model))
    assert type(again.model) is type(encoder.model)
    again.load_state_dict(encoder.state_dict())
    assert torch.equal(again(["a", "bcd"], tokenize), vectors)


def test_of_a_model_that_writes_only_the_reading_half_is_kept():
    assert not any("decoder" in name for name, _ in build_backbone(FAMILIES["t5"], "text_model").named_parameters())


def test_another_dtype_is_encoded_anew():
    encoder = FrozenTextEncoder(FAMILIES["bert"])
    exact = encoder(["a"], tokenize)
    assert encoder.to(torch.bfloat16)(["a"], tokenize).dtype == torch.bfloat16
    torch.testing.assert_close(encoder(["a"], tokenize).float(), exact, rtol=0.05, atol=0.05)


@pytest.mark.parametrize("make", [lambda: FrozenTextEncoder(FAMILIES["bert"]), lambda: FrozenT5(FAMILIES["t5"])])
def test_what_is_remembered_belongs_to_a_text_a_dtype_and_a_device(make):
    encoder, asked = make(), []

    def counted(texts):
        asked.extend(texts)
        return tokenize(texts)

    encoder(["a", "bcd", "a"], counted)
    encoder(["bcd"], counted)
    assert asked == ["a", "bcd"]
    encoder.to(torch.bfloat16)(["a"], counted)
    assert asked == ["a", "bcd", "a"]
    cpu = torch.device("cpu")
    assert {*encoder._kept} == {("a", torch.float32, cpu), ("bcd", torch.float32, cpu), ("a", torch.bfloat16, cpu)}


def test_no_more_texts_are_remembered_than_are_kept(monkeypatch):
    monkeypatch.setattr(FrozenTextEncoder, "kept_texts", 2)
    encoder = FrozenTextEncoder(FAMILIES["bert"])
    vectors = encoder(["a", "bcd"], tokenize)
    assert torch.equal(encoder(["a", "ef", "bcd"], tokenize)[::2], vectors)
    encoder(["ghi"], tokenize)
    assert len(encoder._kept) == 1
