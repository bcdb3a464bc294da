"""A policy dressed as an expert, so that it can be recorded."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from menura.data.episode import Float32
from menura.envs.base import SimEnv
from menura.meta_policy import MetaPolicy


class PolicyActor:
    """Acts as a checkpoint or a policy server does, one episode at a time."""

    def __init__(self, model: str, project: Path | None = None, dataset: str | None = None) -> None:
        torch.set_num_threads(1)  # several such processes share the machine
        self._policy = MetaPolicy.from_pretrained(model, project=project, dataset=dataset)

    def reset(self, env: SimEnv) -> None:
        self._session = self._policy.session(batch_size=1, seeds=[env.episode_seed])

    def act(self, observation: Mapping[str, Any]) -> Float32:
        batch = {
            "state": observation["state"][None],
            "images": {camera: image[None] for camera, image in observation["images"].items()},
            "task": [observation["task"]],
        }
        action: Float32 = np.asarray(self._session.select_action(batch)[0], np.float32)
        return action
