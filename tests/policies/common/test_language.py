"""Texts as token ids: what is too long is cut and told."""

from __future__ import annotations

import pytest
import torch
from transformers import PretrainedConfig

from menura.policies.common import language
from menura.policies.common.language import TextPolicy


class ReaderConfig(PretrainedConfig):
    model_type = "reader"
    tokenizer = "bytes"


class Reader(TextPolicy):
    config_class = ReaderConfig


@pytest.fixture
def told(monkeypatch):
    messages = []
    monkeypatch.setattr(language.logger, "warning", messages.append)
    return messages


def test_every_batch_is_as_long_as_asked(told):
    ids, mask = Reader(ReaderConfig()).tokenize(["ab", ""], 4, torch.device("cpu"))
    assert mask.tolist() == [[True, True, True, False], [True, False, False, False]]  # the last is the end of a text
    assert ids.shape == (2, 4)
    assert told == []


def test_a_text_that_is_cut_is_told_once(told):
    policy = Reader(ReaderConfig())
    cut, _ = policy.tokenize(["open the door"], 4, torch.device("cpu"))
    whole, _ = policy.tokenize(["open the door"], 14, torch.device("cpu"))
    assert torch.equal(cut, whole[:, :4])
    policy.tokenize(["close the door"], 4, torch.device("cpu"))
    assert len(told) == 1
    assert "tokenizer_max_length = 4 tokens, got 14 of 'open the door'" in told[0]
    policy.tokenize(["close the door"], 4, torch.device("cpu"), "reasoning_max_length")
    assert "Raise policy.args.reasoning_max_length" in told[1]
