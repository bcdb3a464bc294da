"""What is wrong, since when, and when it is too much: every fault is told from its beginning to its end. Torch-free."""

from __future__ import annotations

import os
import traceback
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

from menura.errors import ContractError, MenuraError

T = TypeVar("T")

# Sources of faults.
OBSERVATION, POLICY, ROBOT, TELEOPERATOR, RECORDING = "observation", "policy", "robot", "teleoperator", "recording"


@dataclass(frozen=True)
class WatchdogSettings:
    """How long the loop waits for what it needs, in seconds, above 0.

    Attributes:
        max_observation_age_s: an observation whose oldest stream is older is not acted on: the robot holds.
        max_inference_s: an inference that takes longer is told as a fault; its answer is still taken, if it is of use.
        patience_s: when the robot has held for so long, whatever the reason, the episode ends.
        robot_patience_s: when the robot has not answered for so long, the episode ends. It is never connected again in
            an episode: who knows where it then is.
    """

    max_observation_age_s: float = 0.5
    max_inference_s: float = 1.0
    patience_s: float = 30.0
    robot_patience_s: float = 5.0

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if not value > 0:
                raise ContractError(f"watchdog.{name}: expected seconds above 0, got {value}.")


@dataclass
class Fault:
    """Something that was wrong for a while.

    Attributes:
        source: `observation`, `policy`, `robot`, `teleoperator` or `recording`: what it lies with.
        message: what was said when it began.
        began_s, ended_s: seconds from the episode's beginning; it was not over when that is None.
    """

    source: str
    message: str
    began_s: float
    ended_s: float | None = None

    def __str__(self) -> str:
        until = "" if self.ended_s is None else f" to {self.ended_s:.2f}"
        return f"{self.began_s:.2f}{until} s: {self.source}: {self.message}"

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


class Watchdog:
    """Keeps the faults of an episode, and says what they amount to.

    Args:
        settings: as of `WatchdogSettings`.
        start_s: when the episode begins, in the time of the loop's clock.
        told: called with each fault as it begins, and again as it ends.
    """

    def __init__(
        self, settings: WatchdogSettings, start_s: float, told: Callable[[Fault], None] = lambda fault: None
    ) -> None:
        self.faults: list[Fault] = []
        self._settings = settings
        self._start_s = start_s
        self._told = told
        self._open: dict[str, Fault] = {}

    def tell(self, source: str, problem: str | None, now_s: float) -> None:
        """What is wrong with a source now, None when nothing is: a fault begins, goes on or ends."""
        fault = self._open.get(source)
        if problem is not None and fault is None:
            fault = self._open[source] = Fault(source, problem, now_s - self._start_s)
            self.faults.append(fault)
            self._told(fault)
        elif problem is None and fault is not None:
            fault.ended_s = now_s - self._start_s
            del self._open[source]
            self._told(fault)

    def stale(self, times: Mapping[str, float], now_s: float) -> str | None:
        """Which stream is too old to act on, in words. `times`: stream -> when it was captured."""
        oldest = min(times, key=lambda stream: times[stream])
        age_s, limit_s = now_s - times[oldest], self._settings.max_observation_age_s
        if age_s <= limit_s:
            return None
        return f"{oldest}: expected it to be at most {limit_s:g} s old, got {age_s:.2f} s. Look at its cable and rate."

    def slow(self, asked_s: float | None, now_s: float) -> str | None:
        """Whether the inference under way, asked for at `asked_s`, takes too long, in words."""
        limit_s = self._settings.max_inference_s
        if asked_s is None or now_s - asked_s <= limit_s:
            return None
        return f"expected an answer within {limit_s:g} s, got none yet. Look at its server or its machine."

    def overdue(self, held_since_s: float, now_s: float) -> bool:
        """Whether the robot has held, or has not answered, for longer than anyone should wait."""
        robot = self._open.get(ROBOT)
        gone_s = 0.0 if robot is None else now_s - self._start_s - robot.began_s
        return now_s - held_since_s > self._settings.patience_s or gone_s > self._settings.robot_patience_s

    def worst(self, otherwise: str) -> str:
        """The oldest fault that is not over, in words."""
        return next((f"{fault.source}: {fault.message}" for fault in self._open.values()), otherwise)


def attempt(call: Callable[[], T]) -> tuple[T | None, str | None]:
    """What a device or a policy answered, and None; or None, and what it raised, in words.

    The one place where whatever others' code raises is caught: a robot must be told to hold, whatever it was. With
    MENURA_DEBUG the traceback is printed.
    """
    try:
        return call(), None
    except Exception as error:  # noqa: BLE001 (a driver, a user's policy or a network may raise anything)
        if os.environ.get("MENURA_DEBUG"):
            traceback.print_exc()
        text = " ".join(str(error).split())
        return None, text if isinstance(error, MenuraError) and text else f"{type(error).__name__}: {text}"
