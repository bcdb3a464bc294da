"""One recorded trajectory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

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
        state: (T, D) float32, D = 0 where there is none.
        action: (T, A) float32; `action[t]` is what was commanded on seeing `state[t]`.
        images: camera -> (T, H, W, 3) uint8 RGB, an array or a lazy sequence of frames.
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
        action = np.asarray(self.action, dtype=np.float32)
        if action.ndim != 2 or len(action) == 0:
            raise DataError(f"Episode.action: expected shape (T, A) with T > 0, got {action.shape}.")
        state = np.asarray(self.state, dtype=np.float32)
        if state.ndim != 2 or len(state) != len(action):
            raise DataError(f"Episode.state: expected shape ({len(action)}, D) as action has, got {state.shape}.")
        if not self.fps > 0:
            raise DataError(f"Episode.fps: expected steps per second > 0, got {self.fps}.")
        for camera, frames in self.images.items():
            if len(frames) != len(action):
                raise DataError(
                    f"Episode.images[{camera!r}]: expected {len(action)} frames as action has, got {len(frames)}."
                )
            if len(frames.shape) != 4 or frames.shape[3] != 3:
                raise DataError(f"Episode.images[{camera!r}]: expected shape (T, H, W, 3), got {tuple(frames.shape)}.")
        timestamps = self.timestamps
        if timestamps is None:
            timestamps = np.arange(len(action)) / self.fps
        elif len(timestamps) != len(action):
            raise DataError(f"Episode.timestamps: expected {len(action)} values, got {len(timestamps)}.")
        object.__setattr__(self, "state", state)
        object.__setattr__(self, "action", action)
        object.__setattr__(self, "timestamps", np.asarray(timestamps, dtype=np.float64))

    def __len__(self) -> int:
        return len(self.action)
