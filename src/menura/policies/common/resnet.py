"""The image backbone of several policies: a ResNet of `transformers` with the norms that a policy wants."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from transformers import ResNetConfig, ResNetModel

CHANNELS_PER_GROUP = 16
NORMS = ("group", "batch", "frozen_batch")


class ResNetBackbone(nn.Module):
    """(N, 3, H, W) normalized pixels -> (N, C, H/32, W/32) feature maps.

    Args:
        widths: feature maps of each stage; with `depths` (2, 2, 2, 2), (64, 128, 256, 512) is ResNet-18.
        depths: basic blocks of each stage.
        norm: `group`: group norms of 16 channels; `batch`: batch norms; `frozen_batch`: batch norms that keep their
            statistics and scales.
        pretrained: a Hub id or a directory of a `transformers` ResNet with these widths and depths, read when a
            policy is made for training, never when a checkpoint is loaded; None starts from random weights. Its batch
            norms mean nothing once they are group norms, so that `group` is refused with it.

    Raises:
        ValueError: an unknown norm, widths that have no groups of 16, or group norms in a pretrained ResNet.
    """

    def __init__(
        self,
        widths: Sequence[int] = (64, 128, 256, 512),
        depths: Sequence[int] = (2, 2, 2, 2),
        norm: str = "group",
        pretrained: str | None = None,
    ) -> None:
        super().__init__()
        if norm not in NORMS:
            raise ValueError(f"backbone_norm: expected one of {', '.join(NORMS)}, got {norm!r}.")
        if norm == "group" and any(width % CHANNELS_PER_GROUP for width in widths):
            raise ValueError(f"expected backbone_widths to be multiples of {CHANNELS_PER_GROUP}, got {list(widths)}")
        if norm == "group" and pretrained is not None:
            raise ValueError("backbone_norm: expected batch or frozen_batch with a pretrained backbone, got group")
        self.resnet = ResNetModel(
            ResNetConfig(embedding_size=widths[0], hidden_sizes=list(widths), depths=list(depths), layer_type="basic")
        )
        self.frozen_norms = norm == "frozen_batch"
        # A checkpoint is loaded through the meta device: its weights replace these, and nothing need be fetched.
        loading_checkpoint = next(self.resnet.parameters()).is_meta
        if pretrained is not None and not loading_checkpoint:
            self.resnet.load_state_dict(ResNetModel.from_pretrained(pretrained).state_dict())
        if norm == "group":
            _group_norms(self.resnet)
        self.train()

    def train(self, mode: bool = True) -> ResNetBackbone:
        """As usual, but frozen norms stay in evaluation and out of the optimizer.

        Here and not in `__init__` alone, because `from_pretrained` puts new parameters, which learn, in place of the
        frozen ones; it ends in `eval()`, which passes here.
        """
        super().train(mode)
        if self.frozen_norms:
            for module in self.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.eval().requires_grad_(False)
        return self

    def forward(self, image: Tensor) -> Tensor:
        maps: Tensor = self.resnet(image.contiguous(memory_format=torch.channels_last)).last_hidden_state
        return maps


def _group_norms(module: nn.Module) -> None:
    """Replace every batch norm below `module` by a group norm."""
    for name, child in module.named_children():
        if isinstance(child, nn.BatchNorm2d):
            setattr(module, name, nn.GroupNorm(child.num_features // CHANNELS_PER_GROUP, child.num_features))
        else:
            _group_norms(child)
