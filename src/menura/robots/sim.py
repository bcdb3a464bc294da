"""SimRobot: any environment as a robot in real time, with delays and faults injected."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium import spaces

from menura.clock import Clock, WallClock
from menura.config import load_env
from menura.envs.base import Observation, SimEnv
from menura.envs.make import make_env
from menura.robots.base import Float32, Limits, Robot, RobotError, RobotObservation
from menura.robots.sensing import STATE, TOLERANCE_S, Faults, Sensing
from menura.robots.simulator import Simulator
from menura.robots.stand_in import Commands, Connection, checked_action

_log = logging.getLogger(__name__)

#: After this long (s) it is said when the simulator cannot keep up, and from this share of real time down.
_JUDGED_AFTER_S = 2.0
_KEEPS_UP = 0.95


class SimRobot(Robot):
    """An environment that time passes in.

    It is stepped at its `fps` with the newest command, in a thread of its own; with a clock that is not real time, when
    it is asked and time has passed. Absolute commands hold until the next one; each difference is executed once, then
    the neutral one. What a step brings about is captured when the step's period is over. Before the first command
    of an episode, and after its last step, the robot rests: it is sensed, and nothing moves.

    Args:
        env: `{class: …, args: …}`, or the name of an environment's YAML.
        limits: as `Limits.of` reads them; `low` and `high` are by default the bounds of the environment's actions,
            where these are finite.
        realtime_factor: how many seconds of the simulation pass in one.
        project: where a user's own classes and YAMLs are looked for.
        faults: what is injected, as `Faults.of` reads it.

    Attributes:
        task: the environment's instruction.
        steps: of the environment in this episode.
    """

    task: str
    steps: int = 0

    def __init__(
        self,
        env: str | Mapping[str, Any],
        limits: Mapping[str, Any] | None = None,
        realtime_factor: float = 1.0,
        project: Path | None = None,
        faults: Mapping[str, Any] | None = None,
        clock: Clock | None = None,
    ) -> None:
        if not realtime_factor > 0:
            raise RobotError(f"realtime_factor: expected a number above 0, got {realtime_factor}.")
        injected = Faults.of(faults or {})
        self.inference_delay_s = injected.inference_delay_s
        if clock is not None:
            self.clock = clock
        config = load_env(env, project) if isinstance(env, str) else env
        self._simulator = Simulator(lambda: make_env(config, project))
        made = self._simulator.env
        self.features = made.features
        self.name = self.features.robot or made.class_name
        self.task = made.task
        self.limits = _limits_of(made, limits)
        self._period_s = 1.0 / (self.features.fps * realtime_factor)
        self._sensing = Sensing((STATE, *self.features.cameras), injected)
        self._connection = Connection(self.name, injected)
        self._commands = Commands(self.features, injected.action_delay_s)
        self._lock = threading.Lock()  # of what is sensed and commanded
        self._env_lock = threading.Lock()
        self._asking = threading.Lock()  # one at a time brings the simulation to the present
        self._values: dict[str, Any] | None = None  # what is sensed now, since the first episode
        self._over: str | None = None
        self._stands_still = True
        self._running: Future[None] | None = None
        self._ends = threading.Event()

    def connect(self) -> None:
        """Begins an episode, where none is under way. One that is goes on; after `disconnect` the robot rests first."""
        if self._connection.is_open:
            return
        self._connection.open(self.clock.now())
        if self._values is None:
            self.reset()
        elif self._stands_still:
            self._go_on(None)

    def disconnect(self) -> None:
        """Time stands still until it is connected again. (Where the connection was lost, it goes on.)"""
        with self._asking:
            self._halt()
        self._connection.close()

    def reset(self, seed: int | None = None) -> None:
        """Begins the episode that `seed` alone determines."""
        self._connection.check(self.clock.now())
        with self._asking:
            self._halt()
            self._values = self._simulator.do(lambda: self._begin_episode(seed))
            self._success, self._over = False, None
            self.steps = 0
            self._slow = _Slowness(self.name)
            self._go_on(self._simulator.env.episode_seed)

    def get_observation(self) -> RobotObservation:
        now_s = self._arrive()
        with self._lock:
            return self._sensing.newest(now_s)

    def send_action(self, action: Float32) -> Float32:
        now_s = self._arrive()
        action = checked_action(action, self.features.action, self.name)
        sent = action if self.limits is None else self.limits.clip(action)
        with self._lock:
            self._commands.send(sent, now_s)
        return sent

    def stopped(self) -> str | None:
        return self._connection.stopped(self.clock.now())

    def success(self) -> bool | None:
        self._arrive()
        return self._success

    def over(self) -> str | None:
        """Until `reset` it then rests."""
        return self._over

    @contextmanager
    def simulator(self) -> Iterator[SimEnv]:
        """The environment, which nobody steps meanwhile: for experts, which read its state."""
        with self._env_lock:
            yield self._simulator.env

    # Time passes.

    def _arrive(self) -> float:
        """Now, with the connection checked and the simulation brought there."""
        self._connection.check(now_s := self.clock.now())
        with self._asking:
            if self._running is None:
                while self._next_s + self._period_s <= now_s + TOLERANCE_S:
                    self._simulator.do(self._cycle)
            elif self._running.done() and (error := self._running.exception()) is not None:
                raise RobotError(f"{self.name}: the simulator failed with {type(error).__name__}: {error}") from error
        return now_s

    def _go_on(self, seed: int | None) -> None:
        """Time passes, from now; with a seed, that of an episode, what is injected is determined anew."""
        now_s = self.clock.now()
        self._stands_still = False
        with self._lock:
            self._commands.clear()
            self._sensing.begin(now_s, self._sensed(), seed=seed)
        self._next_s = now_s
        if isinstance(self.clock, WallClock):
            self._ends.clear()
            self._running = self._simulator.submit(self._run)

    def _run(self) -> None:
        """Real time, in the simulator's thread, until the episode or the program ends."""
        # Not the clock's own waiting, which spins at its end: others need the processor.
        while not self._ends.wait(self._next_s - self.clock.now()) and threading.main_thread().is_alive():
            self._cycle()

    def _halt(self) -> None:
        self._stands_still = True
        if self._running is not None:
            self._ends.set()
            self._running.exception()  # waits; a failure has been told, or does not matter any more
            self._running = None

    def _cycle(self) -> None:
        """One period: the command that holds at its beginning is executed, and captured at its end."""
        with self._lock:
            command = self._commands.take(self._next_s)
        if command is not None and self._over is None:
            with self._env_lock:
                self._step(command)
        end_s = self._next_s + self._period_s
        ready_s = self.clock.now() if self._running is not None else end_s
        self._slow.add(self._period_s, max(ready_s - self._next_s, self._period_s))
        self._next_s = max(end_s, ready_s)
        with self._lock:
            self._sensing.capture(self._next_s, self._sensed())

    def _begin_episode(self, seed: int | None) -> dict[str, Any]:
        with self._env_lock:
            observation, _ = self._simulator.env.reset(seed=seed)
        return _streams(observation)

    def _sensed(self) -> dict[str, Any]:
        assert self._values is not None  # an episode was begun
        return self._values

    def _step(self, command: Float32) -> None:
        observation, _, terminated, truncated, info = self._simulator.env.step(command)
        self._values = _streams(observation)
        self.steps += 1
        self._success = bool(info["success"])
        if terminated:
            self._over = "the simulation ended the episode"
        elif truncated:
            self._over = f"the simulation takes no more than {self.steps} steps (its max_episode_steps)"


