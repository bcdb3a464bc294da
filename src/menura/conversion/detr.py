"""The transformer layers of DETR, as LeRobot's and the original ACT have them, and as `ACTPolicy` has them."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn.functional import layer_norm

from menura.conversion.weights import renamed
from menura.errors import CheckpointError

# Theirs -> ours, of the parts of a layer.
ENCODER_LAYER = {
    "self_attn": "attention.attention",
    "norm1": "attention.norm",
    "linear1": "feedforward.layers.0",
    "linear2": "feedforward.layers.3",
    "norm2": "feedforward.norm",
}
DECODER_LAYER = {
    "self_attn": "self_attention.attention",
    "norm1": "self_attention.norm",
    "multihead_attn": "cross_attention.attention",
    "norm2": "cross_attention.norm",
    "linear1": "feedforward.layers.0",
    "linear2": "feedforward.layers.3",
    "norm3": "feedforward.norm",
}


def named(layer: Mapping[str, Tensor], names: Mapping[str, str]) -> dict[str, Tensor]:
    """A layer's tensors by the other side's names of its parts; CheckpointError for a part it should not have."""

    def rename(name: str) -> str:
        part = next((part for part in names if name.startswith(f"{part}.")), None)
        if part is None:
            raise CheckpointError(f"transformer layer: expected parts {', '.join(names)}, got the tensor {name!r}.")
        return names[part] + name.removeprefix(part)

    return renamed(layer, rename)


def absorbed(layer: Mapping[str, Tensor], width: int, *, pre_norm: bool) -> dict[str, Tensor]:
    """A first decoder layer without its attention to itself, and with biases that make up for it.

    Its values are what zeros are made of, the same v for every token, and attention's weights sum to 1: the layer adds
    c = W_o v + b_o to zeros. What the second attention then asks with, and adds to, are constants.
    """
    own = {name: tensor.double() for name, tensor in layer.items()}
    attention, other = "self_attention.attention.", "cross_attention.attention."
    zeros = own[f"{attention}out_proj.bias"].new_zeros(width)

    def normalized(x: Tensor, norm: str) -> Tensor:
        return layer_norm(x, (width,), own[f"{norm}.weight"], own[f"{norm}.bias"])

    value_weight = own[f"{attention}in_proj_weight"].chunk(3)[2]
    value = own[f"{attention}in_proj_bias"].chunk(3)[2]
    if pre_norm:
        value = value + value_weight @ normalized(zeros, "self_attention.norm")
    constant = own[f"{attention}out_proj.weight"] @ value + own[f"{attention}out_proj.bias"]
    if pre_norm:
        asked, added = normalized(constant, "cross_attention.norm"), constant
    else:
        asked = added = normalized(constant, "self_attention.norm")
    query_bias, *rest = own[f"{other}in_proj_bias"].chunk(3)
    query_bias = query_bias + own[f"{other}in_proj_weight"].chunk(3)[0] @ asked
    gone = ("self_attention.", "cross_attention.norm.") if pre_norm else ("self_attention.",)
    result = {name: tensor for name, tensor in layer.items() if not name.startswith(gone)}
    biases = {
        f"{other}in_proj_bias": torch.cat((query_bias, *rest)),
        f"{other}out_proj.bias": own[f"{other}out_proj.bias"] + added,
    }
    return result | {name: bias.to(layer[name].dtype) for name, bias in biases.items()}
