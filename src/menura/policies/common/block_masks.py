"""Which tokens see which: blocks that see themselves and what came before (Black et al. 2024, arXiv 2410.24164, IV).

Shapes: B batch, N tokens, Q queries, the last of the tokens.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def block_causal_mask(there: Tensor, block_sizes: Sequence[int], n_queries: int | None = None) -> Tensor:
    """(B, 1, Q, N) bool: a token attends to the tokens that are there of its own block and of all earlier ones.

    A token that is not there attends like its block, so that no row is empty; nothing attends to it.

    Args:
        there: (B, N) bool, false for padding.
        block_sizes: how many tokens each block has, in order; together N.
        n_queries: the rows that are wanted, of the last tokens; None for all.
    """
    numbers = [number for number, size in enumerate(block_sizes) for _ in range(size)]
    blocks = torch.tensor(numbers, device=there.device)  # (N,)
    queries = blocks if n_queries is None else blocks[-n_queries:]
    return (blocks <= queries[:, None]) & there[:, None, None]


def positions_of(there: Tensor) -> Tensor:
    """(B, N) int64: the place of each token among those that are there, from 0."""
    return there.long().cumsum(dim=1).sub(1).clamp(min=0)
