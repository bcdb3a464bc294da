"""What a server says of itself before anything is asked: enough to ask it rightly."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from menura.meta_policy import MetaPolicy
from menura.serving.engine.keys import KeyMap
from menura.serving.engine.request import MAX_TASK_LENGTH, OPTIONAL_KEYS

PROTOCOL_VERSION = 1


def describe(meta: MetaPolicy, keys: KeyMap, limits: Mapping[str, int | float]) -> dict[str, Any]:
    """The metadata frame but for the session, in plain lists, numbers and text."""
    return {
        "protocol_version": PROTOCOL_VERSION,
        "features": meta.features.to_dict(),
        "chunk_size": meta.chunk_size,
        "n_action_steps": meta.n_action_steps,
        "n_obs_steps": meta.n_obs_steps,
        "observation_offsets": list(meta.observation_offsets),
        "required_cameras": list(meta.required_cameras),
        "checkpoint_hash": meta.checkpoint_hash,
        "observation": observation(meta, keys),
        "accepts": list(OPTIONAL_KEYS),
        "limits": {"max_task_length": MAX_TASK_LENGTH, **limits},
    }


def observation(meta: MetaPolicy, keys: KeyMap) -> dict[str, dict[str, Any]]:
    """Each key that a message holds -> shape, dtype, and of pictures the order of colours.

    Colours may come first, too; a picture of another size is resized as in training (`resize`: stretched, where it has
    the same aspect, or padded); instead of pixels the bytes of a JPEG or PNG. Where `n_obs_steps` > 1 all may have a
    time axis before.
    """
    parts: dict[str, dict[str, Any]] = {
        part.keys[0]: {"shape": [part.width], "dtype": "float32"} for part in keys.state
    }
    for camera in meta.required_cameras:
        feature = meta.features.cameras[camera]
        parts[keys.camera_keys[camera]] = {
            "shape": [feature.height, feature.width, 3],
            "dtype": "uint8",
            "colours": "RGB",
            "resize": meta.processor.settings.resize,
            "encodings": ["jpeg", "png"],
        }
    if meta.features.language:
        parts[keys.task[0]] = {"shape": [], "dtype": "str"}
    return parts
