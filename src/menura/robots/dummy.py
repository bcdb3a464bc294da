"""DummyRobot: shapes and names from a YAML, a state that follows the commands, and no simulator."""

from __future__ import annotations

import math
import threading
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np

from menura.clock import Clock
from menura.errors import did_you_mean
from menura.features import CameraFeature, Features, VectorFeature
from menura.robots.base import Float32, Limits, Robot, RobotError, RobotObservation, UInt8
from menura.robots.sensing import STATE, TOLERANCE_S, Faults, Sensing
from menura.robots.stand_in import Commands, Connection, checked_action


class DummyRobot(Robot):
    """A robot that is none: its state follows the commands with a first-order lag, and its cameras see time pass.

    A state's dimension follows the action's dimension of its name, others stay where they are. Differences are added
    to where the robot was told to be. Time passes when it is asked, by any clock.

    Args:
        action: the names of the action's dimensions, or a VectorFeature as a mapping (`names`, `units`, `grippers`).
        state: likewise; by default as the action.
        cameras: name -> [height, width].
        limits: as `Limits.of` reads them.
        control_type: `abs` or `delta`.
        start: the state at the beginning, name -> value; by default 0, clipped to the limits.
        fps: how often it senses.
        lag_s: after this time the state has come 63 % nearer to the command.
        faults: what is injected, as `Faults.of` reads it.
    """

    def __init__(
        self,
        action: Sequence[str] | Mapping[str, Any],
        limits: Mapping[str, Any] | None = None,
        state: Sequence[str] | Mapping[str, Any] | None = None,
        cameras: Mapping[str, Sequence[int]] | None = None,
        control_type: Literal["abs", "delta"] = "abs",
        control_space: Literal["joint", "ee"] | None = None,
        start: Mapping[str, float] | None = None,
        fps: float = 30.0,
        lag_s: float = 0.05,
        name: str = "dummy",
        faults: Mapping[str, Any] | None = None,
        clock: Clock | None = None,
    ) -> None:
        if fps <= 0 or lag_s < 0:
            raise RobotError(f"{name}: expected fps above 0 and lag_s of at least 0, got {fps} and {lag_s}.")
        self.name = name
        self.features = Features.from_dict(
            {
                "state": _vector(action if state is None else state),
                "action": _vector(action),
                "cameras": {camera: {"height": h, "width": w} for camera, (h, w) in (cameras or {}).items()},
                "fps": fps,
                "control_type": control_type,
                "control_space": control_space,
                "robot": name,
            }
        )
        self.limits = None if limits is None else Limits.of(limits, self.features.action)
        if clock is not None:
            self.clock = clock
        assert self.features.state is not None
        names = self.features.state.names
        self._followed = [names.index(each) for each in self.features.action.names if each in names]
        self._following = [index for index, each in enumerate(self.features.action.names) if each in names]
        self._start = self._start_of(self.features.state, start or {})
        self._lag_s = lag_s
        injected = Faults.of(faults or {})
        self.inference_delay_s = injected.inference_delay_s
        self._sensing = Sensing((STATE, *self.features.cameras), injected)
        self._connection = Connection(name, injected)
        self._commands = Commands(self.features, injected.action_delay_s)
        self._lock = threading.Lock()
        self._state = self._target = self._start

    def connect(self) -> None:
        """Begins at the start the first time, and later where it was left, at rest."""
        if self._connection.is_open:
            return
        self._connection.open(self.clock.now())
        self._begin(self._state, None)

    def disconnect(self) -> None:
        self._connection.close()

    def reset(self, seed: int | None = None) -> None:
        """Back to the start."""
        self._connection.check(self.clock.now())
        self._begin(self._start, seed)

    def get_observation(self) -> RobotObservation:
        self._connection.check(now_s := self.clock.now())
        with self._lock:
            self._pass_time(now_s)
            return self._sensing.newest(now_s)

    def send_action(self, action: Float32) -> Float32:
        self._connection.check(now_s := self.clock.now())
        action = checked_action(action, self.features.action, self.name)
        sent = action if self.limits is None else self.limits.clip(action)
        with self._lock:
            self._pass_time(now_s)
            self._commands.send(sent, now_s)
        return sent

    def stopped(self) -> str | None:
        return self._connection.stopped(self.clock.now())

    def _begin(self, state: Float32, seed: int | None) -> None:
        """At rest in a state, from now on."""
        with self._lock:
            self._state, self._target = state, state.copy()
            self._commands.clear()
            self._begun_s, self._number = self.clock.now(), 0
            self._sensing.begin(self._begun_s, self._sensed(), seed=seed)

    def _pass_time(self, now_s: float) -> None:
        """From one capture to the next, each after the commands that came before it."""
        period_s = 1.0 / self.features.fps
        nearer = 1.0 if self._lag_s == 0 else 1.0 - math.exp(-period_s / self._lag_s)
        while (next_s := self._begun_s + (self._number + 1) * period_s) <= now_s + TOLERANCE_S:
            command = self._commands.take(next_s - period_s)
            if command is not None:
                self._aim(command)
            self._state = self._state + np.float32(nearer) * (self._target - self._state)
            self._number += 1
            self._sensing.capture(next_s, self._sensed())

    def _aim(self, command: Float32) -> None:
        commanded = command[self._following]
        if self.features.control_type == "delta":
            grippers = [name in self.features.action.grippers for name in self.features.action.names]
            absolute = np.array(grippers)[self._following]
            commanded = np.where(absolute, commanded, self._target[self._followed] + commanded)
        self._target[self._followed] = commanded

    def _sensed(self) -> dict[str, Any]:
        cameras = self.features.cameras.items()
        return {STATE: self._state.copy(), **{name: _picture(camera, self._number) for name, camera in cameras}}

    def _start_of(self, state: VectorFeature, start: Mapping[str, float]) -> Float32:
        for name in start:
            if name not in state.names:
                raise RobotError(
                    f"start.{name}: the state has no such dimension{did_you_mean(name, state.names) or '.'}"
                )
        values = np.array([start.get(name, 0.0) for name in state.names], np.float32)
        if self.limits is not None and self.features.control_type == "abs":
            low, high = self.limits.low[self._following], self.limits.high[self._following]
            values[self._followed] = np.clip(values[self._followed], low, high)
        return values


def _vector(value: Sequence[str] | Mapping[str, Any]) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {"names": value}


def _picture(camera: CameraFeature, number: int) -> UInt8:
    """(H, W, 3) a bright column that goes one pixel to the right with each picture."""
    picture = np.zeros((camera.height, camera.width, 3), np.uint8)
    picture[:, number % camera.width] = 255
    return picture
