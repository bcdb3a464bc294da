"""The 1-D U-Net of Diffusion Policy: LeRobot's and the authors' are the same network under other names than ours.

Theirs have, for each block, one linear layer of FiLM over [time, condition]. Ours has one for all blocks, as two.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from menura.conversion.weights import Weights, listed
from menura.errors import CheckpointError

_TIME = {"diffusion_step_encoder.1": "time_features.0", "diffusion_step_encoder.3": "time_features.2"}
_LAST = {"final_conv.0.block.0": "last.0", "final_conv.0.block.1": "last.1", "final_conv.1": "output"}
# Parts of a block: the authors' names, LeRobot's, ours.
_BLOCK = (
    ("blocks.0.block.", "conv1.block.", "first."),
    ("blocks.1.block.", "conv2.block.", "second."),
    ("residual_conv.", "residual_conv.", "around."),
)
_PLACES = ((0, "first"), (1, "second"))
_FILM = "cond_encoder.1"
_OURS = re.compile(r"(down\.\d+|middle|up\.\d+)\.(first|second|resample)\.(.*)")


def from_authors(weights: Weights, prefix: str, n_levels: int, time_dim: int, *, lerobot: bool) -> dict[str, Tensor]:
    """The weights of `ConditionalUNet` out of those below `prefix`.

    Args:
        weights: from which they are taken.
        prefix: of their names, such as `diffusion.unet.`.
        n_levels: how many widths the U-Net has.
        time_dim: the first columns of their FiLM.
        lerobot: LeRobot's names, else the authors'.
    """
    theirs = weights.take_below(prefix)
    result: dict[str, Tensor] = {}

    def move(old: str, new: str) -> None:
        for name in [name for name in theirs if name.startswith(old)]:
            result[new + name.removeprefix(old)] = theirs.pop(name)

    film = []
    for level, ours in _levels(n_levels).items():
        for number, place in _PLACES:
            old, new = f"{level}.{number}.", f"{ours}.{place}."
            if f"{old}{_FILM}.weight" not in theirs:
                raise CheckpointError(
                    f"{weights.where}: expected {prefix}{old}{_FILM}.weight, got none. Its config says another depth."
                )
            film.append((theirs.pop(f"{old}{_FILM}.weight"), theirs.pop(f"{old}{_FILM}.bias")))
            for authors, lerobots, part in _BLOCK:
                move(old + (lerobots if lerobot else authors), new + part)
        move(f"{level}.2." if lerobot else f"{level}.2.conv.", f"{ours}.resample.")
    for old, new in (_TIME | _LAST).items():
        move(f"{old}.", f"{new}.")
    if theirs:
        raise CheckpointError(
            f"{weights.where}: expected a U-Net with FiLM on {n_levels} levels, got {prefix}{listed(theirs)} left over."
        )
    joined = torch.cat([weight for weight, _ in film])
    result["film.time.weight"] = joined[:, :time_dim].contiguous()
    result["film.condition.weight"] = joined[:, time_dim:].contiguous()
    result["film.condition.bias"] = torch.cat([bias for _, bias in film])
    return result


def to_lerobot(tensors: Mapping[str, Tensor], n_levels: int) -> dict[str, Tensor]:
    """The way back, without a prefix."""
    ours = dict(tensors)
    weight = torch.cat((ours.pop("film.time.weight"), ours.pop("film.condition.weight")), dim=1)
    bias = ours.pop("film.condition.bias")
    levels = {own: level for level, own in _levels(n_levels).items()}
    result = {_name_in_lerobot(name, levels): tensor for name, tensor in ours.items()}
    # Each block's rows of FiLM: as many as it has channels, or twice, where it scales as well as shifts.
    blocks = [(f"{level}.{number}", f"{own}.{place}") for own, level in levels.items() for number, place in _PLACES]
    widths = [len(ours[f"{own}.first.0.bias"]) for _, own in blocks]
    rows = [width * len(bias) // sum(widths) for width in widths]
    for (block, _), own_weight, own_bias in zip(
        blocks, torch.split(weight, rows), torch.split(bias, rows), strict=True
    ):
        result[f"{block}.{_FILM}.weight"] = own_weight.contiguous()
        result[f"{block}.{_FILM}.bias"] = own_bias.contiguous()
    return result


def _name_in_lerobot(name: str, levels: Mapping[str, str]) -> str:
    match = _OURS.fullmatch(name)
    if match is None:
        plain = {ours: theirs for theirs, ours in (_TIME | _LAST).items()}
        layer, _, leaf = name.rpartition(".")
        return f"{plain[layer]}.{leaf}"
    level, place, rest = match.groups()
    if place == "resample":
        return f"{levels[level]}.2.{rest}"
    theirs, ours = next((theirs, ours) for _, theirs, ours in _BLOCK if rest.startswith(ours))
    number = next(number for number, own in _PLACES if own == place)
    return f"{levels[level]}.{number}.{theirs}{rest.removeprefix(ours)}"


def _levels(n: int) -> dict[str, str]:
    """Their level -> ours, in the order in which ours are modulated."""
    down = {f"down_modules.{i}": f"down.{i}" for i in range(n)}
    up = {f"up_modules.{i}": f"up.{i}" for i in range(n - 1)}
    return {**down, "mid_modules": "middle", **up}
