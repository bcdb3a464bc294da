"""What the stand-ins for a robot (`SimRobot`, `DummyRobot`) have in common: connection, faults, commands under way."""

from __future__ import annotations

from collections import deque

import numpy as np

from menura.control.hold import hold_action
from menura.errors import ContractError
from menura.features import Features, VectorFeature
from menura.robots.base import Float32, RobotError
from menura.robots.sensing import TOLERANCE_S, Faults

#: Differences that may wait: one falls into the period of another where two clocks are not in step.
_WAITING = 2


class Connection:
    """Whether a stand-in is connected, and the faults of that."""

    def __init__(self, name: str, faults: Faults) -> None:
        self._name = name
        self._faults = faults
        self._first_s: float | None = None
        self._lost = False  # once is enough
        self._gone = False
        self._open = False

    @property
    def is_open(self) -> bool:
        return self._open

    def open(self, now_s: float) -> None:
        self._first_s = now_s if self._first_s is None else self._first_s
        self._open, self._gone = True, False

    def close(self) -> None:
        self._open = self._gone = False

    def check(self, now_s: float) -> None:
        """RobotError where it is not connected, or loses the connection now."""
        after_s = self._faults.disconnect_after_s
        if self._open and not self._lost and after_s is not None and now_s - (self._first_s or 0.0) >= after_s:
            self._open, self._lost, self._gone = False, True, True
        if self._gone:
            raise RobotError(f"{self._name}: the connection was lost. Connect it again.")
        if not self._open:
            raise RobotError(f"{self._name}: expected it to be connected, got a robot that is not. Call connect().")

    def stopped(self, now_s: float) -> str | None:
        after_s = self._faults.stop_after_s
        if after_s is None or self._first_s is None or now_s - self._first_s < after_s:
            return None
        return "the emergency stop of the robot was pressed"


class Commands:
    """Commands on their way, and the one that is executed from a time on.

    Absolute commands hold until the next one. Each difference is executed once, in order; after it comes the neutral
    one, with the grippers as they were. At most two differences wait: of more the oldest is lost.
    """

    def __init__(self, features: Features, delay_s: float) -> None:
        self._features = features
        self._delay_s = delay_s
        self._waiting: deque[tuple[float, Float32]] = deque()
        self._last: Float32 | None = None

    def clear(self) -> None:
        self._waiting.clear()
        self._last = None

    def send(self, action: Float32, now_s: float) -> None:
        self._waiting.append((now_s + self._delay_s, action))

    def take(self, time_s: float) -> Float32 | None:
        """(A,) what is executed from `time_s` on; None before the first command, while the robot rests."""
        due: list[Float32] = []
        while self._waiting and self._waiting[0][0] <= time_s + TOLERANCE_S:
            due.append(self._waiting.popleft()[1])
        if self._features.control_type != "delta":
            self._last = due[-1] if due else self._last
            return self._last
        for action in reversed(due[-_WAITING:][1:]):
            self._waiting.appendleft((time_s, action))
        if due:
            self._last = due[-_WAITING:][0]
            return self._last
        return None if self._last is None else hold_action(self._features, self._last, None)


def checked_action(action: Float32, feature: VectorFeature, name: str) -> Float32:
    """(A,) float32, a copy; ContractError where the shape is wrong or a number is not finite."""
    array = np.array(action, dtype=np.float32)
    if array.shape != (feature.dim,):
        raise ContractError(f"{name} action: expected shape ({feature.dim},), got {array.shape}.")
    if not np.isfinite(array).all():
        raise ContractError(f"{name} action: expected finite values, got {array.tolist()}.")
    return array
