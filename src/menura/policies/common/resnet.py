"""An image backbone: a ResNet of `transformers` (He et al. 2016, arXiv 1512.03385) whose norms do not depend on the
batch, ended before the pooling."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from transformers import ResNetConfig, ResNetModel

from .norms import CHANNELS_PER_GROUP, group_norms, keep_batch_norms

NORMS = ("group", "frozen_batch", "batch")
BLOCKS = ("basic", "bottleneck")


class ResNetBackbone(nn.Module):
    """(N, 3, H, W) normalized pixels -> (N, C, H/32, W/32) feature maps, for four stages.

    Args:
        widths: feature maps of each stage; the last is C.
        depths: blocks of each stage. The defaults of both are ResNet-18.
        norm: `group`: group norms of 16 channels; `frozen_batch`: batch norms that keep their statistics and scales;
            `batch`: batch norms that learn, whose rows in training depend on one another.
        pretrained: a Hub id or a directory of a `transformers` ResNet of these sizes to start from, read when a policy
            is made for training, never when a checkpoint is loaded; None starts from random weights. Its batch norms
            mean nothing once they are group norms, so that `group` is refused with it.
        block: `basic` (ResNet-18, -34) or `bottleneck` (ResNet-50 and larger).
        dilated: the last stage keeps its input's resolution and sees as far by dilation (bottleneck blocks alone).

    Raises:
        ValueError: of `check_resnet`.
    """

    def __init__(
        self,
        widths: Sequence[int] = (64, 128, 256, 512),
        depths: Sequence[int] = (2, 2, 2, 2),
        norm: str = "group",
        pretrained: str | None = None,
        *,
        block: str = "basic",
        dilated: bool = False,
    ) -> None:
        super().__init__()
        check_resnet(widths, depths, norm, pretrained, block, dilated)
        stem = widths[0] if block == "basic" else widths[0] // 4  # as in the paper's table 1
        config = ResNetConfig(embedding_size=stem, hidden_sizes=list(widths), depths=list(depths), layer_type=block)
        self.resnet = ResNetModel(config)
        self.frozen_norms = norm == "frozen_batch"
        # A checkpoint is loaded through the meta device: its weights replace these, and nothing need be fetched.
        loading_checkpoint = next(self.resnet.parameters()).is_meta
        if pretrained is not None and not loading_checkpoint:
            self.resnet.load_state_dict(ResNetModel.from_pretrained(pretrained).state_dict())
        if norm == "group":
            group_norms(self.resnet)
        if dilated:
            _dilate(self.resnet.encoder.stages[-1])
        self.train()

    def train(self, mode: bool = True) -> ResNetBackbone:
        """As usual, but frozen norms stay in evaluation and out of the optimizer."""
        super().train(mode)
        if self.frozen_norms:
            keep_batch_norms(self)
        return self

    def forward(self, image: Tensor) -> Tensor:
        maps: Tensor = self.resnet(image.contiguous(memory_format=torch.channels_last)).last_hidden_state
        return maps


def check_resnet(
    widths: Sequence[int],
    depths: Sequence[int],
    norm: str,
    pretrained: str | None = None,
    block: str = "basic",
    dilated: bool = False,
) -> None:
    """ValueError for arguments that make no `ResNetBackbone`, in the words of a policy's config."""
    if len(widths) != len(depths):
        raise ValueError(f"expected as many backbone_widths as backbone_depths, got {widths} and {depths}")
    if block not in BLOCKS:
        raise ValueError(f"expected backbone_block to be one of {', '.join(BLOCKS)}, got {block!r}")
    if norm not in NORMS:
        raise ValueError(f"expected backbone_norm to be one of {', '.join(NORMS)}, got {norm!r}")
    narrowest = CHANNELS_PER_GROUP if block == "basic" else 4 * CHANNELS_PER_GROUP
    if norm == "group" and any(width % narrowest for width in widths):
        raise ValueError(f"expected backbone_widths to be multiples of {narrowest}, got {list(widths)}")
    if norm == "group" and pretrained is not None:
        raise ValueError("expected backbone_norm to be batch or frozen_batch with a pretrained backbone, got group")
    if dilated and block != "bottleneck":
        raise ValueError("expected backbone_dilated with bottleneck blocks alone, got basic ones")


def independent_norm(norm: str | None, pretrained: str | None) -> str:
    """A norm with which no row of a batch influences another; of None, the one that fits the weights.

    Raises:
        ValueError: another norm, in the words of a policy's config.
    """
    if norm is None:
        return "group" if pretrained is None else "frozen_batch"
    if norm not in ("group", "frozen_batch"):
        raise ValueError(f"expected backbone_norm to be group or frozen_batch, got {norm!r}")
    return norm


def _dilate(stage: nn.Module) -> None:
    """No stride in the first block, 3 × 3 convolutions dilated by 2 in the others: DETR's DC5 (arXiv 2005.12872)."""
    for index, block in enumerate(stage.layers):  # type: ignore[arg-type]
        for convolution in (module for module in block.modules() if isinstance(module, nn.Conv2d)):
            convolution.stride = (1, 1)
            if index and convolution.kernel_size == (3, 3):
                convolution.dilation = convolution.padding = (2, 2)
