"""Means over what of a batch of action chunks counts. Shapes: B batch, T chunk, A action."""

from __future__ import annotations

from torch import Tensor


def masked_mean(error: Tensor, is_pad: Tensor | None, action_mask: Tensor | None = None) -> Tensor:
    """The mean of `error` (B, T, A) over the steps that are not padding (B, T), and in each over the dimensions that
    are there (B, A); 0 when all steps are padding. Every step counts alike, however many dimensions it has."""
    if action_mask is None:
        error = error.mean(dim=-1)  # (B, T)
    else:
        there = action_mask[:, None].to(error.dtype)  # (B, 1, A)
        error = (error * there).sum(dim=-1) / there.sum(dim=-1).clamp(min=1)
    if is_pad is None:
        return error.mean()
    valid = (~is_pad).to(error.dtype)
    return (error * valid).sum() / valid.sum().clamp(min=1)


def masked_l1(predicted: Tensor, actions: Tensor, is_pad: Tensor | None, action_mask: Tensor | None = None) -> Tensor:
    """Mean absolute error, over what counts (`masked_mean`)."""
    return masked_mean((predicted - actions).abs(), is_pad, action_mask)


def masked_mse(predicted: Tensor, actions: Tensor, is_pad: Tensor | None, action_mask: Tensor | None = None) -> Tensor:
    """Mean squared error, over what counts (`masked_mean`)."""
    return masked_mean((predicted - actions).square(), is_pad, action_mask)
