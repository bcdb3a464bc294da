"""Reading a message: from what a client sent to one checked row of an observation, and what it asks for besides."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from menura.chunks import PreviousChunk
from menura.errors import did_you_mean
from menura.meta_policy import MetaPolicy
from menura.policies.contract import Contract
from menura.processing.rotations import neutral
from menura.serving.engine.arrays import numbers, told, vector
from menura.serving.engine.cameras import CameraReader, Picture
from menura.serving.engine.errors import RequestRefused
from menura.serving.engine.keys import KeyMap, Picked

#: What a message may hold beside an observation.
OPTIONAL_KEYS = (
    "reset",
    "seed",
    "observe",
    "deadline_ms",
    "prev_chunk",
    "delay",
    "timestep",
    "observation_is_pad",
)
#: Characters of an instruction: far more than any tokenizer keeps.
MAX_TASK_LENGTH = 4096
# An int64's, as torch's seeds are.
_LARGEST = 2**63 - 1
# A deadline beyond a day is none.
_LONGEST_MS = 86_400_000.0


@dataclass(frozen=True)
class Request:
    """A message that was understood.

    Attributes:
        observation: {"state": (D,), "task": text}, what of it there is; with a time axis before where `has_history`.
            None: the message resets and asks for nothing else.
        pictures: of each camera that is looked at.
        has_history: the client keeps the history itself.
        observation_is_pad: (O,) of such a history.
        timestep: the step of the episode.
        reset, seed: a new episode begins, with this seed.
        observe: for the history alone.
        deadline_s: from the message's arrival.
        previous: the chunk under way.
    """

    observation: Mapping[str, Any] | None
    pictures: Mapping[str, Picture] = field(default_factory=dict)
    has_history: bool = False
    observation_is_pad: NDArray[np.bool_] | None = None
    timestep: int | None = None
    reset: bool = False
    seed: int | None = None
    observe: bool = False
    deadline_s: float | None = None
    previous: PreviousChunk | None = None

    @property
    def is_ready(self) -> bool:
        """Whether no picture needs work before it can be looked at."""
        return all(picture.is_ready for picture in self.pictures.values())


class RequestReader:
    """Reads messages for one policy.

    Args:
        meta: says what an observation must hold.
        keys: how messages name it; fitted to the policy.
        max_image_pixels: of one picture.
    """

    def __init__(self, meta: MetaPolicy, keys: KeyMap, max_image_pixels: int) -> None:
        settings = meta.processor.settings.of_dataset(meta.dataset_id)
        self.features = meta.features
        self.keys = keys
        self._steps = meta.n_obs_steps
        self._chunk_size = meta.chunk_size or 1
        self._cameras = {
            camera: CameraReader(
                self.features.cameras[camera], self._steps, settings.resize, settings.image_size, max_image_pixels
            )
            for camera in meta.required_cameras
        }
        self._needs_task = "task" in settings.keys and self.features.language
        decodes = meta.processor.spaces_of(meta.dataset_id).needs_state
        self._needs_state = self.features.state_dim > 0 and ("state" in settings.keys or decodes)
        self._needs_timestep = "timestep" in Contract.of(type(meta.policy)).keys

    def read(self, message: Mapping[Any, Any]) -> Request:
        """What a message holds. Its pictures are looked at by `observation`.

        Raises:
            RequestRefused: it is not what the policy was trained on, or asks for something that is not.
        """
        if not isinstance(message, Mapping):
            raise RequestRefused(f"message: expected a map with an observation, got {told(message)}.")
        options = {key: message[key] for key in OPTIONAL_KEYS if key in message}
        picked = self.keys.observation(message, besides=OPTIONAL_KEYS)
        asked = self._options(options) if options else {}
        if asked.get("reset") and not picked:
            return Request(None, **asked)
        return self._with_observation(asked, picked)

    def observation(self, request: Request) -> dict[str, Any]:
        """A request's observation with its pixels: {"state", "images": {camera: ([O,] H, W, 3)}, "task"}.

        Takes milliseconds where the request is not ready, and may be asked in any thread.
        """
        images = {camera: self._cameras[camera].pixels(picture) for camera, picture in request.pictures.items()}
        return {**(request.observation or {}), "images": images}

    def _options(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """What is asked for besides, as of `Request`."""
        reset = _flag("reset", options.get("reset", False))
        seed = None
        if "seed" in options:
            if not reset:
                raise RequestRefused("seed: expected it with reset: true, got it alone.")
            seed = _whole("seed", options["seed"], _LARGEST)
        is_pad = options.get("observation_is_pad")
        return {
            "observation_is_pad": None if is_pad is None else _flags("observation_is_pad", is_pad, self._steps),
            "timestep": _whole("timestep", options["timestep"], _LARGEST) if "timestep" in options else None,
            "reset": reset,
            "seed": seed,
            "observe": _flag("observe", options.get("observe", False)),
            "deadline_s": _milliseconds("deadline_ms", options["deadline_ms"]) if "deadline_ms" in options else None,
            "previous": self._previous(options),
        }

    def _previous(self, options: Mapping[str, Any]) -> PreviousChunk | None:
        given = [key for key in ("prev_chunk", "delay") if key in options]
        if not given:
            return None
        if len(given) == 1:
            raise RequestRefused(f"{given[0]}: expected prev_chunk and delay together, got one of them.")
        most, width = self._chunk_size, self.features.action_dim

        def fits(shape: tuple[int, ...]) -> bool:
            return len(shape) == 2 and shape[0] <= most and shape[1] == width

        actions = numbers("prev_chunk", options["prev_chunk"], f"(at most {most}, {width})", fits)
        return PreviousChunk(actions, _whole("delay", options["delay"], len(actions)))

    def _with_observation(self, asked: Mapping[str, Any], picked: Picked) -> Request:
        observation: dict[str, Any] = {}
        axes: dict[str, bool] = {}  # key -> whether it has a time axis
        if picked.state:
            parts = [vector(key, value, width, self._steps) for key, width, value in picked.state]
            axes |= {key: part.ndim == 2 for (key, *_), part in zip(picked.state, parts, strict=True)}
        elif self._needs_state:
            key = self.keys.state[0].keys[0]
            raise RequestRefused(f"{key}: expected the state, {self.features.state_dim} numbers, got none.")
        pictures = {camera: self._picture(camera, picked.images) for camera in self._cameras}
        axes |= {picture.key: picture.has_axis for picture in pictures.values()}
        has_axis = self._one_time(axes)
        if picked.state:
            observation["state"] = parts[0] if len(parts) == 1 else np.concatenate(parts, axis=-1)
        if (task := self._task(picked)) is not None:
            observation["task"] = task
        if self._needs_timestep and asked.get("timestep") is None and not asked.get("observe"):
            raise RequestRefused("timestep: expected the step of the episode, which this policy looks at, got none.")
        has_pad = asked.get("observation_is_pad") is not None
        if has_pad and not has_axis and self._steps > 1:
            raise RequestRefused(
                f"observation_is_pad: expected observations with a time axis of {self._steps}, got one without."
            )
        return Request(observation, pictures, has_axis or has_pad, **asked)

    def _one_time(self, axes: Mapping[str, bool]) -> bool:
        """Whether there is a time axis, which all parts have or none."""
        having = [key for key, has_axis in axes.items() if has_axis]
        if having and len(having) < len(axes):
            lacking = next(key for key in axes if key not in having)
            raise RequestRefused(f"{lacking}: expected a time axis of {self._steps}, as {having[0]} has, got none.")
        return bool(having)

    def _task(self, picked: Picked) -> str | None:
        if picked.task is None:
            if self._needs_task:
                raise RequestRefused(
                    f"{self.keys.task[0]}: expected the instruction, in the words of the training data, got none."
                )
            return None
        key, task = picked.task
        if not isinstance(task, str):
            raise RequestRefused(f"{key}: expected a text, got {told(task)}.")
        if len(task) > MAX_TASK_LENGTH:
            raise RequestRefused(f"{key}: expected at most {MAX_TASK_LENGTH} characters, got {len(task)}.")
        return str(task)

    def _picture(self, camera: str, images: Mapping[str, tuple[str, Any]]) -> Picture:
        if camera not in images:
            got = [key for key, _ in images.values()]
            near = did_you_mean(camera, images) or "."
            raise RequestRefused(f"{self.keys.camera_keys[camera]}: expected this picture, got {got or 'none'}{near}")
        return self._cameras[camera].read(*images[camera])


def blank_observation(meta: MetaPolicy, rows: int = 1) -> dict[str, Any]:
    """A batch of black, neutral observations of the shapes the policy expects: what warms it up."""
    axes = (rows,) if meta.n_obs_steps == 1 else (rows, meta.n_obs_steps)
    features = meta.features
    state = np.zeros(0, np.float32) if features.state is None else neutral(features.state)
    return {
        "state": np.tile(state, (*axes, 1)),
        "images": {
            name: np.zeros((*axes, camera.height, camera.width, 3), np.uint8)
            for name, camera in features.cameras.items()
        },
        "task": [""] * rows,
        "timestep": np.zeros(rows, np.int64),
    }


def _flag(key: str, value: Any) -> bool:
    if not isinstance(value, (bool, np.bool_)):
        raise RequestRefused(f"{key}: expected true or false, got {told(value)}.")
    return bool(value)


def _flags(key: str, value: Any, count: int) -> NDArray[np.bool_]:
    """(count,) bool."""
    is_row = isinstance(value, (list, tuple)) or (isinstance(value, np.ndarray) and value.ndim == 1)
    if not is_row or len(value) != count or not all(isinstance(flag, (bool, np.bool_)) for flag in value):
        raise RequestRefused(f"{key}: expected bool ({count},), got {told(value)}.")
    return np.array(value, np.bool_)


def _whole(key: str, value: Any, most: int) -> int:
    """A whole number from 0, which may also come as an array of one."""
    if isinstance(value, np.ndarray) and value.size == 1:
        value = value.reshape(())[()]
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, np.integer)) or not 0 <= value <= most:
        raise RequestRefused(f"{key}: expected a whole number from 0 to {most}, got {told(value)}.")
    return int(value)


def _milliseconds(key: str, value: Any) -> float:
    """Seconds, above 0."""
    number = isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)
    if not number or not 0 < value <= _LONGEST_MS:  # NaN is neither
        raise RequestRefused(f"{key}: expected milliseconds above 0, a day at most, got {told(value)}.")
    return float(value) / 1e3
