"""The scripted policies that Meta-World ships, one for each of its 50 tasks."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np

from menura.data.episode import Float32
from menura.envs.metaworld import MetaWorldEnv
from menura.errors import ContractError


class MetaWorldExpert:
    """The package's policy for the environment's task.

    It reads the whole 39-number observation from the environment, whatever the recorded state tells. Its actions leave
    [-1, 1] in 12 to 100 % of the steps, and the simulator clips them; they are clipped here, so that what is recorded
    is what was done.
    """

    def reset(self, env: Any) -> None:
        sim = env.unwrapped
        if not isinstance(sim, MetaWorldEnv):
            raise ContractError(f"MetaWorldExpert: expected a MetaWorldEnv, got {type(sim).__name__}.")
        policies = importlib.import_module("metaworld.policies")
        self._policy = policies.ENV_POLICY_MAP[f"{sim.task_name}-v3"]()
        self._env = sim

    def act(self, observation: Mapping[str, Any]) -> Float32:
        """(4,) the action in [-1, 1]."""
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Constant.s. may be too high")  # it says that it will be clipped
            action: Float32 = np.asarray(self._policy.get_action(self._env.full_state), np.float32)
        return action.clip(-1.0, 1.0)
