"""Reading a message: from what a client sent to one checked row of an observation, and what it asks for besides."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from menura.chunks import PreviousChunk
from menura.errors import did_you_mean
from menura.features import CameraFeature
from menura.meta_policy import MetaPolicy
from menura.processing.rotations import neutral
from menura.serving.arrays import numbers, told, vector
from menura.serving.errors import RequestRefused
from menura.serving.keys import KeyMap, Picked
from menura.serving.pictures import picture_size, read_picture

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
_CHANNELS = 3
# A seed is an int64 in torch.
_SEEDS = 2**63
# A deadline beyond a day is none.
_LONGEST_MS = 86_400_000.0
# By how many pixels the sides of a scaled picture may miss its exact aspect.
_ROUNDING = 1.0


@dataclass(frozen=True)
class Request:
    """A message that was understood.

    Attributes:
        observation: {"state": (D,), "images": {camera: (H, W, 3)}, "task": text}, what of it there is; with a time axis
            before where `has_history`. None: the message resets and asks for nothing else.
        has_history: the client keeps the history itself.
        observation_is_pad: (O,) of such a history.
        timestep: the step of the episode.
        reset, seed: a new episode begins, with this seed.
        observe: for the history alone.
        deadline_s: from the message's arrival.
        previous: the chunk under way.
        encoded: camera -> (key, its JPEGs or PNGs), still to be decoded.
    """

    observation: Mapping[str, Any] | None
    has_history: bool = False
    observation_is_pad: NDArray[np.bool_] | None = None
    timestep: int | None = None
    reset: bool = False
    seed: int | None = None
    observe: bool = False
    deadline_s: float | None = None
    previous: PreviousChunk | None = None
    encoded: Mapping[str, tuple[str, Sequence[bytes]]] | None = None


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
        self.max_image_pixels = max_image_pixels
        self._steps = meta.n_obs_steps
        self._cameras = meta.required_cameras
        self._resize = settings.resize
        self._image_size = settings.image_size
        self._reads_task = "task" in settings.keys
        decodes = meta.processor.spaces_of(meta.dataset_id).needs_state
        self._needs_state = self.features.state_dim > 0 and ("state" in settings.keys or decodes)

    def read(self, message: Mapping[Any, Any]) -> Request:
        """What a message holds. Pictures that are encoded stay so: see `decoded`.

        Raises:
            RequestRefused: it is not what the policy was trained on, or asks for something that is not.
        """
        if not isinstance(message, Mapping):
            raise RequestRefused(f"message: expected a map with an observation, got {told(message)}.")
        options = {key: message[key] for key in OPTIONAL_KEYS if key in message}
        picked = self.keys.observation({key: value for key, value in message.items() if key not in options})
        request = self._options(options)
        if request.reset and not picked:
            return replace(request, observation=None)
        return self._with_observation(request, picked)

    def decoded(self, request: Request) -> Request:
        """The request with its pictures decoded, which takes milliseconds and may be done in any thread."""
        images = dict((request.observation or {}).get("images", {}))
        for camera, (key, encoded) in (request.encoded or {}).items():
            frames = [read_picture(key, frame, self.max_image_pixels) for frame in encoded]
            images[camera] = np.stack(frames) if request.has_history and self._steps > 1 else frames[0]
        return replace(request, observation={**(request.observation or {}), "images": images}, encoded=None)

    def _options(self, options: Mapping[str, Any]) -> Request:
        reset = _flag("reset", options.get("reset", False))
        seed = None
        if "seed" in options:
            if not reset:
                raise RequestRefused("seed: expected it with reset: true, got it alone.")
            seed = _whole("seed", options["seed"], _SEEDS - 1)
        is_pad = options.get("observation_is_pad")
        return Request(
            observation=None,
            observation_is_pad=None if is_pad is None else _flags("observation_is_pad", is_pad, self._steps),
            timestep=_whole("timestep", options["timestep"], _SEEDS - 1) if "timestep" in options else None,
            reset=reset,
            seed=seed,
            observe=_flag("observe", options.get("observe", False)),
            deadline_s=_milliseconds("deadline_ms", options["deadline_ms"]) if "deadline_ms" in options else None,
            previous=self._previous(options),
        )

    def _previous(self, options: Mapping[str, Any]) -> PreviousChunk | None:
        given = [key for key in ("prev_chunk", "delay") if key in options]
        if not given:
            return None
        if len(given) == 1:
            raise RequestRefused(f"{given[0]}: expected prev_chunk and delay together, got one of them.")
        width = self.features.action_dim
        actions = numbers("prev_chunk", options["prev_chunk"], f"(T, {width})")
        if actions.ndim != 2 or actions.shape[1] != width:
            raise RequestRefused(f"prev_chunk: expected float32 (T, {width}), got shape {actions.shape}.")
        return PreviousChunk(actions, _whole("delay", options["delay"], len(actions)))

    def _with_observation(self, request: Request, picked: Picked) -> Request:
        observation: dict[str, Any] = {}
        axes: dict[str, bool] = {}  # key -> whether it has a time axis
        if picked.state:
            parts = [vector(key, value, width, self._steps) for key, width, value in picked.state]
            axes |= {key: part.ndim == 2 for (key, *_), part in zip(picked.state, parts, strict=True)}
            observation["state"] = parts
        elif self._needs_state:
            key = self.keys.state[0].keys[0]
            raise RequestRefused(f"{key}: expected the state, {self.features.state_dim} numbers, got none.")
        images: dict[str, NDArray[Any]] = {}
        encoded: dict[str, tuple[str, Sequence[bytes]]] = {}
        for camera in self._cameras:
            key, value = self._camera(camera, picked.images)
            if isinstance(value, (bytes, list, tuple)):
                encoded[camera] = (key, self._encoded(key, value, camera))
                axes[key] = not isinstance(value, bytes)
            else:
                images[camera], axes[key] = self._pixels(key, value, camera)
        has_axis = self._one_time(axes)
        if "state" in observation:
            observation["state"] = np.concatenate(observation["state"], axis=-1)
        observation["images"] = images
        if (task := self._task(picked)) is not None:
            observation["task"] = task
        if request.observation_is_pad is not None and not has_axis and self._steps > 1:
            raise RequestRefused(
                f"observation_is_pad: expected observations with a time axis of {self._steps}, got one without."
            )
        return replace(
            request,
            observation=observation,
            encoded=encoded or None,
            has_history=has_axis or request.observation_is_pad is not None,
        )

    def _one_time(self, axes: Mapping[str, bool]) -> bool:
        """Whether there is a time axis, which all parts have or none."""
        having = [key for key, has_axis in axes.items() if has_axis]
        if having and len(having) < len(axes):
            lacking = next(key for key in axes if key not in having)
            raise RequestRefused(f"{lacking}: expected a time axis of {self._steps}, as {having[0]} has, got none.")
        return bool(having)

    def _task(self, picked: Picked) -> str | None:
        if picked.task is None:
            if self._reads_task and self.features.language:
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

    def _camera(self, camera: str, images: Mapping[str, tuple[str, Any]]) -> tuple[str, Any]:
        if camera not in images:
            got = [key for key, _ in images.values()]
            near = did_you_mean(camera, images) or "."
            raise RequestRefused(f"{self.keys.camera_keys[camera]}: expected this picture, got {got or 'none'}{near}")
        return images[camera]

    def _encoded(self, key: str, value: bytes | Sequence[Any], camera: str) -> Sequence[bytes]:
        frames = [value] if isinstance(value, bytes) else list(value)
        if not isinstance(value, bytes) and (self._steps == 1 or len(frames) != self._steps):
            wanted = "one picture" if self._steps == 1 else f"one picture, or {self._steps} with a time axis"
            raise RequestRefused(f"{key}: expected {wanted}, got a list of {len(frames)}.")
        for frame in frames:
            if not isinstance(frame, bytes):
                raise RequestRefused(f"{key}: expected the bytes of a JPEG or PNG, got {told(frame)}.")
        sizes = [picture_size(key, frame, self.max_image_pixels) for frame in frames]
        if len(set(sizes)) > 1:
            raise RequestRefused(f"{key}: expected pictures of one size, got {sizes}.")
        self._refuse_distorted(key, sizes[0], camera)
        return frames

    def _pixels(self, key: str, value: Any, camera: str) -> tuple[NDArray[Any], bool]:
        """([O,] H, W, 3) uint8, or float in [0, 1]; and whether there is a time axis."""
        feature = self.features.cameras[camera]
        expected = f"{key}: expected uint8 ({feature.height}, {feature.width}, 3), or the bytes of a JPEG or PNG"
        if not isinstance(value, np.ndarray):
            raise RequestRefused(f"{expected}, got {told(value)}.")
        has_axis = value.ndim == 4 and self._steps > 1
        if value.ndim != 3 and not (has_axis and value.shape[0] == self._steps):
            raise RequestRefused(f"{expected}, got {told(value)}.")
        if value.dtype != np.uint8 and value.dtype.kind != "f":
            raise RequestRefused(f"{expected}, got {told(value)}.")
        pixels = _colours_last(key, value, feature)
        height, width = pixels.shape[-3:-1]
        if not 0 < height * width <= self.max_image_pixels:
            raise RequestRefused(f"{key}: expected 1 to {self.max_image_pixels} pixels, got {height} x {width}.")
        self._refuse_distorted(key, (height, width), camera)
        if pixels.dtype != np.uint8 and not (pixels.min() >= 0 and pixels.max() <= 1):  # NaN fails both
            raise RequestRefused(f"{key}: expected floats in [0, 1], got others. Send pixels 0 … 255 as uint8.")
        return pixels, has_axis

    def _refuse_distorted(self, key: str, size: tuple[int, int], camera: str) -> None:
        """Stretching a picture of another aspect would distort it as none was in training."""
        feature = self.features.cameras[camera]
        height, width = size
        if self._resize == "pad" or size == self._image_size:
            return
        scale = max(height / feature.height, width / feature.width)
        if max(abs(height - scale * feature.height), abs(width - scale * feature.width)) > _ROUNDING:
            raise RequestRefused(
                f"{key}: expected a picture of {feature.height} x {feature.width} pixels or of that aspect, "
                f"got {height} x {width}."
            )


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


def _colours_last(key: str, pixels: NDArray[Any], feature: CameraFeature) -> NDArray[Any]:
    """([O,] H, W, 3) of a picture that has its colours last or first; where both may be, the camera's size decides."""
    first, last = pixels.shape[-3] == _CHANNELS, pixels.shape[-1] == _CHANNELS
    if first and last:
        size = (feature.height, feature.width)
        first, last = pixels.shape[-2:] == size, pixels.shape[-3:-1] == size
    if first == last:
        raise RequestRefused(
            f"{key}: expected ({feature.height}, {feature.width}, 3) or (3, {feature.height}, {feature.width}), "
            f"got shape {pixels.shape}."
        )
    return np.moveaxis(pixels, -3, -1) if first else pixels


def _flag(key: str, value: Any) -> bool:
    if not isinstance(value, (bool, np.bool_)):
        raise RequestRefused(f"{key}: expected true or false, got {told(value)}.")
    return bool(value)


def _flags(key: str, value: Any, count: int) -> NDArray[np.bool_]:
    """(count,) bool."""
    flags = list(value) if isinstance(value, (list, tuple)) or (isinstance(value, np.ndarray) and value.ndim) else []
    if len(flags) != count or not all(isinstance(flag, (bool, np.bool_)) for flag in flags):
        raise RequestRefused(f"{key}: expected bool ({count},), got {told(value)}.")
    return np.array(flags, np.bool_)


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
