"""Steps of a chunk that are padding. Shapes: B batch, T chunk, A action."""

from __future__ import annotations

import torch
from torch import Tensor


def repeat_nearest(actions: Tensor, is_pad: Tensor | None) -> Tensor:
    """The chunk (B, T, A) with padded steps (B, T) in the value of the nearest that is none.

    For policies whose network sees noisy actions: when acting nothing is padded, so that in training something
    plausible must stand there, and whatever the batch holds must not leak in. A chunk of padding alone stays.
    """
    if is_pad is None:
        return actions
    valid = (~is_pad).to(torch.int64)
    steps = torch.arange(actions.shape[1], device=actions.device)
    first = valid.argmax(dim=1, keepdim=True)
    last = len(steps) - 1 - valid.flip(1).argmax(dim=1, keepdim=True)
    nearest = torch.minimum(torch.maximum(steps, first), last)  # (B, T)
    return actions.gather(1, nearest[..., None].expand_as(actions))
