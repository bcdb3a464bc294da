"""The FAST action tokenizer: what it says of a chunk comes back, and nothing it may be told is taken for more."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.fft import dct
from tokenizers import ByteLevelBPETokenizer
from tokenizers.trainers import BpeTrainer
from transformers import PreTrainedTokenizerFast

from menura.policies.common.fast import FastTokenizer, cosine_matrix

T, A = 8, 3
FAST = FastTokenizer.synthetic(T, A, vocab_size=512)
#: An orthonormal transform keeps lengths, so that no action moves further than all coefficients are rounded together.
ROUNDING = math.sqrt(T) * 0.5 / FAST.scale + 1e-6


@pytest.mark.parametrize("length", [1, 2, 7, 50])
def test_the_cosine_matrix_is_the_orthonormal_transform_of_scipy(length):
    steps = np.random.default_rng(0).normal(size=(length, 4))
    np.testing.assert_allclose(cosine_matrix(length).numpy() @ steps, dct(steps, axis=0, norm="ortho"), atol=1e-12)
    torch.testing.assert_close(cosine_matrix(length).T @ cosine_matrix(length), torch.eye(length, dtype=torch.float64))


@given(st.integers(0, 10_000), st.floats(0.0, 5.0))
@settings(max_examples=30, deadline=None)
def test_chunks_come_back_up_to_rounding(seed, magnitude):
    chunks = (torch.rand(4, T, A, generator=torch.Generator().manual_seed(seed)) * 2 - 1) * magnitude
    encoded = FAST.encode(chunks)
    decoded = FAST.decode(encoded.tokens, T, A)
    assert not encoded.clipped.any()
    assert not decoded.malformed.any()
    assert (decoded.actions - chunks).abs().max() <= ROUNDING
    assert FAST.encode(decoded.actions).tokens == encoded.tokens  # what was rounded once stays as it is


@given(st.lists(st.integers(-5, FAST.vocab_size + 5), max_size=40))
@settings(max_examples=60, deadline=None)
def test_whatever_is_told_has_a_bounded_answer(tokens):
    decoded = FAST.decode([tokens], T, A)
    assert decoded.actions.shape == (1, T, A)
    # No coefficient is larger than those the tokenizer was made for.
    assert decoded.actions.abs().max() <= math.sqrt(T) * FAST.n_characters / FAST.scale


def test_smooth_chunks_take_few_tokens():
    times = torch.linspace(0, 1, 50)[:, None]
    smooth = torch.sin(2 * times + torch.arange(A))[None]
    assert len(FastTokenizer.synthetic(50, A, vocab_size=1024).encode(smooth).tokens[0]) < 50 * A / 4


def test_coefficients_are_written_lowest_frequency_first():
    constant = torch.tensor([0.5, -0.25, 0.0]).expand(1, T, A)
    text = FAST.bpe.decode(FAST.encode(constant).tokens[0])
    first = [ord(one) + FAST.min_token for one in text[:A]]
    assert first == [round(10 * math.sqrt(T) * value) for value in (0.5, -0.25, 0.0)]
    assert all(ord(one) + FAST.min_token == 0 for one in text[A:])


def test_too_few_too_many_and_unknown_tokens_keep_what_was_said():
    chunk = torch.randn(1, T, A).clamp(-2, 2)
    tokens = FAST.encode(chunk).tokens[0]
    whole = FAST.decode([tokens], T, A).actions
    cut, longer, unknown = FAST.decode([tokens[:-2], [*tokens, tokens[0]], [*tokens, 9999]], T, A).actions[:, None]
    assert FAST.decode([tokens[:-2], [*tokens, tokens[0]], [*tokens, -1]], T, A).malformed.all()
    # Without its last frequencies a chunk is smoother and has the same mean.
    torch.testing.assert_close(cut.mean(dim=1), whole.mean(dim=1))
    torch.testing.assert_close(longer, whole)
    torch.testing.assert_close(unknown, whole)
    assert FAST.decode([[]], T, A).malformed.all()
    assert not FAST.decode([[]], T, A).actions.any()


def test_what_lies_beyond_the_alphabet_is_clipped_and_told():
    chunks = torch.zeros(2, T, A)
    chunks[1] = 100.0
    encoded = FAST.encode(chunks)
    assert encoded.clipped.tolist() == [False, True]
    assert FAST.decode(encoded.tokens, T, A).actions[1].max() < 100.0


def test_fitted_to_data_it_covers_the_data():
    data = torch.randn(64, T, A).cumsum(dim=1) * 0.3
    fast = FastTokenizer.fit(data, vocab_size=600)
    assert not fast.encode(data).clipped.any()
    tokens = sum(map(len, fast.encode(data).tokens))
    assert tokens < data.numel()  # some pairs were merged
    assert [*fast.encode(data).tokens] == FastTokenizer.fit(data, vocab_size=600).encode(data).tokens


def test_a_vocabulary_that_cannot_hold_the_coefficients_is_refused():
    with pytest.raises(ValueError, match="vocab_size of at least"):
        FastTokenizer.fit(torch.randn(4, T, A) * 10, vocab_size=32)


def test_saved_and_loaded_it_says_the_same(tmp_path):
    FAST.save(tmp_path)
    chunks = torch.randn(4, T, A)
    again = FastTokenizer.load(tmp_path)
    assert again.encode(chunks).tokens == FAST.encode(chunks).tokens
    assert json.loads((tmp_path / "processor_config.json").read_text())["min_token"] == FAST.min_token
    text = PreTrainedTokenizerFast.from_pretrained(tmp_path)
    assert text.decode(FAST.encode(chunks).tokens[0]) == FAST.bpe.decode(FAST.encode(chunks).tokens[0])


def test_a_configuration_that_lacks_the_scale_is_refused(tmp_path):
    FAST.save(tmp_path)
    (tmp_path / "processor_config.json").write_text("{}")
    with pytest.raises(ValueError, match="scale and min_token"):
        FastTokenizer.load(tmp_path)


@pytest.fixture
def published(tmp_path):
    """A directory made as `physical-intelligence/fast` was: bytes are paired, after GPT-2's splitting into words."""
    rng = np.random.default_rng(0)
    texts = ["".join(map(chr, rng.normal(354, 40, size=T * A).round().astype(int).clip(0, 700))) for _ in range(300)]
    bpe = ByteLevelBPETokenizer()
    alphabet = [chr(index) for index in range(709)]
    trainer = BpeTrainer(vocab_size=1024, min_frequency=2, show_progress=False, initial_alphabet=alphabet)
    bpe._tokenizer.train_from_iterator(texts, trainer=trainer)
    PreTrainedTokenizerFast(tokenizer_object=bpe._tokenizer).save_pretrained(tmp_path)
    config = {"action_dim": None, "min_token": -354, "scale": 10, "time_horizon": None, "vocab_size": 1024}
    (tmp_path / "processor_config.json").write_text(json.dumps(config))
    return tmp_path


def test_the_published_layout_is_read_without_its_code(published):
    fast = FastTokenizer.load(published)
    chunks = torch.randn(4, T, A).clamp(-3, 3)
    # The ids that the published code finds: text of the shifted coefficients, through the tokenizer as it is.
    text = PreTrainedTokenizerFast.from_pretrained(published)
    coefficients = np.around(dct(chunks.numpy(), axis=1, norm="ortho") * 10).reshape(4, -1) + 354
    expected = [text("".join(map(chr, row.astype(int))))["input_ids"] for row in coefficients]
    assert fast.encode(chunks).tokens == expected
    decoded = fast.decode(expected, T, A)
    assert not decoded.malformed.any()
    assert (decoded.actions - chunks).abs().max() <= ROUNDING


def test_half_a_character_of_the_published_layout_is_malformed(published):
    fast = FastTokenizer.load(published)
    tokens = fast.encode(torch.ones(1, T, A)).tokens[0]
    half = next(i for i in range(fast.vocab_size) if "\ufffd" in fast.bpe.decode([i]))
    decoded = fast.decode([[half, *tokens]], T, A)
    assert decoded.malformed.all()
    assert decoded.actions.abs().max() <= math.sqrt(T) * fast.n_characters / fast.scale
