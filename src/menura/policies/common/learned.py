"""Vectors that are learnt as they are: positions, queries, tokens of their own."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def vectors(table: nn.Embedding, like: Tensor, n: int | None = None) -> Tensor:
    """The first `n` rows of a table, all when None: (n, D), on the device of `like`.

    The module is called and its weight is not read: only so does `device_map` know that what it keeps elsewhere is
    needed now.
    """
    rows: Tensor = table(torch.arange(table.num_embeddings if n is None else n, device=like.device))
    return rows
