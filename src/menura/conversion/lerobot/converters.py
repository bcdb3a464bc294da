"""Which module converts which LeRobot policy. A converter is a module with these names:

    POLICY = "ACTPolicy"                                 # ours, as a task names it
    PROCESSOR_STEPS = ("tokenizer_processor",)           # LeRobot's steps that our policy does itself; may be left out
    def config_of(theirs: LeRobotConfig) -> dict         # arguments of our config
    def state_dict_of(weights: Weights, config) -> dict  # our name -> tensor, every tensor taken or dropped

`state_dim`, `action_dim`, `camera_names`, `image_size` and `image_normalize` are filled in where our config takes them
and `config_of` does not say them. Every option of `config.json` must be read (`get`, `expect`) or ignored by name
(`ignore`), every tensor taken or dropped with a reason: what is left over is an error.

For the way back, where there is one:

    def config_to(config) -> dict                        # LeRobot's options; CheckpointError for what it cannot hold
    def state_dict_to(state_dict, config) -> dict        # LeRobot's name -> tensor
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any, Protocol, cast

from torch import Tensor
from transformers import PretrainedConfig

from menura.conversion.lerobot.config import LeRobotConfig
from menura.conversion.weights import Weights
from menura.errors import CheckpointError, did_you_mean

# LeRobot's type -> the module beside this one.
CONVERTERS: Mapping[str, str] = {
    "act": "act",
    "diffusion": "diffusion",
    "vqbet": "vqbet",
    "smolvla": "smolvla",
    "pi0": "pi0",
    "pi05": "pi05",
    "pi0_fast": "pi0_fast",
}


class Converter(Protocol):
    """What a converter's module offers, as the top of this file says."""

    POLICY: str

    def config_of(self, theirs: LeRobotConfig) -> dict[str, Any]: ...
    def state_dict_of(self, weights: Weights, config: PretrainedConfig) -> dict[str, Tensor]: ...


class WayBack(Protocol):
    """What a converter's module offers for the way back."""

    def config_to(self, config: PretrainedConfig) -> dict[str, Any]: ...
    def state_dict_to(self, state_dict: Mapping[str, Tensor], config: PretrainedConfig) -> dict[str, Tensor]: ...


def converter(type_: str, where: str) -> Converter:
    """The converter of a LeRobot policy; CheckpointError names those there are."""
    if type_ not in CONVERTERS:
        raise CheckpointError(
            f"{where}: expected a policy of {', '.join(CONVERTERS)}, got {type_!r}"
            f"{did_you_mean(type_, CONVERTERS) or '.'}"
        )
    return cast(Converter, importlib.import_module(f"menura.conversion.lerobot.{CONVERTERS[type_]}"))


def processor_steps(of: Converter) -> tuple[str, ...]:
    """LeRobot's processor steps that the converted policy does itself."""
    return tuple(getattr(of, "PROCESSOR_STEPS", ()))
