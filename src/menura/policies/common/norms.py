"""What becomes of the batch norms of an image model, with which a row would depend on its batch."""

from __future__ import annotations

from torch import nn

CHANNELS_PER_GROUP = 16


def group_norms(model: nn.Module) -> None:
    """Put a group norm of 16 channels in the place of every batch norm, for a model of random weights.

    Raises:
        ValueError: a batch norm of other than a multiple of 16 channels.
    """
    for name, child in model.named_children():
        if not isinstance(child, nn.BatchNorm2d):
            group_norms(child)
            continue
        channels = child.num_features
        if channels % CHANNELS_PER_GROUP:
            raise ValueError(
                f"expected an image model whose widths are multiples of {CHANNELS_PER_GROUP}, for group norms, "
                f"got {channels}"
            )
        setattr(model, name, nn.GroupNorm(channels // CHANNELS_PER_GROUP, channels))


def keep_batch_norms(model: nn.Module) -> None:
    """Let every batch norm keep its statistics and its scales, for a model of pretrained weights.

    Called in `train` and not in `__init__` alone, because `from_pretrained` puts new parameters, which learn, in place
    of the frozen ones; it ends in `eval()`, which passes there.
    """
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval().requires_grad_(False)
