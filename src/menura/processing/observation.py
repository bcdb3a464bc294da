"""Checking a raw observation and bringing it into the form in which training data arrives."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from menura.errors import FeatureMismatch, did_you_mean
from menura.processing.images import GREY_LEVELS, PARTS, resize_images
from menura.processing.settings import ProcessorSettings

# How far from a whole grey level a float pixel may be that was an 8-bit one: float16 is off by 0.06 at most.
_WHOLE = 0.07
RAW_KEYS = ("state", "images", "task")


def prepare_observation(observation: Mapping[str, Any], settings: ProcessorSettings) -> dict[str, Any]:
    """Raw {"state", "images", "task"}, numpy and batch first -> what the data loader gives: uint8 image, state, task.

    FeatureMismatch says which part is missing, of the wrong shape or type, or not finite.
    """
    for key in observation:
        if key not in RAW_KEYS:
            near = did_you_mean(str(key), RAW_KEYS) or "."
            raise FeatureMismatch(f"observation: expected keys {list(RAW_KEYS)}, got {key!r}{near}")
    batch: dict[str, Any] = {}
    if "state" in settings.keys and settings.features.state_dim:
        batch["state"] = torch.from_numpy(read_state(observation, settings))
    if settings.camera_names and not settings.blind:
        batch["image"] = torch.from_numpy(_images(observation, settings))
    if "task" in settings.keys:
        task = _task(observation, settings)
        if task is not None:
            batch["task"] = task
    sizes = {key: len(value) for key, value in batch.items()}
    if len(set(sizes.values())) > 1:
        raise FeatureMismatch(f"observation: expected the same number of rows everywhere, got {sizes}.")
    if settings.camera_names and settings.blind:  # nothing needs to be drawn for a policy that will not see it
        shape = (len(settings.camera_names), *(settings.image_size or (1, 1)), 3)
        batch["image"] = torch.zeros((batch_rows(observation), *_steps(settings), *shape), dtype=torch.uint8)
    return batch


def batch_rows(observation: Mapping[str, Any]) -> int:
    """B, the number of rows of a raw observation."""
    if "state" in observation:
        return len(observation["state"])
    for images in observation.get("images", {}).values():
        return len(images)
    task = observation.get("task")
    if task is None:
        raise FeatureMismatch(f"observation: expected some of {list(RAW_KEYS)}, got nothing.")
    return 1 if isinstance(task, str) else len(task)


def _steps(settings: ProcessorSettings) -> tuple[int, ...]:
    """The time axis after B: (O,) when the policy is given several observations, else nothing."""
    return (settings.observation_steps,) if settings.observation_steps > 1 else ()


def read_state(observation: Mapping[str, Any], settings: ProcessorSettings) -> NDArray[np.float32]:
    """(B, [O,] D) float32: the raw observation's state, checked."""
    tail = (*_steps(settings), settings.features.state_dim)
    if "state" not in observation:
        raise FeatureMismatch(f"observation: expected 'state' {_shape(tail)}, got {list(observation)}.")
    state = np.asarray(observation["state"])
    if state.dtype.kind not in "fiu":
        raise FeatureMismatch(f"observation.state: expected float32, got {state.dtype}.")
    if state.shape[1:] != tail or state.ndim != len(tail) + 1:
        raise FeatureMismatch(
            f"observation.state: expected shape {_shape(tail)}, got {state.shape}."
            + (" Add the batch axis: state[None]." if state.shape == tail else "")
        )
    finite = np.isfinite(state)
    if not finite.all():
        *where, dimension = (int(value) for value in np.argwhere(~finite)[0])
        feature = settings.features.state
        name = feature.names[dimension] if feature is not None else str(dimension)
        raise FeatureMismatch(f"observation.state: expected finite numbers, got {name!r} not finite in row {where[0]}.")
    return np.ascontiguousarray(state, dtype=np.float32)


def _images(observation: Mapping[str, Any], settings: ProcessorSettings) -> NDArray[Any]:
    """(B, [O,] K, h, w, 3) uint8; or int32 in parts of a grey level, where float pixels lie between them."""
    images = observation.get("images")
    if not isinstance(images, Mapping):
        got = "nothing" if images is None else type(images).__name__
        raise FeatureMismatch(f"observation.images: expected cameras {list(settings.camera_names)}, got {got}.")
    size = settings.image_size
    assert size is not None, "a processor with cameras has an image size"
    views = []
    for camera in settings.camera_names:
        if camera not in images:
            raise FeatureMismatch(
                f"observation.images: expected camera {camera!r}, got {list(images)}"
                f"{did_you_mean(camera, images) or '.'}"
            )
        raw = _grey_levels(np.asarray(images[camera]), camera, settings)
        if raw.dtype != np.uint8 and raw.shape[-3:-1] != size:  # whatever is resized is resized as in training
            raw = np.rint(raw / PARTS).astype(np.uint8)
        views.append(resize_images(raw, size, settings.resize) if raw.dtype == np.uint8 else raw)
    rows = {len(view) for view in views}
    if len(rows) > 1:
        raise FeatureMismatch(f"observation.images: expected the same number of rows everywhere, got {sorted(rows)}.")
    if len({view.dtype for view in views}) > 1:
        views = [view.astype(np.int32) * PARTS if view.dtype == np.uint8 else view for view in views]
    return np.stack(views, axis=-4)


def _grey_levels(images: NDArray[Any], camera: str, settings: ProcessorSettings) -> NDArray[Any]:
    """The images of one camera as uint8, or as int32 in parts of a grey level where that would round them."""
    where = f"observation.images[{camera!r}]"
    steps = _steps(settings)
    if images.ndim != len(steps) + 4 or images.shape[1 : 1 + len(steps)] != steps or images.shape[-1] != 3:
        hint = " Add the batch axis: image[None]." if images.ndim == len(steps) + 3 else ""
        if images.ndim == len(steps) + 4 and images.shape[-3] == 3:
            hint = " Put the colours last."
        raise FeatureMismatch(f"{where}: expected shape {_shape((*steps, 'H', 'W', 3))}, got {images.shape}.{hint}")
    if images.dtype == np.uint8:
        return images
    if images.dtype.kind != "f":
        raise FeatureMismatch(f"{where}: expected uint8, or float32 in [0, 1], got {images.dtype}.")
    if not (images.min() >= 0 and images.max() <= 1):  # NaN fails both
        raise FeatureMismatch(
            f"{where}: expected float32 in [0, 1], got values in [{images.min():g}, {images.max():g}]. "
            "Give pixels 0 … 255 as uint8."
        )
    levels = np.asarray(images, np.float64) * GREY_LEVELS
    whole = np.rint(levels)
    if np.allclose(levels, whole, rtol=0, atol=_WHOLE):
        return whole.astype(np.uint8)
    return np.rint(levels * PARTS).astype(np.int32)


def _task(observation: Mapping[str, Any], settings: ProcessorSettings) -> list[str] | None:
    task = observation.get("task")
    if task is None:
        if settings.features.language:
            raise FeatureMismatch(
                f"observation: expected 'task', the instruction of each row, got {list(observation)}. "
                'Add "task": ["…"], in the words of the training data.'
            )
        return None
    texts = [task] * batch_rows(observation) if isinstance(task, str) else list(task)
    if not all(isinstance(text, str) for text in texts):
        raise FeatureMismatch(f"observation.task: expected a text for each row, got {task!r}.")
    return texts


def _shape(tail: tuple[int | str, ...]) -> str:
    return f"({', '.join(str(size) for size in ('B', *tail))})"
