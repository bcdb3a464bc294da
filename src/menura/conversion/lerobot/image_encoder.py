"""LeRobot's image encoder of Diffusion and VQ-BeT (`DiffusionRgbEncoder`, `VQBeTRgbEncoder`), which is our
`KeypointEncoder` around a ResNet of torchvision."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from menura.conversion.resnet import from_torchvision, to_torchvision
from menura.conversion.weights import Weights, below, renamed

GRID = "pool.pos_grid"
# The parts of torchvision's ResNet by their place in LeRobot's `Sequential`.
_BACKBONE = {"0": "conv1", "1": "bn1", "4": "layer1", "5": "layer2", "6": "layer3", "7": "layer4"}
_LAYERS = {"pool.nets": "keypoints.projection", "out": "projection"}
_OURS, _THEIRS = "backbone.resnet.", "backbone."


def in_torchvision(name: str) -> str:
    """`4.0.conv1.weight`, by its place in a `Sequential` of the ResNet's parts -> `layer1.0.conv1.weight`."""
    place, _, rest = name.partition(".")
    return f"{_BACKBONE.get(place, place)}.{rest}"


def from_lerobot(weights: Weights, prefix: str) -> dict[str, Tensor]:
    """A `KeypointEncoder`'s weights, of those below `prefix`."""
    weights.drop(prefix + GRID, "positions in an image are computed")
    result: dict[str, Tensor] = {}
    for old, new in _LAYERS.items():
        result |= below(f"{new}.", weights.take_below(f"{prefix}{old}."))
    backbone = renamed(weights.take_below(prefix + _THEIRS), in_torchvision)
    return result | below(_OURS, from_torchvision(backbone))


def to_lerobot(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """LeRobot's weights, but for its grid of positions."""
    weights = Weights(tensors, "state_dict")
    places = {part: place for place, part in _BACKBONE.items()}

    def in_sequence(name: str) -> str:
        part, _, rest = name.partition(".")
        return f"{places[part]}.{rest}"

    backbone = to_torchvision(weights.take_below(_OURS), counters=True)
    result = below(_THEIRS, renamed(backbone, in_sequence))
    for theirs, ours in _LAYERS.items():
        result |= below(f"{theirs}.", weights.take_below(f"{ours}."))
    return result
