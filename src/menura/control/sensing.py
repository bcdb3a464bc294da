"""What the robot senses, at a rate of its own, in a thread of its own: the newest wins. Torch-free."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType

import numpy as np

from menura.clock import Clock
from menura.control.watchdog import attempt
from menura.robots.base import Robot, RobotError, RobotObservation

#: How far a capture may lie ahead of the clock: it was read a moment before.
_AHEAD_S = 1e-3
#: How long the end of an episode waits for a robot that is being read.
_GOODBYE_S = 2.0


@dataclass(frozen=True, eq=False)
class Seen:
    """An observation that the loop may act on.

    Attributes:
        observation: the robot's.
        number: of the observation in its episode, from 0.
    """

    observation: RobotObservation
    number: int

    @property
    def captured_s(self) -> float:
        """The time it is of: the state's, without which that of the newest picture."""
        times = self.observation["times"]
        return times["state"] if "state" in times else max(times.values())


class Sensing:
    """Reads a robot again and again while it is entered; a reading that fails is tried again at the next turn.

    Args:
        robot: connected. It is read by a thread while another one commands it.
        clock: whose time the robot's times are.
        period_s: from one reading to the next.
        span_s: how far back observations are kept.

    Attributes:
        newest: the last one that succeeded; None before the first.
        first: of the episode.
        errors: readings that failed.
        problem: why the last reading failed, in words; None when it did not.
    """

    def __init__(self, robot: Robot, clock: Clock, period_s: float, span_s: float = 0.0) -> None:
        self.newest: Seen | None = None
        self.first: Seen | None = None
        self.errors = 0
        self.problem: str | None = None
        self._robot = robot
        self._clock = clock
        self._period_s = period_s
        self._span_s = span_s
        self._kept: deque[Seen] = deque()
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sensing", daemon=True)

    def __enter__(self) -> Sensing:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closing.set()
        self._thread.join(_GOODBYE_S)

    @property
    def count(self) -> int:
        """Observations so far."""
        return 0 if self.newest is None else self.newest.number + 1

    def at(self, times_s: Sequence[float]) -> list[Seen]:
        """For each time the observation that was captured nearest to it, of those that are kept and the first."""
        with self._lock:
            kept = list(self._kept)
        if self.first is not None and self.first not in kept[:1]:
            kept.insert(0, self.first)
        captured = np.array([seen.captured_s for seen in kept])
        return [kept[int(np.abs(captured - time_s).argmin())] for time_s in times_s]

    def read(self) -> None:
        """One reading."""
        observation, problem = attempt(self._observation)
        if observation is None:
            self.errors += 1
        else:
            seen = Seen(observation, self.count)
            with self._lock:
                self._kept.append(seen)
                while len(self._kept) > 1 and self._kept[1].captured_s <= seen.captured_s - self._span_s:
                    self._kept.popleft()
            self.first = self.first or seen
            self.newest = seen
        self.problem = problem

    def _observation(self) -> RobotObservation:
        observation = self._robot.get_observation()
        state, images, times = observation["state"], observation["images"], observation["times"]
        features = self._robot.features
        if features.state is not None and (state.shape != (features.state_dim,) or not np.isfinite(state).all()):
            raise RobotError(f"state: expected {features.state_dim} finite numbers, got {state.tolist()}.")
        missing = [name for name in features.cameras if name not in images]
        streams = [*(["state"] if features.state_dim else []), *features.cameras]
        missing += [f"the time of {name}" for name in streams if name not in times]
        if missing:
            raise RobotError(f"observation: expected all that the robot's features name, got no {missing[0]}.")
        ahead_s = max(times.values()) - self._clock.now()
        if ahead_s > _AHEAD_S:
            raise RobotError(f"observation: expected times of the loop's clock, got one {ahead_s:.3f} s ahead of it.")
        # A copy: drivers and simulators like to write the next picture into the same array.
        copied = {camera: image.copy() for camera, image in images.items()}
        return {"state": state.copy(), "images": copied, "times": dict(times)}

    def _run(self) -> None:
        due_s = self._clock.now()
        while not self._closing.is_set():
            self.read()
            now_s = self._clock.now()
            due_s = max(due_s + self._period_s, now_s)
            # Not the clock's own waiting, which spins at its end: that is the control thread's right alone.
            self._closing.wait(due_s - now_s)
