"""The action expert of `SmolVLAPolicy`: layers that attend in turn to the actions and to the prefix alone.

Shapes: B batch, T chunk, N tokens of the prefix, D width, H heads, G heads of keys and values, E width of a head.
"""

from __future__ import annotations

import copy
from typing import Any

from torch import Tensor, nn
from transformers import LlamaConfig
from transformers.models.llama.modeling_llama import LlamaDecoderLayer, LlamaRMSNorm

from ..common.action_expert import LlamaCachedLayer, Past, Rotation, attend, heads, rotate

#: The feed-forward layers are two thirds of four times the width, rounded up to this (LeRobot,
#: `smolvlm_with_expert.py`, `get_intermediate_size`).
MULTIPLE_OF = 256


class CrossLayer(LlamaDecoderLayer):
    """A layer of Llama that attends to the prefix alone, by projections of the language model's keys and values."""

    self_attn: Any

    def __init__(self, config: LlamaConfig, layer_idx: int) -> None:
        super().__init__(config, layer_idx)
        width = config.num_key_value_heads * self.self_attn.head_dim
        self.self_attn.k_proj = nn.Linear(width, width, bias=config.attention_bias)
        self.self_attn.v_proj = nn.Linear(width, width, bias=config.attention_bias)

    def project(self, seen: Past) -> Past:
        """The keys and values (B, G, N, E) of the language model's layer, as this one attends to them."""
        projections = (self.self_attn.k_proj, self.self_attn.v_proj)
        keys, values = (
            heads(projection(x.transpose(1, 2).flatten(2)), self.self_attn.head_dim)
            for projection, x in zip(projections, seen, strict=True)
        )
        return keys, values

    def forward(  # type: ignore[override]
        self, x: Tensor, rotation: Rotation, mask: Tensor, keys: Tensor, values: Tensor
    ) -> Tensor:
        """(B, T, D), attending to projected keys and values (B, G, N, E) as `mask` (B, 1, 1, N) says -> (B, T, D)."""
        queries = rotate(heads(self.self_attn.q_proj(self.input_layernorm(x)), self.self_attn.head_dim), rotation)
        x = x + self.self_attn.o_proj(attend(queries, keys, values, mask))
        answer: Tensor = x + self.mlp(self.post_attention_layernorm(x))
        return answer


class Expert(nn.Module):
    """As many layers as the language model uses, narrower, with as many heads of the same width."""

    def __init__(self, language: LlamaConfig, share: float, self_attention_every: int) -> None:
        super().__init__()
        config = copy.deepcopy(language)
        self.width = config.hidden_size = int(language.hidden_size * share)
        wanted = int(4 * int(2 * self.width / 3))
        config.intermediate_size = MULTIPLE_OF * ((wanted + MULTIPLE_OF - 1) // MULTIPLE_OF)

        def attends_to_actions(i: int) -> bool:
            return self_attention_every > 0 and i % self_attention_every == 0

        self.layers: nn.ModuleList = nn.ModuleList(
            LlamaCachedLayer(config, i) if attends_to_actions(i) else CrossLayer(config, i)
            for i in range(config.num_hidden_layers)
        )
        self.norm = LlamaRMSNorm(self.width, eps=config.rms_norm_eps)

    def what_is_seen(self, seen: list[Past]) -> list[Past]:
        """The keys and values of the language model, projected where a layer attends to them so."""
        return [
            layer.project(of_layer) if isinstance(layer, CrossLayer) else of_layer
            for layer, of_layer in zip(self.layers, seen, strict=True)
        ]

    def forward(
        self,
        x: Tensor,
        seen: list[Past],
        prefix_mask: Tensor,
        mask: Tensor,
        rotation: Rotation,
        own_rotation: Rotation,
    ) -> Tensor:
        """(B, T, D) -> (B, T, D); the arguments are those of `Condition`."""
        for layer, of_layer in zip(self.layers, seen, strict=True):
            if isinstance(layer, CrossLayer):
                x = layer(x, own_rotation, prefix_mask, *of_layer)
            else:
                x = layer(x, rotation, mask, *of_layer)[0]
        answer: Tensor = self.norm(x)
        return answer
