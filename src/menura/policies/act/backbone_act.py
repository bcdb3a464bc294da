"""The image backbone of `ACTPolicy`: a ResNet of `transformers` whose norms do not depend on the batch."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from transformers import ResNetConfig, ResNetModel

from .configuration_act import ACTPolicyConfig

CHANNELS_PER_GROUP = 16


class Backbone(nn.Module):
    """(N, 3, H, W) normalized pixels -> (N, C, H/32, W/32) feature maps."""

    def __init__(self, config: ACTPolicyConfig) -> None:
        super().__init__()
        widths = config.backbone_widths
        resnet_config = ResNetConfig(
            embedding_size=widths[0], hidden_sizes=widths, depths=config.backbone_depths, layer_type="basic"
        )
        self.resnet = ResNetModel(resnet_config)
        self.frozen_norms = config.backbone_norm == "frozen_batch"
        # A checkpoint is loaded through the meta device: its weights replace these, and nothing need be fetched.
        loading_checkpoint = next(self.resnet.parameters()).is_meta
        if config.pretrained_backbone is not None and not loading_checkpoint:
            pretrained = ResNetModel.from_pretrained(config.pretrained_backbone)
            self.resnet.load_state_dict(pretrained.state_dict())
        if not self.frozen_norms:
            _group_norms(self.resnet)
        self.train()

    def train(self, mode: bool = True) -> Backbone:
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
