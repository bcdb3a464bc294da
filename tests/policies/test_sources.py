"""What a policy would read of the Hub is asked for before anything is built."""

from __future__ import annotations

import time

import pytest
from huggingface_hub import constants
from transformers import PretrainedConfig

from menura.errors import ConfigError
from menura.policies import sources
from menura.policies.sources import hub_ids, require_sources


@pytest.fixture
def no_network(monkeypatch, tmp_path):
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")  # the port of "discard": nobody listens
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    return tmp_path


def test_a_hub_that_cannot_be_reached_is_told_at_once_with_the_argument_and_its_line(no_network):
    config = PretrainedConfig(tokenizer="bytes", pretrained_backbone="no/such")
    began = time.monotonic()
    with pytest.raises(
        ConfigError, match=r"policy.args.pretrained_backbone: .* got 'no/such': .*hf download no/such.* \(x.yaml:3\)$"
    ):
        require_sources(config, lambda key: "x.yaml:3" if key == "policy.args.pretrained_backbone" else "")
    assert time.monotonic() - began < sources._REACHED_WITHIN_S


def test_what_is_here_or_kept_needs_no_hub(no_network, monkeypatch):
    monkeypatch.chdir(no_network)
    (no_network / "my" / "model").mkdir(parents=True)
    (no_network / "cache" / "models--google--siglip").mkdir(parents=True)
    require_sources(PretrainedConfig(pretrained_backbone="my/model", tokenizer="google/siglip"))
    require_sources(PretrainedConfig(pretrained_backbone=None, tokenizer="bytes"))


def test_only_what_names_a_source_is_taken_for_one():
    config = PretrainedConfig(text_encoder="a/b", backbone={"model_type": "c/d"}, units="rad/s", name_or_path="e/f")
    assert list(hub_ids(config)) == [("text_encoder", "a/b")]