class _Slowness:
    """Whether the simulator keeps up with real time; said once when it does not."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._simulated_s = self._passed_s = 0.0
        self._told = False

    def add(self, simulated_s: float, passed_s: float) -> None:
        self._simulated_s += simulated_s
        self._passed_s += passed_s
        share = self._simulated_s / self._passed_s
        if not self._told and self._passed_s >= _JUDGED_AFTER_S and share < _KEEPS_UP:
            self._told = True
            _log.warning(
                "%s: expected the simulation to keep up with time, got %.2f of it. Use smaller or fewer cameras, or "
                "lower realtime_factor by as much.",
                self._name,
                share,
            )


def _streams(observation: Observation) -> dict[str, Any]:
    return {STATE: observation["state"], **observation["images"]}


def _limits_of(env: SimEnv, written: Mapping[str, Any] | None) -> Limits | None:
    """Those that are written, over the bounds of the environment's actions; None where there are neither."""
    space = env.action_space
    bounds: dict[str, Any] = {}
    if isinstance(space, spaces.Box) and np.isfinite(space.low).all() and np.isfinite(space.high).all():
        bounds = {"low": space.low.tolist(), "high": space.high.tolist()}
    merged = {**bounds, **(written or {})}
    return Limits.of(merged, env.features.action) if merged else None
