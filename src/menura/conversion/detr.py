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
    "self_attn": "attention",
    "norm1": "attention.norm",
    "linear1": "feedforward.layers.0",
    "linear2": "feedforward.layers.3",
    "norm2": "feedforward.norm",
}
DECODER_LAYER = {
    "self_attn": "self_attention",
    "norm1": "self_attention.norm",
    "multihead_attn": "cross_attention",
    "norm2": "cross_attention.norm",
    "linear1": "feedforward.layers.0",
    "linear2": "feedforward.layers.3",
    "norm3": "feedforward.norm",
}


_PROJECTIONS = ("q_proj", "k_proj", "v_proj")  # which `nn.MultiheadAttention` holds as one, `in_proj_…`


def to_ours(layer: Mapping[str, Tensor], names: Mapping[str, str]) -> dict[str, Tensor]:
    """A layer's tensors by our names of its parts; CheckpointError for a part it should not have."""
    result: dict[str, Tensor] = {}
    for name, tensor in _named(layer, names).items():
        attention, joint, kind = name.rpartition("in_proj_")
        if joint:
            result |= {f"{attention}{p}.{kind}": part for p, part in zip(_PROJECTIONS, tensor.chunk(3), strict=True)}
        else:
            result[name] = tensor
    return result


def to_theirs(layer: Mapping[str, Tensor], names: Mapping[str, str]) -> dict[str, Tensor]:
    """The way back of `to_ours`."""
    result = _named(layer, {ours: theirs for theirs, ours in names.items()})
    for name in [name for name in result if "q_proj." in name]:
        parts = [result.pop(name.replace("q_proj.", f"{projection}.")) for projection in _PROJECTIONS]
        result[name.replace("q_proj.", "in_proj_")] = torch.cat(parts)
    return result


def _named(layer: Mapping[str, Tensor], names: Mapping[str, str]) -> dict[str, Tensor]:
    def rename(name: str) -> str:
        parts = [part for part in names if name.startswith(f"{part}.")]
        if not parts:
            raise CheckpointError(f"transformer layer: expected parts {', '.join(names)}, got the tensor {name!r}.")
        part = max(parts, key=len)
        return names[part] + name.removeprefix(part)

    return renamed(layer, rename)


def absorbed(layer: Mapping[str, Tensor], width: int, *, pre_norm: bool) -> dict[str, Tensor]:
    """A first decoder layer without its attention to itself, and with biases that make up for it.

    Its values are what zeros are made of, the same v for every token, and attention's weights sum to 1: the layer adds
    c = W_o v + b_o to zeros. What the second attention then asks with, and adds to, are constants.
    """
    own = {name: tensor.double() for name, tensor in layer.items()}
    zeros = own["self_attention.out_proj.bias"].new_zeros(width)

    def normalized(x: Tensor, norm: str) -> Tensor:
        return layer_norm(x, (width,), own[f"{norm}.weight"], own[f"{norm}.bias"])

    def projected(x: Tensor, projection: str) -> Tensor:
        return own[f"{projection}.weight"] @ x + own[f"{projection}.bias"]

    read = normalized(zeros, "self_attention.norm") if pre_norm else zeros
    constant = projected(projected(read, "self_attention.v_proj"), "self_attention.out_proj")
    if pre_norm:
        asked, added = normalized(constant, "cross_attention.norm"), constant
    else:
        asked = added = normalized(constant, "self_attention.norm")
    gone = ("self_attention.", "cross_attention.norm.") if pre_norm else ("self_attention.",)
    result = {name: tensor for name, tensor in layer.items() if not name.startswith(gone)}
    biases = {
        "cross_attention.q_proj.bias": projected(asked, "cross_attention.q_proj"),
        "cross_attention.out_proj.bias": own["cross_attention.out_proj.bias"] + added,
    }
    return result | {name: bias.to(layer[name].dtype) for name, bias in biases.items()}
