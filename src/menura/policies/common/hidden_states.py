"""What a language model of `transformers` makes of embeddings, who attends to whom being said by a mask."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache


def hidden_states(
    model: Any, embeddings: Tensor, mask: Tensor, positions: Tensor, cache: DynamicCache | None = None
) -> Tensor:
    """The last layer's, normed (B, N, D).

    Args:
        model: without a head, such as `LlamaModel`.
        embeddings: (B, N, D).
        mask: (B, 1, N, P + N) bool, what each token attends to, of the P in the cache and these; or (B, 1, 1, P + N).
        positions: (B, N) int64.
        cache: what was read before; these tokens are added to it.
    """
    # As a mask that is added, which every kind of attention takes.
    hidden = torch.finfo(embeddings.dtype).min
    output: Tensor = model(
        inputs_embeds=embeddings,
        attention_mask=torch.where(mask, 0.0, hidden).to(embeddings.dtype),
        position_ids=positions,
        past_key_values=cache,
        use_cache=cache is not None,
    ).last_hidden_state
    return output
