"""LeRobot's pi0 (0.6.1, `policies/pi0`) and `PI0Policy`: the same, but for weights that nothing reads."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from transformers import PretrainedConfig

from menura.conversion.lerobot.config import LeRobotConfig
from menura.conversion.lerobot.paligemma import options_of, weights_of
from menura.conversion.weights import Weights

POLICY = "PI0Policy"
PROCESSOR_STEPS = ("pi0_new_line_processor", "tokenizer_processor")


def config_of(theirs: LeRobotConfig) -> dict[str, Any]:
    """Arguments of `PI0PolicyConfig`."""
    return {**options_of(theirs), "max_state_dim": theirs.get("max_state_dim")}


def state_dict_of(weights: Weights, config: PretrainedConfig) -> dict[str, Tensor]:
    """Our weights from LeRobot's."""
    settings: Any = config
    return weights_of(weights, settings.language_model["num_hidden_layers"])
