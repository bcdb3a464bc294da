"""LeRobot's pi05 (0.6.1, `policies/pi05`) and `PI05Policy`: the same, but for weights that nothing reads."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from transformers import PretrainedConfig

from menura.conversion.lerobot.config import LeRobotConfig
from menura.conversion.lerobot.paligemma import options_of, weights_of
from menura.conversion.weights import Weights

POLICY = "PI05Policy"
PROCESSOR_STEPS = ("pi05_prepare_state_tokenizer_processor_step", "tokenizer_processor")


def config_of(theirs: LeRobotConfig) -> dict[str, Any]:
    """Arguments of `PI05PolicyConfig`."""
    theirs.ignore("max_state_dim")  # the state is text
    return options_of(theirs)


def state_dict_of(weights: Weights, config: PretrainedConfig) -> dict[str, Tensor]:
    """Our weights from LeRobot's."""
    settings: Any = config
    return weights_of(weights, settings.language_model["num_hidden_layers"])
