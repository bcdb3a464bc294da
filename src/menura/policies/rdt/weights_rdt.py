"""The authors' weights of RDT-1B and RDT-170M, under our names.

Their repositories on the Hub, `robotics-diffusion-transformer/rdt-1b` and `…/rdt-170m`, hold the transformer and the
adaptors, no encoders and no statistics of data: states and actions are physical there, laid in the unified vector.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor
from transformers.modeling_utils import load_state_dict
from transformers.utils.hub import cached_file

#: As `save_pretrained` of their `RDTRunner` writes it.
FILE = "pytorch_model.bin"

_RENAMED = (
    (r"^lang_adaptor\.", "language_adaptor."),
    (r"^img_adaptor\.", "image_adaptor."),
    (r"^model\.", "transformer."),
    (r"\.t_embedder\.mlp\.", ".time_embedder."),
    (r"\.freq_embedder\.mlp\.", ".frequency_embedder."),
    (r"(embedder)\.0\.", r"\1.inner."),
    (r"(embedder)\.2\.", r"\1.outer."),
    (r"\.x_pos_embed$", ".positions"),
    (r"\.lang_cond_pos_embed$", ".language_positions"),
    (r"\.img_cond_pos_embed$", ".image_positions"),
    (r"\.norm1\.", ".self_attention_norm."),
    (r"\.norm2\.", ".cross_attention_norm."),
    (r"\.norm3\.", ".feedforward_norm."),
    (r"\.attn\.qkv\.", ".self_attention.queries_keys_values."),
    (r"\.attn\.", ".self_attention."),
    (r"\.cross_attn\.q\.", ".cross_attention.queries."),
    (r"\.cross_attn\.kv\.", ".cross_attention.projected."),
    (r"\.cross_attn\.", ".cross_attention."),
    (r"\.q_norm\.", ".query_norm."),
    (r"\.k_norm\.", ".key_norm."),
    (r"\.proj\.", ".output."),
    (r"\.final_layer\.norm_final\.", ".final_norm."),
    (r"\.final_layer\.ffn_final\.", ".final_layers."),
    (r"\.ffn\.", ".feedforward."),
    (r"\.fc1\.", ".inner."),
    (r"\.fc2\.", ".outer."),
)


def authors_weights(source: str, wanted: Mapping[str, Tensor], n_cameras: int, n_obs_steps: int) -> dict[str, Tensor]:
    """The weights in a directory or Hub repository of the authors' form, as `RDTPolicy` names them.

    A shorter chunk, less language and fewer cameras (the first of theirs) than they were trained with are taken out
    of their positions; without cameras nothing of images is taken.

    Args:
        source: a Hub id or a directory with `pytorch_model.bin`; nothing in it but tensors is unpickled.
        wanted: the policy's own weights, by name, for their shapes.
        n_cameras, n_obs_steps: as the policy has them.

    Raises:
        ValueError: a weight is missing, superfluous or of another shape.
    """
    tensors = load_state_dict(str(cached_file(source, FILE)), weights_only=True)
    found = {our_name(name): tensor for name, tensor in tensors.items()}
    for name in ("transformer.positions", "transformer.language_positions"):
        found[name] = found[name][0, : len(wanted[name])]
    images = found.pop("transformer.image_positions")[0]  # (O·3·n, D)
    if n_cameras:
        n_tokens = len(wanted["transformer.image_positions"]) // (n_cameras * n_obs_steps)
        each = images.reshape(n_obs_steps, -1, n_tokens, images.shape[-1])
        found["transformer.image_positions"] = each[:, :n_cameras].flatten(0, 2)
    else:
        found = {name: tensor for name, tensor in found.items() if name in wanted or not _of_images(name)}
    for name in sorted(found.keys() | wanted.keys()):
        ours, theirs = (list(d[name].shape) if name in d else None for d in (wanted, found))
        if ours != theirs:
            raise ValueError(
                f"{source}: expected {name} of shape {ours}, got {theirs}. "
                "hidden_size, n_layers, chunk_size, camera_names and the encoders must fit the weights."
            )
    return found


def our_name(name: str) -> str:
    """`model.blocks.0.attn.qkv.weight` -> `transformer.blocks.0.self_attention.queries_keys_values.weight`."""
    for pattern, replacement in _RENAMED:
        name = re.sub(pattern, replacement, name)
    return name


def _of_images(name: str) -> bool:
    """Whether it serves images alone: the adaptor, and cross-attention of every second block."""
    block = re.match(r"transformer\.blocks\.(\d+)\.cross_attention", name)
    return name.startswith("image_adaptor.") or (block is not None and int(block[1]) % 2 == 1)
