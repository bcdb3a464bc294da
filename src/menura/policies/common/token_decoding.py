"""Tokens one after the other, each chosen from what the model says after those before it.

Shapes: B batch, V choices, N tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from .noise import draw_noise


def decode_tokens(
    logits: Tensor,
    following: Callable[[Tensor], Tensor],
    length: int,
    *,
    end: int | None = None,
    temperature: float = 0.0,
    generator: Sequence[torch.Generator] | None = None,
) -> Tensor:
    """The chosen tokens (B, N), N at most `length`: up to where every row has ended, each for itself.

    What stands in a row after its first `end` means nothing. A row draws the same numbers from its generator however
    long the others go on.

    Args:
        logits: (B, V) of the first token.
        following: the tokens (B,) just chosen -> the logits (B, V) of the next, by a model that keeps what it has read.
        length: tokens at most.
        end: the token that ends a row; None for `length` tokens always.
        temperature: 0 takes the likeliest; else one is drawn from softmax(logits / temperature).
        generator: one a row.
    """
    uniform = None
    if temperature > 0:
        uniform = torch.special.ndtr(draw_noise((len(logits), length), logits.float(), generator))  # (B, N) in [0, 1]
    ended = torch.zeros(len(logits), dtype=torch.bool, device=logits.device)
    tokens: list[Tensor] = []
    while True:
        token = logits.argmax(dim=-1) if uniform is None else _drawn(logits / temperature, uniform[:, len(tokens)])
        tokens.append(token)
        if end is not None:
            ended |= token == end
        if len(tokens) == length or (end is not None and bool(ended.all())):
            return torch.stack(tokens, dim=1)
        logits = following(token)


def _drawn(logits: Tensor, uniform: Tensor) -> Tensor:
    """(B, V) and (B,) in [0, 1] -> the token (B,) at which the probabilities, summed up, pass the number."""
    passed = logits.float().softmax(dim=-1).cumsum(dim=-1) < uniform[:, None]
    return passed.sum(dim=-1).clamp(max=logits.shape[-1] - 1)
