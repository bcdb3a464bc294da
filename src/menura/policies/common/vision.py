"""A vision model of `transformers` that is trained with the policy: pixels -> tokens or one vector an image."""

from __future__ import annotations

from inspect import signature

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from .backbones import Source, build_backbone
from .norms import group_norms, keep_batch_norms
from .sinusoidal import sinusoidal

NORMS = ("group", "frozen_batch")
POOLINGS = ("first", "mean", "pooler")


class VisionBackbone(nn.Module):
    """(N, 3, H, W) normalized pixels -> tokens (N, n, `width`), or with a pooling one vector (N, `width`) an image.

    Args:
        source: as in `build_backbone`: a vision model, or the vision half of one for images and text.
        norm: what becomes of batch norms, which would make rows depend on their batch: `group` puts group norms of 16
            channels in their place (for random weights); `frozen_batch` keeps their statistics and scales as they are
            (for pretrained ones). Other norms stay.
        pooling: the `first` token (CLIP's class token), the `mean` of all, the model's own `pooler` (SigLIP's head);
            None for all tokens.
    """

    def __init__(self, source: Source, norm: str = "group", pooling: str | None = None) -> None:
        super().__init__()
        if norm not in NORMS or pooling not in (*POOLINGS, None):
            raise ValueError(
                f"expected a norm of {', '.join(NORMS)} and a pooling of {', '.join(POOLINGS)} or None, "
                f"got {norm!r} and {pooling!r}"
            )
        self.model = build_backbone(source, "vision_model")
        self.frozen_norms, self.pooling = norm == "frozen_batch", pooling
        if pooling != "pooler":
            _drop_pooler(self.model)
        if norm == "group":
            group_norms(self.model)
        config = self.model.config
        # A vision transformer takes images of other sizes than it was made for, its positions interpolated.
        self.any_size = "interpolate_pos_encoding" in signature(self.model.forward).parameters
        self.width: int = getattr(config, "hidden_size", None) or config.hidden_sizes[-1]
        self.train()

    def train(self, mode: bool = True) -> VisionBackbone:
        """As usual, but frozen norms stay in evaluation and out of the optimizer."""
        super().train(mode)
        if self.frozen_norms:
            keep_batch_norms(self)
        return self

    def forward(self, image: Tensor) -> Tensor:
        weight = next(self.model.parameters())
        # Channels last is the layout pixels come in, and the faster one for convolutions on CPU and GPU alike.
        pixels = image.to(weight.dtype).contiguous(memory_format=torch.channels_last)
        output = self.model(pixels, interpolate_pos_encoding=True) if self.any_size else self.model(pixels)
        if self.pooling == "pooler":
            pooled: Tensor = output.pooler_output.flatten(1)
            return pooled
        tokens: Tensor = output.last_hidden_state
        if tokens.ndim == 4:  # (N, C, h, w) of a convolutional network, which does not say where a token is
            height, width = tokens.shape[-2:]
            tokens = tokens.flatten(2).transpose(1, 2) + grid_positions(height, width, self.width, like=tokens)
        if self.pooling is None:
            return tokens
        return tokens[:, 0] if self.pooling == "first" else tokens.mean(dim=1)


def grid_positions(height: int, width: int, dim: int, like: Tensor) -> Tensor:
    """(height·width, dim), row by row: the first half of the dimensions tells the row, the second the column."""
    rows = sinusoidal(torch.arange(height, device=like.device, dtype=torch.float32), dim // 2)
    columns = sinusoidal(torch.arange(width, device=like.device, dtype=torch.float32), dim // 2)
    grid = torch.cat((rows[:, None].expand(-1, width, -1), columns[None].expand(height, -1, -1)), dim=-1)
    return grid.flatten(0, 1).to(like.dtype)


def _drop_pooler(model: PreTrainedModel) -> None:
    """Take out the layers behind the last hidden state, which would never be trained."""
    layers = ("pooler", "head", "post_layernorm") if model.config.model_type == "clip_vision_model" else ("pooler",)
    for name in layers:
        if isinstance(getattr(model, name, None), nn.Module):
            setattr(model, name, nn.Identity())
    if hasattr(model, "use_head"):  # SigLIP's attention pooling
        model.use_head = False  # type: ignore[assignment]
        del model.head
