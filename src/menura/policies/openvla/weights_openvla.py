"""Original weights of OpenVLA, under the names they have here.

`openvla/openvla-7b` and its fine-tuned kin hold the vision encoders as timm names them: `vision_backbone.featurizer` is
DINOv2, `vision_backbone.fused_featurizer` SigLIP.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

from torch import Tensor, nn
from transformers.modeling_utils import load_state_dict
from transformers.utils.hub import cached_file

_PREFIXES = {
    "vision_backbone.featurizer.": "vision.dinov2.",
    "vision_backbone.fused_featurizer.": "vision.siglip.",
    "language_model.model.": "language_model.",
    "language_model.lm_head.": "lm_head.",
    "projector.": "projector.",
}
_DINOV2 = {
    "cls_token": "embeddings.cls_token",
    "reg_token": "embeddings.register_tokens",
    "pos_embed": "embeddings.position_embeddings",
    "patch_embed.proj": "embeddings.patch_embeddings.projection",
    "blocks": "encoder.layer",
    "attn.proj": "attention.o_proj",
    "attn.q": "attention.q_proj",
    "attn.k": "attention.k_proj",
    "attn.v": "attention.v_proj",
    "ls1.scale_factor": "layer_scale1.lambda1",
    "ls1.gamma": "layer_scale1.lambda1",
    "ls2.scale_factor": "layer_scale2.lambda1",
    "ls2.gamma": "layer_scale2.lambda1",
}
_SIGLIP = {
    "pos_embed": "embeddings.position_embedding.weight",
    "patch_embed.proj": "embeddings.patch_embedding",
    "blocks": "encoder.layers",
    "norm1": "layer_norm1",
    "norm2": "layer_norm2",
    "attn.proj": "self_attn.out_proj",
    "attn.q": "self_attn.q_proj",
    "attn.k": "self_attn.k_proj",
    "attn.v": "self_attn.v_proj",
}
#: As older versions of transformers name the same.
_OLDER = {
    "attention.q_proj": "attention.attention.query",
    "attention.k_proj": "attention.attention.key",
    "attention.v_proj": "attention.attention.value",
    "attention.o_proj": "attention.output.dense",
    "vision.siglip.": "vision.siglip.vision_model.",
}


def load_original(policy: nn.Module, source: str) -> None:
    """Copy the original weights of a Hub id or a directory into a policy; heads that they lack stay as they are.

    Raises:
        ValueError: a weight of the vision encoders, the projector or the language model is missing or of another shape.
    """
    own = {name: value for name, value in policy.state_dict().items() if name.startswith(tuple(_PREFIXES.values()))}
    missing = set(own)
    for file in _files(source):
        for name, value in renamed(load_state_dict(file)):
            there = next((one for one in (name, _older(name)) if one in own), None)
            if there is None:
                continue  # the last layer of a vision encoder and what comes after it, or a head not wanted
            if own[there].shape != value.shape:
                raise ValueError(
                    f"pretrained_backbone {source}: expected {there} of shape {tuple(own[there].shape)}, got "
                    f"{tuple(value.shape)}. Give the sizes of that model, or another one."
                )
            own[there].copy_(value)
            missing.discard(there)
    if missing:
        raise ValueError(
            f"pretrained_backbone {source}: expected weights for {sorted(missing)[0]}, got none ({len(missing)} of "
            f"{len(own)} are missing). It must be an OpenVLA with DINOv2 and SigLIP, of these numbers of layers."
        )


def renamed(weights: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    """Original names and weights -> ours; timm's queries, keys and values in one become three."""
    for name, value in weights.items():
        old = next((prefix for prefix in _PREFIXES if name.startswith(prefix)), None)
        if old is None:
            raise ValueError(f"expected weights of {', '.join(_PREFIXES)}, got {name}")
        new, rest = _PREFIXES[old], name.removeprefix(old)
        if not new.startswith("vision."):
            yield new + rest, value
        elif ".qkv." in rest:
            for letter, part in zip("qkv", value.chunk(3), strict=True):
                yield new + _timm(rest.replace(".qkv.", f".{letter}."), new), part
        elif rest == "pos_embed":
            # DINOv2's class token holds its own position here; SigLIP has none.
            value = nn.functional.pad(value, (0, 0, 1, 0)) if new == "vision.dinov2." else value[0]
            yield new + _timm(rest, new), value
        else:
            yield new + _timm(rest, new), value


def _timm(name: str, encoder: str) -> str:
    for old, new in (_DINOV2 if encoder == "vision.dinov2." else _SIGLIP).items():
        name = f".{name}.".replace(f".{old}.", f".{new}.")[1:-1]
    return name


def _older(name: str) -> str:
    for new, old in _OLDER.items():
        name = name.replace(new, old)
    return name


def _files(source: str) -> list[str]:
    """The files of weights, one or several."""
    index = cached_file(source, "model.safetensors.index.json", _raise_exceptions_for_missing_entries=False)
    if index is None:
        return [str(cached_file(source, "model.safetensors"))]
    names = set(json.loads(Path(index).read_text(encoding="utf-8"))["weight_map"].values())
    return [str(cached_file(source, name)) for name in sorted(names)]
