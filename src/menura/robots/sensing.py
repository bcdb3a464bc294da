"""What a stand-in for a robot senses, when that arrives, and what goes wrong on purpose: the same for a seed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np

from menura.errors import did_you_mean
from menura.robots.base import RobotError, RobotObservation

#: In seconds: times that were added up differ by roundings, which must not make something late.
TOLERANCE_S = 1e-6

STATE = "state"


@dataclass(frozen=True)
class Faults:
    """What is injected. Seconds count from when the robot was connected first.

    Attributes:
        sensing_delay_s: how long everything sensed is under way.
        sensing_jitter_s: each is under way up to this much longer.
        inference_delay_s: how much longer the policy takes to answer.
        action_delay_s: how long a command is under way.
        drop_share: the share of what is sensed, of each stream by itself, that never arrives; in [0, 1).
        frozen_after_s: stream (a camera, or `state`) -> when it stops to give anything new.
        disconnect_after_s: when the connection is lost, once; it can then be connected again.
        stop_after_s: when the robot's own emergency stop is pressed.
        seed: what determines which are dropped and how late each is.
    """

    sensing_delay_s: float = 0.0
    sensing_jitter_s: float = 0.0
    inference_delay_s: float = 0.0
    action_delay_s: float = 0.0
    drop_share: float = 0.0
    frozen_after_s: Mapping[str, float] = field(default_factory=dict)
    disconnect_after_s: float | None = None
    stop_after_s: float | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("sensing_delay_s", "sensing_jitter_s", "inference_delay_s", "action_delay_s"):
            if not getattr(self, name) >= 0:
                raise RobotError(f"faults.{name}: expected a number of at least 0, got {getattr(self, name)}.")
        if not 0 <= self.drop_share < 1:
            raise RobotError(f"faults.drop_share: expected a number from 0 to below 1, got {self.drop_share}.")

    @classmethod
    def of(cls, mapping: Mapping[str, Any]) -> Faults:
        """What a YAML writes of them: `{drop_share: 0.1, frozen_after_s: {front: 5}}`.

        Raises:
            RobotError: no fault has that name, or that number.
        """
        names = [one.name for one in fields(cls)]
        for name in mapping:
            if name not in names:
                raise RobotError(f"faults.{name}: no such fault{did_you_mean(name, names) or '.'} Known: {names}.")
        return cls(**mapping)

    def check_streams(self, streams: Sequence[str]) -> None:
        """Whether each stream that is to freeze is one of the robot's."""
        for name in self.frozen_after_s:
            if name not in streams:
                hint = did_you_mean(name, streams) or "."
                raise RobotError(f"faults.frozen_after_s.{name}: expected one of {list(streams)}, got {name!r}{hint}")


@dataclass(frozen=True)
class _Sensed:
    """One thing of one stream."""

    captured_s: float
    arrives_s: float
    value: Any


class Sensing:
    """What was captured, stream by stream, and what of it has arrived by a time."""

    def __init__(self, streams: Sequence[str], faults: Faults) -> None:
        faults.check_streams(streams)
        self._streams = tuple(streams)
        self._faults = faults
        self._under_way: dict[str, list[_Sensed]] = {}
        self._arrived: dict[str, _Sensed] = {}
        self._rng = np.random.default_rng(faults.seed)
        self._connected_s: float | None = None

    def begin(self, now_s: float, values: Mapping[str, Any], *, seed: int | None = None) -> None:
        """Forget everything; these values, which arrive at once, are what a robot at rest senses now."""
        if self._connected_s is None:
            self._connected_s = now_s
        if seed is not None:
            self._rng = np.random.default_rng((self._faults.seed, seed))
        self._under_way = {name: [] for name in self._streams}
        self._arrived = {name: _Sensed(now_s, now_s, values[name]) for name in self._streams}

    def capture(self, time_s: float, values: Mapping[str, Any], *, ready_s: float = 0.0) -> None:
        """Everything was captured at `time_s`; it arrives when the delay has passed, not before it is ready."""
        faults = self._faults
        draws = self._rng.random((len(self._streams), 2))  # always as many, so that faults do not depend on others
        for name, (drop, late) in zip(self._streams, draws, strict=True):
            if drop < faults.drop_share or self._is_frozen(name, time_s):
                continue
            arrives_s = max(time_s + faults.sensing_delay_s + late * faults.sensing_jitter_s, ready_s)
            self._under_way[name].append(_Sensed(time_s, arrives_s, values[name]))

    def newest(self, now_s: float) -> RobotObservation:
        """Of each stream the newest that has arrived; one that another has overtaken is forgotten."""
        for name, under_way in self._under_way.items():
            arrived = [sensed for sensed in under_way if sensed.arrives_s <= now_s + TOLERANCE_S]
            newest = max(arrived, key=lambda sensed: sensed.captured_s, default=self._arrived[name])
            if newest.captured_s > self._arrived[name].captured_s:
                self._arrived[name] = newest
            self._under_way[name] = [sensed for sensed in under_way if sensed.arrives_s > now_s + TOLERANCE_S]
        cameras = [name for name in self._streams if name != STATE]
        return {
            "state": self._arrived[STATE].value,
            "images": {name: self._arrived[name].value for name in cameras},
            "times": {name: sensed.captured_s for name, sensed in self._arrived.items()},
        }

    def _is_frozen(self, stream: str, time_s: float) -> bool:
        after_s = self._faults.frozen_after_s.get(stream)
        return after_s is not None and time_s - (self._connected_s or 0.0) >= after_s
