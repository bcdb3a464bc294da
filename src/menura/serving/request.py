"""Reading a message: from what a client sent to one checked row of an observation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from menura.meta_policy import MetaPolicy
from menura.processing.rotations import neutral
from menura.serving import codec


def batched(observation: Any) -> dict[str, Any]:
    """One observation as a client sends it -> a batch of one.

    Read are `state`, `images`, `task` (openpi says `prompt`), `timestep` and `observation_is_pad`. Arrays are copied:
    those of a frame are read-only views of its bytes.
    """
    if not isinstance(observation, Mapping):
        raise codec.CodecError(
            f"observation: expected a map with state, images, task, got {type(observation).__name__}."
        )
    batch: dict[str, Any] = {}
    for key in ("state", "timestep", "observation_is_pad"):
        if key in observation:
            batch[key] = np.array(observation[key])[None]
    images = observation.get("images", {})
    if not isinstance(images, Mapping):
        raise codec.CodecError(f"observation.images: expected a map by camera, got {type(images).__name__}.")
    batch["images"] = {camera: np.array(image)[None] for camera, image in images.items()}
    task = observation.get("task", observation.get("prompt"))
    if task is not None:
        batch["task"] = [str(task)]
    return batch


def blank_observation(meta: MetaPolicy) -> dict[str, Any]:
    """A batch of one black, neutral observation of the shapes the policy expects: what warms it up."""
    time = (1,) if meta.n_obs_steps == 1 else (1, meta.n_obs_steps)
    features = meta.features
    state = np.zeros(0, np.float32) if features.state is None else neutral(features.state)
    return {
        "state": np.tile(state, (*time, 1)),
        "images": {
            name: np.zeros((*time, camera.height, camera.width, 3), np.uint8)
            for name, camera in features.cameras.items()
        },
        "task": [""],
        "timestep": np.zeros(1, np.int64),
    }
