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
        for number, place in enumerate(("first", "second")):
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
    joined = torch.cat((ours.pop("film.time.weight"), ours.pop("film.condition.weight")), dim=1)
    bias = ours.pop("film.condition.bias")
    result: dict[str, Tensor] = {}
    levels = {own: level for level, own in _levels(n_levels).items()}
    parts = {own: lerobots for _, lerobots, own in _BLOCK}
    plain = {own: old for old, own in (_TIME | _LAST).items()}
    for name, tensor in ours.items():
        if match := _OURS.fullmatch(name):
            level, place, rest = match.groups()
            if place == "resample":
                result[f"{levels[level]}.2.{rest}"] = tensor
                continue
            part = next(part for part in parts if rest.startswith(part))
            number = ("first", "second").index(place)
            result[f"{levels[level]}.{number}.{parts[part]}{rest.removeprefix(part)}"] = tensor
        else:
            layer, _, leaf = name.rpartition(".")
            result[f"{plain[layer]}.{leaf}"] = tensor
    row = 0
    n_rows = len(bias) // sum(
        len(ours[f"{own}.{place}.first.0.bias"]) for own in levels for place in ("first", "second")
    )
    for own, level in levels.items():
        for number, place in enumerate(("first", "second")):
            rows = n_rows * len(ours[f"{own}.{place}.first.0.bias"])
            result[f"{level}.{number}.{_FILM}.weight"] = joined[row : row + rows].contiguous()
            result[f"{level}.{number}.{_FILM}.bias"] = bias[row : row + rows].contiguous()
            row += rows
    return result


def _levels(n: int) -> dict[str, str]:
    """Their level -> ours, in the order in which ours are modulated."""
    down = {f"down_modules.{i}": f"down.{i}" for i in range(n)}
    up = {f"up_modules.{i}": f"up.{i}" for i in range(n - 1)}
    return {**down, "mid_modules": "middle", **up}
