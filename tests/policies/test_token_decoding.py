"""Tokens one after the other: likeliest or drawn, each row to its own end."""

from __future__ import annotations

import pytest
import torch

from menura.policies.common.token_decoding import decode_tokens

#: What follows each token in rows that count down to the end, 0.
TABLE = torch.full((5, 5), -9.0)
for token in range(5):
    TABLE[token, max(token - 1, 0)] = 9.0


def seeds(*numbers: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(number) for number in numbers]


def test_it_stops_when_every_row_has_ended():
    asked = []

    def following(token: torch.Tensor) -> torch.Tensor:
        asked.append(token.tolist())
        return TABLE[token]

    tokens = decode_tokens(TABLE[[2, 4]], following, 10, end=0)
    assert tokens.tolist() == [[1, 0, 0, 0], [3, 2, 1, 0]]
    assert len(asked) == 3  # nothing is computed after the last end


def test_without_an_end_it_is_as_long_as_asked():
    assert decode_tokens(TABLE[[4]], lambda token: TABLE[token], 6).tolist() == [[3, 2, 1, 0, 0, 0]]
    assert decode_tokens(TABLE[[4]], lambda token: TABLE[token], 2, end=0).tolist() == [[3, 2]]


def test_drawn_tokens_have_the_probabilities_of_the_temperature():
    logits = torch.tensor([0.0, 1.0, 2.0]).expand(4000, 3)
    drawn = decode_tokens(logits, lambda token: logits, 1, temperature=2.0)
    share = torch.bincount(drawn[:, 0], minlength=3) / 4000
    torch.testing.assert_close(share, (logits[0] / 2.0).softmax(dim=0), atol=0.03, rtol=0)


def test_a_row_draws_from_its_generator_alone():
    logits = torch.randn(2, 7)
    both = decode_tokens(logits, lambda token: logits, 5, temperature=1.0, generator=seeds(1, 2))
    other = decode_tokens(logits, lambda token: logits, 5, temperature=1.0, generator=seeds(1, 3))
    assert torch.equal(both[0], other[0])
    assert not torch.equal(both[1], other[1])


def test_a_generator_is_where_it_would_be_however_long_other_rows_went_on():
    flat = torch.zeros(2, 3)
    alone, together = seeds(1), seeds(1, 2)
    decode_tokens(flat[:1], lambda token: flat[:1], 8, end=0, temperature=1.0, generator=alone)
    decode_tokens(flat, lambda token: flat, 8, end=0, temperature=1.0, generator=together)
    assert torch.rand(1, generator=alone[0]) == torch.rand(1, generator=together[0])


@pytest.mark.parametrize("temperature", [0.0, 1e-4])
def test_a_low_temperature_is_the_likeliest(temperature):
    logits = torch.randn(4, 9)
    drawn = decode_tokens(logits, lambda token: logits, 3, temperature=temperature)
    assert torch.equal(drawn, logits.argmax(dim=-1)[:, None].expand(-1, 3))
