"""What a robot is, and within which limits it is driven. Torch-free.

A robot is a class of kind `robot`: it says what it senses and takes (`features`) and what it must never be sent beyond
(`limits`) before it is connected, and then connects, is read, is sent actions, and disconnects.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypedDict

import numpy as np
from numpy.typing import NDArray

from menura.clock import Clock, WallClock
from menura.errors import MenuraError, did_you_mean
from menura.features import Features, VectorFeature

Float32 = NDArray[np.float32]
UInt8 = NDArray[np.uint8]

#: What a YAML may say of each dimension: one number for all, one for each, or by name.
PerDimension = float | Sequence[float] | Mapping[str, float]

_KEYS = ("low", "high", "velocity", "step", "workspace")


class RobotError(MenuraError):
    """A robot cannot be built, connected, read or driven, or says of itself what cannot be."""


class RobotObservation(TypedDict):
    """What a robot sensed, and when.

    `state` is (D,) float32 and `images` {camera: (H, W, 3) uint8 RGB}, as the robot's features say; `times` are seconds
    of the robot's clock: when the state (`times["state"]`) and each camera's picture (`times[camera]`) were captured.
    """

    state: Float32
    images: dict[str, UInt8]
    times: dict[str, float]


@dataclass(frozen=True)
class Limits:
    """What a robot must never be sent beyond, in the units of its actions.

    Attributes:
        low: (A,) float32, the smallest value of each dimension.
        high: (A,) float32, the largest.
        velocity: (A,) float32, by how much a command may change in a second; None: not limited.
        step: (A,) float32, by how much a command may differ from the one before; None: not limited.
        workspace: name of an action's dimension -> (lowest, highest) position it may lead to. Of absolute commands it
            bounds the command, of differences what the state of that name becomes.
    """

    low: Float32
    high: Float32
    velocity: Float32 | None = None
    step: Float32 | None = None
    workspace: Mapping[str, tuple[float, float]] | None = None

    def __post_init__(self) -> None:
        shape = self.low.shape
        if self.low.ndim != 1:
            raise RobotError(f"limits: expected low and high of shape (A,), got {shape}.")
        for name in ("high", "velocity", "step"):
            values = getattr(self, name)
            if values is not None and values.shape != shape:
                raise RobotError(f"limits.{name}: expected shape {shape}, as low has it, got {values.shape}.")
        if not np.isfinite(self.low).all() or not np.isfinite(self.high).all():
            raise RobotError("limits: expected finite numbers in low and high, got some that are not.")
        if not (self.low <= self.high).all():
            wrong = int(np.argmax(self.low > self.high))
            raise RobotError(
                f"limits: expected low at most high, got {self.low[wrong]:g} and {self.high[wrong]:g} "
                f"for dimension {wrong}."
            )
        for name in ("velocity", "step"):
            values = getattr(self, name)
            if values is not None and not (values > 0).all():
                raise RobotError(f"limits.{name}: expected numbers above 0, got {values.tolist()}.")
        for name, (lowest, highest) in (self.workspace or {}).items():
            if not lowest <= highest:
                raise RobotError(f"limits.workspace.{name}: expected [lowest, highest], got [{lowest}, {highest}].")

    @classmethod
    def of(cls, mapping: Mapping[str, Any], action: VectorFeature) -> Limits:
        """The limits that a YAML writes: `{low, high, velocity, step, workspace}`, of which `low` and `high` must be.

        Each is one number for all dimensions, a list of one for each, or a mapping of the action's names to numbers;
        `workspace` maps names to `[lowest, highest]`.

        Raises:
            RobotError: a key or a name is unknown, a number is missing, or the bounds contradict each other.
        """
        for key in mapping:
            if key not in _KEYS:
                raise RobotError(f"limits.{key}: no such key{did_you_mean(key, _KEYS) or '.'} Known: {list(_KEYS)}.")
        for key in ("low", "high"):
            if mapping.get(key) is None:
                raise RobotError(f"limits.{key}: expected a number for each dimension of the action, got none.")
        vectors = {key: _vector(key, mapping[key], action) for key in _KEYS[:-1] if mapping.get(key) is not None}
        return cls(**vectors, workspace=_workspace(mapping.get("workspace"), action))

    def within(self, action: Float32) -> bool:
        """Whether an action (A,) lies in [low, high] and is finite."""
        return bool(((action >= self.low) & (action <= self.high)).all())

    def clip(self, action: Float32) -> Float32:
        """(A,) the nearest action in [low, high]; one that is not finite has none."""
        if not np.isfinite(action).all():
            raise RobotError(f"action: expected finite numbers, got {action.tolist()}.")
        clipped: Float32 = np.clip(action, self.low, self.high)
        return clipped


class Robot:
    """What every robot is derived from.

    A subclass sets `name`, `features` and `limits` when it is built, which must not need the hardware, and implements
    `connect`, `disconnect`, `get_observation` and `send_action`. `connect` and `disconnect` may be called again: twice
    is as once, and after `disconnect` it can be connected again.

    Attributes:
        name: in one word, as messages and recordings call it.
        features: what its observations and actions mean; `fps` is the rate at which it is made to be commanded.
        limits: what it must never be sent beyond; without any it is not driven.
        clock: what the times of its observations are of. Whoever drives it sets it before `connect`.
        inference_delay_s: of stand-ins, on which delays are tried: how much longer a policy is made to take.
    """

    name: str
    features: Features
    limits: Limits | None = None
    clock: Clock = WallClock()
    inference_delay_s: float = 0.0

    def connect(self) -> None:
        """Reach the hardware; RobotError says what to do where it cannot be reached. Nothing moves."""
        raise NotImplementedError

    def disconnect(self) -> None:
        """Let go of the hardware, in a state that is safe."""
        raise NotImplementedError

    def get_observation(self) -> RobotObservation:
        """The newest of everything that was sensed, and when each was.

        Raises:
            RobotError: it is not connected, or not any more.
        """
        raise NotImplementedError

    def send_action(self, action: Float32) -> Float32:
        """Command an action (A,) float32; returns (A,) what was sent after the robot's own clipping.

        Raises:
            RobotError: it is not connected, or not any more.
        """
        raise NotImplementedError

    def stopped(self) -> str | None:
        """Why the robot stopped by itself (its emergency stop, a fault of a motor), in words; None: it has not."""
        return None

    def over(self) -> str | None:
        """Why the episode is over by itself (a recording ended, a simulator takes no more steps); None: it is not."""
        return None

    def reset(self, seed: int | None = None) -> None:
        """A new episode begins. A simulated robot begins that of `seed`; a real one is put in place by people."""

    def success(self) -> bool | None:
        """Whether the task is solved now; None where the robot cannot tell."""
        return None


def _vector(key: str, value: PerDimension, action: VectorFeature) -> Float32:
    """(A,) what a YAML says of each dimension."""
    if isinstance(value, Mapping):
        for name in value:
            if name not in action.names:
                hint = did_you_mean(str(name), action.names) or f". Known: {list(action.names)}."
                raise RobotError(f"limits.{key}.{name}: the action has no such dimension{hint}")
        missing = [name for name in action.names if name not in value]
        if missing:
            raise RobotError(f"limits.{key}: expected a number for every dimension, got none for {missing}.")
        numbers: Any = [value[name] for name in action.names]
    else:
        numbers = value
    try:
        vector = np.asarray(numbers, np.float32)
    except (TypeError, ValueError) as error:
        raise RobotError(f"limits.{key}: expected numbers, got {value!r}.") from error
    if vector.ndim == 0:
        vector = np.full(action.dim, vector, np.float32)
    if vector.shape != (action.dim,):
        raise RobotError(f"limits.{key}: expected {action.dim} numbers, one for each of the action, got {len(vector)}.")
    return vector


def _workspace(
    value: Mapping[str, Sequence[float]] | None, action: VectorFeature
) -> dict[str, tuple[float, float]] | None:
    if value is None:
        return None
    box: dict[str, tuple[float, float]] = {}
    for name, ends in value.items():
        if name not in action.names:
            hint = did_you_mean(name, action.names) or f". Known: {list(action.names)}."
            raise RobotError(f"limits.workspace.{name}: the action has no such dimension{hint}")
        if not isinstance(ends, Sequence) or len(ends) != 2:
            raise RobotError(f"limits.workspace.{name}: expected [lowest, highest], got {ends!r}.")
        box[name] = (float(ends[0]), float(ends[1]))
    return box
