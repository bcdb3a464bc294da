"""One recorded trajectory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from menura.errors import DataError

Float32 = NDArray[np.float32]
UInt8 = NDArray[np.uint8]


class Frames(Protocol):
    """T frames (H, W, 3) uint8, perhaps decoded only when asked: an array, or anything that acts like one."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    def __len__(self) -> int: ...

    def __getitem__(self, index: Any) -> UInt8: ...


@dataclass(frozen=True)
class Episode:
    """One trajectory of T steps.

    Attributes:
        state: (T, D) float32; None or D = 0 where there is none.
        action: (T, A) float32; `action[t]` is what was commanded on seeing `state[t]`.
        images: camera -> (T, H, W, 3) uint8 RGB: an array, a list of (H, W, 3) arrays, or a lazy sequence of frames.
        task: the instruction in words; empty where there is none.
        fps: steps per second, > 0.
        timestamps: (T,) seconds; `arange(T) / fps` when not given.
        success: whether the task was solved; None where unknown.
        seed: the environment seed it was recorded with; None where unknown.
        extra: further per-episode facts, JSON-able.
    """

    state: Float32
    action: Float32
    images: Mapping[str, Frames] = field(default_factory=dict)
    task: str = ""
    fps: float = 0.0
    timestamps: NDArray[np.float64] | None = None
    success: bool | None = None
    seed: int | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        action = _table("action", self.action, "(T, A) with T > 0")
        if len(action) == 0:
            raise DataError(f"Episode.action: expected shape (T, A) with T > 0, got {action.shape}.")
        steps = len(action)
        expected = f"({steps}, D) as action has"
        state = np.zeros((steps, 0), np.float32) if self.state is None else _table("state", self.state, expected)
        if len(state) != steps:
            raise DataError(f"Episode.state: expected shape {expected}, got {state.shape}.")
        if not self.fps > 0:
            raise DataError(f"Episode.fps: expected steps per second > 0, got {self.fps}.")
        timestamps = np.arange(steps) / self.fps if self.timestamps is None else np.asarray(self.timestamps, np.float64)
        if timestamps.shape != (steps,):
            raise DataError(f"Episode.timestamps: expected shape ({steps},) as action has, got {timestamps.shape}.")
        images = {camera: _frames(camera, frames, steps) for camera, frames in self.images.items()}
        object.__setattr__(self, "state", state)
        object.__setattr__(self, "action", action)
        object.__setattr__(self, "images", images)
        object.__setattr__(self, "timestamps", timestamps)

    def __len__(self) -> int:
        return len(self.action)


def _table(name: str, values: Any, expected: str) -> Float32:
    """`values` as a two-dimensional float32 array."""
    try:
        table = np.asarray(values, dtype=np.float32)
    except (TypeError, ValueError) as error:
        raise DataError(
            f"Episode.{name}: expected numbers of shape {expected}, got {type(values).__name__}."
        ) from error
    if table.ndim != 2:
        raise DataError(f"Episode.{name}: expected shape {expected}, got {table.shape}.")
    return table


def _frames(camera: str, frames: Any, steps: int) -> Frames:
    """`frames` with the shape and the type of `steps` RGB frames; a list of frames becomes one array."""
    what = f"Episode.images[{camera!r}]"
    if len(frames) != steps:
        raise DataError(f"{what}: expected {steps} frames as action has, got {len(frames)}.")
    if not hasattr(frames, "shape"):
        shapes = sorted({np.shape(frame) for frame in frames})
        if len(shapes) > 1:
            raise DataError(f"{what}: expected frames of one shape (H, W, 3), got {shapes}.")
        frames = np.asarray(frames)
    shape = tuple(frames.shape)
    if len(shape) != 4 or shape[3] != 3:
        raise DataError(f"{what}: expected shape (T, H, W, 3), got {shape}.")
    dtype = getattr(frames, "dtype", np.dtype(np.uint8))
    if dtype != np.uint8:
        raise DataError(
            f"{what}: expected uint8 in 0 … 255, got {dtype}. Multiply by 255 and round if it is in [0, 1]."
        )
    return cast(Frames, frames)
