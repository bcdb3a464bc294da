"""A language model and an action expert that meet layer by layer (Black et al. 2024, arXiv 2410.24164).

What comes first, the prefix (images, text), never attends to what comes after it, the noisy actions. So its keys and
values are computed once, and the expert's layers attend to them and to their own, in training and sampling alike.

Shapes: B batch, N tokens, P tokens before them, H heads, G heads of keys and values, E width of a head, D width.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.models.gemma.modeling_gemma import GemmaDecoderLayer
from transformers.models.llama.modeling_llama import LlamaDecoderLayer

#: Cosines and sines (B, 1, N, E / 2) float32 by which queries and keys are turned.
Rotation: TypeAlias = tuple[Tensor, Tensor]
#: Keys, already turned, and values of one layer, each (B, G, P, E).
Past: TypeAlias = tuple[Tensor, Tensor]

#: Of the rotary positions: Gemma's, which SmolVLA takes for SmolVLM too (LeRobot, `smolvlm_with_expert.py`).
ROTARY_BASE = 10_000.0


def rotation_at(positions: Tensor, head_dim: int) -> Rotation:
    """Rotary positions (Su et al. 2021, arXiv 2104.09864) for tokens at `positions` (B, N)."""
    exponents = torch.arange(0, head_dim, 2, dtype=torch.float32, device=positions.device) / head_dim
    angles = positions[:, None, :, None].float() / ROTARY_BASE**exponents
    return angles.cos(), angles.sin()


def rotate(x: Tensor, rotation: Rotation) -> Tensor:
    """Queries or keys (B, H, N, E), turned; the two halves of E are the two axes of each plane."""
    cosine, sine = rotation
    first, second = x.float().chunk(2, dim=-1)
    turned = torch.cat((first * cosine - second * sine, second * cosine + first * sine), dim=-1)
    return turned.to(x.dtype)


def heads(projected: Tensor, head_dim: int) -> Tensor:
    """(B, N, H·E) -> (B, H, N, E)."""
    return projected.view(*projected.shape[:-1], -1, head_dim).transpose(1, 2)


def attend(queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor) -> Tensor:
    """(B, H, N, E), twice (B, G, P, E) and what attends to what (B, 1, N, P) -> (B, N, H·E)."""
    mixed = scaled_dot_product_attention(queries, keys, values, attn_mask=mask, enable_gqa=True)
    return mixed.transpose(1, 2).flatten(2)


def after(past: tuple[Tensor, ...], keys: Tensor, values: Tensor) -> Past:
    """The keys and values of earlier tokens, where there are any, and these after them."""
    if not past:
        return keys, values
    return torch.cat((past[0], keys), dim=2), torch.cat((past[1], values), dim=2)


class CachedLayer(GradientCheckpointingLayer):
    """To stand before a decoder layer of `transformers`: the same weights, with the keys and values handed out."""

    self_attn: Any
    input_layernorm: nn.Module
    post_attention_layernorm: nn.Module
    mlp: nn.Module
    keys_only = False

    def forward(self, x: Tensor, rotation: Rotation, mask: Tensor, *past: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(B, N, D), attending to `past`, keys and values, and itself as `mask` (B, 1, N, P + N) says -> (B, N, D), its
        own keys and values (B, G, N, E)."""
        normed = self.input_layernorm(x)
        keys, values = self.keys_and_values(normed, rotation)
        if self.keys_only:
            return x, keys, values
        x = x + self.attention(normed, rotation, mask, after(past, keys, values))
        return x + self.mlp(self.post_attention_layernorm(x)), keys, values

    def keys_and_values(self, normed: Tensor, rotation: Rotation) -> Past:
        size = self.self_attn.head_dim
        keys = rotate(heads(self.self_attn.k_proj(normed), size), rotation)
        return keys, heads(self.self_attn.v_proj(normed), size)

    def attention(self, normed: Tensor, rotation: Rotation, mask: Tensor, seen: Past) -> Tensor:
        queries = rotate(heads(self.self_attn.q_proj(normed), self.self_attn.head_dim), rotation)
        mixed: Tensor = self.self_attn.o_proj(attend(queries, *seen, mask))
        return mixed

    def keep_keys_only(self) -> None:
        """Drop all but what the keys and values need: nothing reads what the last layer of a prefix answers."""
        del self.self_attn.q_proj, self.self_attn.o_proj, self.post_attention_layernorm, self.mlp
        self.keys_only = True


