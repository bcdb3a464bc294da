"""ReplayRobot: a recorded episode as a robot: seen again at its own times; what it is sent is compared, no more."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from menura.clock import Clock
from menura.data.opening import open_dataset
from menura.features import VectorFeature
from menura.processing.rotations import angle
from menura.robots.base import Float32, Limits, Robot, RobotError, RobotObservation, UInt8
from menura.robots.sensing import TOLERANCE_S
from menura.robots.stand_in import checked_action


@dataclass(frozen=True)
class ActionError:
    """By how much the actions that a replayed robot was sent differ from those recorded at their times.

    Attributes:
        names: the action's dimensions; each rotation once, as the angle (rad) between the two, named by its first.
        mean, largest: (n,) of |sent - recorded|, in the action's units; zeros before anything was sent.
        count: actions that were compared.
    """

    names: tuple[str, ...]
    mean: NDArray[np.float64]
    largest: NDArray[np.float64]
    count: int

    def __str__(self) -> str:
        each = zip(self.names, self.mean, self.largest, strict=True)
        told = ", ".join(f"{name} {mean:.3g} (at most {largest:.3g})" for name, mean, largest in each)
        return f"{self.count} actions, off the recorded ones by {told}" if self.count else "no action was sent"


class ReplayRobot(Robot):
    """Plays one episode of a dataset from its connection, or its last `reset`, on; then the episode is over, and it is
    said how far the actions that were sent were from those recorded.

    Args:
        dataset: a path, a dataset of the Hub, or a mapping as in a task's YAML.
        episode: which one, from 0.
        limits: as `Limits.of` reads them. By default the range of the episode's actions, widened on either side by as
            much again: nothing moves, and what leaves the recorded range is to be seen in the error.
        rate: how many seconds of the recording pass in one.
        project: where a user's own dataset classes are looked for, and relative paths begin.
    """

    def __init__(
        self,
        dataset: str | Mapping[str, Any],
        episode: int = 0,
        limits: Mapping[str, Any] | None = None,
        rate: float = 1.0,
        project: Path | None = None,
        clock: Clock | None = None,
    ) -> None:
        if not rate > 0:
            raise RobotError(f"rate: expected a number above 0, got {rate}.")
        reader = open_dataset(_anchored(dataset, project), project=project)
        if not 0 <= episode < len(reader):
            raise RobotError(f"episode: expected a number from 0 to {len(reader) - 1}, got {episode}.")
        if clock is not None:
            self.clock = clock
        self.name = f"{reader.name}:{episode}"
        self.features = reader.features
        self._episode = reader.episode(episode)
        self.task = self._episode.task
        recorded = self._episode.action
        self.limits = _around(recorded) if limits is None else Limits.of(limits, self.features.action)
        assert self._episode.timestamps is not None  # an episode has them
        self._times_s = (self._episode.timestamps - self._episode.timestamps[0]) / rate
        self._compared = _Comparison(self.features.action)
        self._begun_s: float | None = None
        self._decoded: tuple[int, dict[str, UInt8]] = (-1, {})  # the frame that was looked at last, and its pictures
        self._lock = threading.Lock()

    def connect(self) -> None:
        if self._begun_s is None:
            self._begun_s = self.clock.now()

    def disconnect(self) -> None:
        self._begun_s = None

    def reset(self, seed: int | None = None) -> None:
        """From the episode's beginning; what was sent until now is forgotten."""
        self._frame()
        with self._lock:
            self._compared = _Comparison(self.features.action)
        self._begun_s = self.clock.now()

    def get_observation(self) -> RobotObservation:
        frame, begun_s = self._frame()
        captured_s = begun_s + float(self._times_s[frame])
        if self._decoded[0] != frame:
            cameras = self.features.cameras
            self._decoded = frame, {camera: np.asarray(self._episode.images[camera][frame]) for camera in cameras}
        images = self._decoded[1]
        return {
            "state": self._episode.state[frame].copy(),
            "images": dict(images),
            "times": dict.fromkeys(("state", *images), captured_s),
        }

    def send_action(self, action: Float32) -> Float32:
        frame, _ = self._frame()
        sent = checked_action(action, self.features.action, self.name)
        assert self.limits is not None
        sent = self.limits.clip(sent)
        with self._lock:
            self._compared.add(sent, self._episode.action[frame])
        return sent

    def over(self) -> str | None:
        """When the recording is, with how far what was sent was from what was recorded."""
        if self._begun_s is None:
            return None
        length_s = float(self._times_s[-1]) + 1.0 / self.features.fps
        if self.clock.now() - self._begun_s < length_s - TOLERANCE_S:
            return None
        return f"the recording is over: {self.error}"

    @property
    def error(self) -> ActionError:
        """Of the actions since the connection or the last `reset`."""
        with self._lock:
            return self._compared.result()

    def _frame(self) -> tuple[int, float]:
        """The newest frame now, and when the episode began."""
        if self._begun_s is None:
            raise RobotError(f"{self.name}: expected it to be connected, got a robot that is not. Call connect().")
        passed_s = self.clock.now() - self._begun_s + TOLERANCE_S
        return max(int(np.searchsorted(self._times_s, passed_s, side="right")) - 1, 0), self._begun_s


class _Comparison:
    """Differences between two actions at a time, added up."""

    def __init__(self, action: VectorFeature) -> None:
        rotated = {name for rotation in action.rotations for name in rotation.names}
        self._numbers = [place for place, name in enumerate(action.names) if name not in rotated]
        self._rotations = [
            ([action.names.index(name) for name in rotation.names], rotation.representation)
            for rotation in action.rotations
        ]
        self._names = (
            *(action.names[place] for place in self._numbers),
            *(f"rotation of {action.names[places[0]]}" for places, _ in self._rotations),
        )
        self._sum = np.zeros(len(self._names))
        self._largest = np.zeros(len(self._names))
        self._count = 0

    def add(self, sent: Float32, recorded: Float32) -> None:
        numbers = np.abs(sent[self._numbers].astype(np.float64) - recorded[self._numbers])
        angles = [float(angle(sent[places], recorded[places], kind)) for places, kind in self._rotations]
        errors = np.concatenate([numbers, angles])
        self._sum += errors
        self._largest = np.maximum(self._largest, errors)
        self._count += 1

    def result(self) -> ActionError:
        return ActionError(self._names, self._sum / max(self._count, 1), self._largest.copy(), self._count)


def _anchored(dataset: str | Mapping[str, Any], project: Path | None) -> str | Mapping[str, Any]:
    """A relative path that exists in the project as one that exists from here."""
    path = dataset["path"] if isinstance(dataset, Mapping) and "path" in dataset else dataset
    if not isinstance(path, str) or project is None or not (project / path).exists():
        return dataset
    anchored = str(project / path)
    return {**dataset, "path": anchored} if isinstance(dataset, Mapping) else anchored


def _around(actions: Float32) -> Limits:
    low, high = actions.min(axis=0), actions.max(axis=0)
    width = np.where(high > low, high - low, 1.0).astype(np.float32)
    return Limits(low - width, high + width)
