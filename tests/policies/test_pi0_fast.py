"""pi0_fast: what the prompt and the answer are, who sees whom, and how an answer is decoded."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

import menura
from menura.policies.checking.samples import make_batch
from menura.policies.common.fast import FastTokenizer
from menura.policies.common.prompts import state_bins
from menura.policies.contract import build_policy, observation
from menura.policies.pi0_fast.configuration_pi0_fast import PI0FastPolicyConfig
from menura.policies.pi0_fast.modeling_pi0_fast import PI0FastPolicy, prompt_text

TINY = Path(menura.__file__).parent / "configs/policy/tiny/pi0_fast.yaml"


@pytest.fixture
def make(features):
    def made(**args: Any) -> PI0FastPolicy:
        torch.manual_seed(0)
        return build_policy(PI0FastPolicy, {**yaml.safe_load(TINY.read_text())["args"], **args}, features).eval()

    return made


@pytest.fixture
def policy(make) -> PI0FastPolicy:
    return make()


@pytest.fixture
def batch(policy, features) -> dict[str, Any]:
    return make_batch(policy.config, features, None, 4)


def test_the_real_one_is_as_large_as_paligemma():
    with torch.device("meta"):
        policy = PI0FastPolicy(PI0FastPolicyConfig(camera_names=["front"]))
    # 2.92 billion (google/paligemma-3b-pt-224), with 64 rows more in the vocabulary there.
    assert sum(p.numel() for p in policy.parameters()) == pytest.approx(2.923e9, rel=1e-3)


def test_the_prompt_is_the_published_one():
    bins = state_bins(torch.tensor([[-1.5, -1.0, 0.0, 0.999, 2.0]]))[0]
    assert prompt_text(" Pick_up the\nCup ", bins, "lerobot") == "Task: Pick up the Cup, State: -1 0 128 255 255;\n"
    assert prompt_text("Pick_up the Cup", [3], "openpi") == "Task: pick up the cup, State: 3;\n"


def test_an_answer_is_said_in_the_last_tokens_of_the_vocabulary(make):
    policy = make(n_skipped_tokens=128)
    actions = torch.randn(2, 4, 3)
    tokens, there, logs = policy.answer(actions, None, None)
    said = policy.action_tokenizer.encode(actions).tokens[0]
    before, after = (policy.tokenizer(text, add_special_tokens=False).input_ids for text in ("Action: ", "|"))
    assert tokens[0][there[0]].tolist() == [*before, *(640 - 1 - 128 - token for token in said), *after, 1]
    assert float(logs["clipped"]) == float(logs["cut"]) == 0.0


def test_padded_steps_are_said_as_the_last_that_counts(policy):
    actions = torch.randn(1, 4, 3)
    held = actions.clone()
    held[:, 2:] = held[:, 1:2]
    is_pad = torch.tensor([[False, False, True, True]])
    assert torch.equal(policy.answer(actions, is_pad, None)[0], policy.answer(held, None, None)[0])


def test_a_long_answer_is_cut_and_told(make):
    policy = make(max_action_tokens=16)
    tokens, there, logs = policy.answer(torch.randn(3, 4, 3) * 2, None, None)
    assert tokens.shape == (3, 16)
    assert there.all()
    assert float(logs["cut"]) == 1.0


def test_the_loss_is_that_of_the_answer_alone(policy, batch):
    batch["is_pad"][:] = False
    batch["is_pad"][0] = True  # which leaves a row nothing to say
    obs = observation(batch)
    tokens, there, _ = policy.answer(batch["actions"], batch["is_pad"], None)
    said = policy.logits(policy.prefix(obs), tokens).log_softmax(dim=-1).gather(2, tokens[..., None])[..., 0]
    keys = ("state", "image", "task", "actions", "is_pad")
    loss = policy(**{key: batch[key] for key in keys})["loss"]
    torch.testing.assert_close(loss, -said[there].mean())
    assert not there[0].any()


def test_an_answer_sees_the_prompt_and_what_was_said_before(policy, batch):
    prefix = policy.prefix(observation(batch))
    tokens, _, _ = policy.answer(batch["actions"], None, None)
    logits = policy.logits(prefix, tokens)
    other = tokens.clone()
    other[:, 5] = (other[:, 5] + 1) % 600
    changed = policy.logits(prefix, other)
    torch.testing.assert_close(changed[:, :6], logits[:, :6])  # the sixth token is guessed from those before it
    assert not torch.allclose(changed[:, 6], logits[:, 6])
    # The prompt comes after the images, and yet they see it.
    changed_prompt = prefix._replace(embeddings=prefix.embeddings.clone())
    changed_prompt.embeddings[:, -1] += 1.0
    read = [
        policy._read(p.embeddings, p.there[:, None, None], torch.zeros(4, 1).long()) for p in (prefix, changed_prompt)
    ]
    assert not torch.allclose(read[0][:, 0], read[1][:, 0])


@pytest.mark.parametrize("style", ["openpi", "lerobot"])
def test_decoding_with_kept_keys_is_decoding_without(make, batch, style):
    policy = make(prompt_style=style)
    policy.tokenizer.bos_token = "</s>"
    prefix = policy.prefix(observation(batch))
    got = policy.decode(prefix)
    # As if nothing were kept: the whole sequence is read again for every token.
    whole = prefix._replace(n_beginning=0)  # when acting, the prompt sees the token of beginning
    before, after = policy._marks()
    choices = torch.tensor([*map(policy._vocabulary_id, range(policy.action_tokenizer.vocab_size)), *after])
    said = torch.tensor(before).expand(4, -1)
    for step in range(got.shape[1]):
        next_one = policy.logits(whole, torch.cat((said, said[:, :1]), dim=1))[:, -1, choices].argmax(dim=-1)
        assert torch.equal(next_one, got[:, step])
        said = torch.cat((said, choices[next_one][:, None]), dim=1)


def test_a_chunk_is_what_the_tokens_say(policy, batch, monkeypatch):
    wanted = torch.randn(4, 4, 3)
    said = policy.action_tokenizer.encode(wanted).tokens
    end = policy.action_tokenizer.vocab_size
    longest = max(map(len, said)) + 1
    rows = [[*tokens, end, *[7] * (longest - len(tokens) - 1)] for tokens in said]
    monkeypatch.setattr(policy, "decode", lambda *_: torch.tensor(rows))
    torch.testing.assert_close(
        policy.select_action(observation(batch)), policy.action_tokenizer.decode(said, 4, 3).actions
    )
    assert policy.malformed_chunks == 0


def test_what_is_malformed_is_counted_and_told(policy, batch, monkeypatch, caplog):
    monkeypatch.setattr(policy, "decode", lambda *_: torch.full((4, 3), policy.action_tokenizer.vocab_size))
    monkeypatch.setattr(logging.getLogger("transformers"), "propagate", True)
    monkeypatch.setattr(logging.getLogger("menura.policies.pi0_fast.modeling_pi0_fast"), "propagate", True)
    with caplog.at_level(logging.WARNING):
        answer = policy.select_action(observation(batch))
    assert not answer.any()
    assert policy.malformed_chunks == 4
    assert "4 of 4 chunks were too few or too many" in caplog.text


def test_drawn_answers_differ_by_generator(make, batch):
    policy = make(sampling_temperature=1.0)
    obs = observation(batch)
    one, other = (
        policy.select_action(obs, generator=[torch.Generator().manual_seed(seed) for seed in seeds])
        for seeds in ((0, 1, 2, 3), (0, 1, 2, 9))
    )
    assert torch.equal(one[:3], other[:3])
    assert not torch.equal(one[3], other[3])


def test_a_checkpoint_brings_its_action_tokenizer(make, tmp_path):
    FastTokenizer.fit(torch.randn(64, 4, 3), vocab_size=200, largest=3.0).save(tmp_path / "mine")
    policy = make(action_tokenizer=str(tmp_path / "mine"))
    policy.save_pretrained(tmp_path / "saved")
    (tmp_path / "mine").rename(tmp_path / "gone")
    again = PI0FastPolicy.from_pretrained(tmp_path / "saved")
    assert (tmp_path / "saved" / "action_processor_config.json").is_file()
    chunk = torch.randn(2, 4, 3)
    assert again.action_tokenizer.encode(chunk).tokens == policy.action_tokenizer.encode(chunk).tokens


def test_an_action_tokenizer_is_fitted_to_the_data_and_saved(make, tmp_path):
    policy = make(action_tokenizer="fit")
    with pytest.raises(ValueError, match="expected an action tokenizer, got none yet"):
        _ = policy.action_tokenizer
    actions = torch.randn(40, 4, 3).clamp(-1, 1)
    is_pad = torch.arange(4) >= torch.tensor([2] + [4] * 39)[:, None]
    actions[0, 2:] = 50.0  # padding, which is not looked at
    rows = ({"actions": actions[i : i + 8], "is_pad": is_pad[i : i + 8]} for i in range(0, 40, 8))
    policy.fit_to_data(rows)
    encoded = policy.action_tokenizer.encode(actions[1:])
    assert not encoded.clipped.any()
    decoded = policy.action_tokenizer.decode(encoded.tokens, 4, 3)
    torch.testing.assert_close(decoded.actions, actions[1:], rtol=0, atol=0.1)
    policy.save_pretrained(tmp_path)
    again = PI0FastPolicy.from_pretrained(tmp_path)
    assert again.action_tokenizer.encode(actions[1:]).tokens == encoded.tokens


def test_another_action_tokenizer_is_left_alone(policy):
    before = policy.action_tokenizer
    policy.fit_to_data(iter(()))
    assert policy.action_tokenizer is before


def test_pretrained_weights_are_taken_with_their_settings(make, tmp_path):
    first = make()
    first.paligemma.save_pretrained(tmp_path)
    second = make(pretrained_backbone=str(tmp_path), vlm_config=None)
    for (name, one), two in zip(
        first.paligemma.state_dict().items(), second.paligemma.state_dict().values(), strict=True
    ):
        torch.testing.assert_close(one, two, msg=name)
    assert second.config.vlm_config["text_config"]["hidden_size"] == 64
    assert PI0FastPolicyConfig(**second.config.to_diff_dict()).vlm_config["text_config"]["num_hidden_layers"] == 2


def test_a_tokenizer_without_a_token_of_beginning_is_refused_where_one_is_due(make, batch):
    with pytest.raises(ValueError, match="token of beginning"):
        make(prompt_style="lerobot").prefix(observation(batch))


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ({"camera_names": []}, "at least one camera"),
        ({"prompt_style": "mine"}, "openpi or lerobot"),
        ({"sampling_temperature": -1.0}, "at least 0"),
    ],
)
def test_wrong_settings_are_refused(args, message):
    with pytest.raises(ValueError, match=message):
        PI0FastPolicyConfig(**args)


def test_checkpointed_gradients_are_the_same(policy, batch):
    keys = ("state", "image", "task", "actions", "is_pad")

    def gradients() -> torch.Tensor:
        policy.train().zero_grad()
        policy(**{key: batch[key] for key in keys})["loss"].backward()
        return torch.cat([p.grad.flatten() for p in policy.parameters()])

    plain = gradients()
    policy.gradient_checkpointing_enable()
    assert sum(getattr(module, "gradient_checkpointing", False) for module in policy.modules()) >= 4  # every layer
    torch.testing.assert_close(gradients(), plain)


def test_weights_in_bfloat16_learn_and_answer(policy, batch):
    policy = policy.to(torch.bfloat16)
    keys = ("state", "image", "task", "actions", "is_pad")
    loss = policy(**{key: batch[key] for key in keys})["loss"]
    loss.backward()
    assert torch.isfinite(loss)
    assert loss.dtype == torch.float32
    assert policy.select_action(observation(batch)).dtype == torch.float32
