"""The ResNets of torchvision and of transformers: the same network under other names."""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from menura.errors import CheckpointError

# (feature maps of the four stages, blocks of each, kind of block):
# https://docs.pytorch.org/vision/stable/models/resnet.html
SIZES: Mapping[str, tuple[tuple[int, ...], tuple[int, ...], str]] = {
    "resnet18": ((64, 128, 256, 512), (2, 2, 2, 2), "basic"),
    "resnet34": ((64, 128, 256, 512), (3, 4, 6, 3), "basic"),
    "resnet50": ((256, 512, 1024, 2048), (3, 4, 6, 3), "bottleneck"),
    "resnet101": ((256, 512, 1024, 2048), (3, 4, 23, 3), "bottleneck"),
    "resnet152": ((256, 512, 1024, 2048), (3, 8, 36, 3), "bottleneck"),
}
COUNTER = "num_batches_tracked"
_STEM = "embedder.embedder."
_BLOCK = re.compile(r"layer(\d+)\.(\d+)\.(conv|bn|downsample\.)(\d+)\.(\w+)")
_OURS = re.compile(
    r"encoder\.stages\.(\d+)\.layers\.(\d+)\.(?:layer\.(\d+)|shortcut)\.(convolution|normalization)\.(\w+)"
)
_PARTS = {"convolution": "conv", "normalization": "bn"}


def from_torchvision(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """`conv1.weight`, `layer1.0.bn1.bias`, … -> the names of `transformers.ResNetModel`.

    Frozen batch norms, which count no batches, get the counter that batch norms have. What comes after the last stage
    (`fc`) must have been taken out.
    """
    result = {}
    for name, tensor in tensors.items():
        ours = _from(name)
        result[ours] = tensor
        if name.endswith("running_mean"):
            counter = name.replace("running_mean", COUNTER)
            result.setdefault(_from(counter), tensors.get(counter, torch.tensor(0)))
    return result


def to_torchvision(tensors: Mapping[str, Tensor], *, counters: bool) -> dict[str, Tensor]:
    """The way back; `counters`: keep what batch norms count and frozen ones do not have."""
    return {_to(name): tensor for name, tensor in tensors.items() if counters or not name.endswith(COUNTER)}


def _from(name: str) -> str:
    if match := re.fullmatch(r"(conv|bn)1\.(\w+)", name):
        return f"{_STEM}{'convolution' if match[1] == 'conv' else 'normalization'}.{match[2]}"
    match = _BLOCK.fullmatch(name)
    if match is None:
        raise CheckpointError(f"image backbone: expected a ResNet of torchvision, got the tensor {name!r}.")
    stage, block, part, number, leaf = match.groups()
    where = f"encoder.stages.{int(stage) - 1}.layers.{block}"
    if part == "downsample.":
        return f"{where}.shortcut.{('convolution', 'normalization')[int(number)]}.{leaf}"
    return f"{where}.layer.{int(number) - 1}.{'convolution' if part == 'conv' else 'normalization'}.{leaf}"


def _to(name: str) -> str:
    if name.startswith(_STEM):
        part, leaf = name.removeprefix(_STEM).split(".")
        return f"{_PARTS[part]}1.{leaf}"
    match = _OURS.fullmatch(name)
    if match is None:
        raise CheckpointError(f"image backbone: expected a ResNet of transformers, got the tensor {name!r}.")
    stage, block, number, part, leaf = match.groups()
    where = f"layer{int(stage) + 1}.{block}"
    if number is None:
        return f"{where}.downsample.{0 if part == 'convolution' else 1}.{leaf}"
    return f"{where}.{_PARTS[part]}{int(number) + 1}.{leaf}"