class LlamaCachedLayer(CachedLayer, LlamaDecoderLayer):  # type: ignore[misc]  # another `forward`
    """A layer of Llama, which SmolVLM's language model is one of."""


class GemmaCachedLayer(CachedLayer, GemmaDecoderLayer):  # type: ignore[misc]
    """A layer of Gemma."""


class PrefixModel(nn.Module):
    """A language model as far as others attend to it: embeddings, and layers of which the last has keys alone.

    Args:
        layer_class: of its layers.
        config: of `transformers`, for the layers.
    """

    def __init__(self, layer_class: type[CachedLayer], config: Any) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(layer_class(config, i) for i in range(config.num_hidden_layers))
        last: Any = self.layers[-1]
        last.keep_keys_only()
        self.head_dim: int = config.head_dim

    def embed(self, ids: Tensor) -> Tensor:
        """(B, N) token ids -> (B, N, D), as long as other tokens are: the rows are multiplied by √D."""
        embedded: Tensor = self.embed_tokens(ids)
        return embedded * math.sqrt(embedded.shape[-1])

    def forward(self, x: Tensor, rotation: Rotation, mask: Tensor) -> list[Past]:
        """The keys and values of every layer for the tokens (B, N, D)."""
        seen = []
        for layer in self.layers:
            x, keys, values = layer(x, rotation, mask)
            seen.append((keys, values))
        return seen

    def load(self, weights: dict[str, Tensor], source: str) -> None:
        """Copy weights named as in `transformers`, of which there may be more: layers above, what is dropped, and
        words, since vocabularies are stored padded to round numbers."""
        known = {name: weights[name] for name in self.state_dict() if name in weights}
        if "embed_tokens.weight" in known:
            known["embed_tokens.weight"] = known["embed_tokens.weight"][: self.embed_tokens.num_embeddings]
        load_part(self, known, source)


def load_part(module: nn.Module, weights: dict[str, Tensor], source: str) -> None:
    """Copy all weights of a module from those of `source`; ValueError names what does not fit."""
    own = module.state_dict()
    wrong = [name for name, value in own.items() if name not in weights or weights[name].shape != value.shape]
    if wrong:
        raise ValueError(
            f"pretrained_backbone {source}: expected weights for {wrong[0]} of shape {tuple(own[wrong[0]].shape)}, got "
            f"{tuple(weights[wrong[0]].shape) if wrong[0] in weights else 'none'} ({len(wrong)} of {len(own)} do not "
            "fit). Give the sizes of that model, or another one."
        )
    module.load_state_dict(weights)


def time_embedding(time: Tensor, width: int, shortest: float = 4e-3, longest: float = 4.0) -> Tensor:
    """Sines and cosines (B, width) float32 of `time` (B,), periods from `shortest` to `longest` (openpi, `pi0.py`).

    Computed in double precision, where there is one: the shortest period makes large angles.
    """
    precise = torch.float32 if time.device.type == "mps" else torch.float64
    share = torch.linspace(0, 1, width // 2, dtype=precise, device=time.device)
    angles = 2 * math.pi * time[:, None].to(precise) / (shortest * (longest / shortest) ** share)
    return torch.cat((angles.sin(), angles.cos()), dim=1).float()


def freeze(modules: Iterable[nn.Module | None]) -> None:
    """Leave them as they are in training."""
    for module in modules:
        if module is not None:
            module.requires_grad_(False)
