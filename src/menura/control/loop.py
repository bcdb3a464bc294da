"""The control loop: sensing, inference and control at rates of their own; whatever is missing, the robot holds.

Control runs in the thread that calls it, on absolute deadlines, and never waits for anything but the robot that takes
its command. Torch-free.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from menura.chunks import ActionChunk
from menura.clock import Clock, WallClock
from menura.control.controllers.base import Command, Controller
from menura.control.planning import ChunkPolicy, Planner, request_of
from menura.control.recording import ControlRecorder
from menura.control.safety import Safety
from menura.control.sensing import Seen, Sensing
from menura.control.timing import Tally, Tick, Ticks, Timing
from menura.control.watchdog import (
    OBSERVATION,
    POLICY,
    RECORDING,
    ROBOT,
    TELEOPERATOR,
    Fault,
    Watchdog,
    WatchdogSettings,
    attempt,
)
from menura.errors import ContractError, FeatureMismatch, did_you_mean
from menura.features import Features
from menura.robots.base import Robot, RobotError
from menura.teleop.base import Teleoperator

Float32 = NDArray[np.float32]

#: How an episode ended; `quit` and `emergency stop` end the run as well, and so does `fault`.
Ended = Literal["success", "failure", "time", "next", "quit", "emergency stop", "fault"]
#: What the robot does at a tick. Before the first command of an episode it rests: nothing is sent.
Mode = Literal["rest", "policy", "teleoperator", "hold"]

#: After a request that failed, the next one comes so much later (s), twice as much each time, up to the second number.
_RETRY_S, _LONGEST_RETRY_S = 0.05, 1.0


@dataclass(frozen=True)
class SafetySettings:
    """How a robot is kept safe, within its limits.

    Attributes:
        max_plan_age_s: a plan whose observation is older is not executed; None: the length of a chunk and a second.
        slow_start_s: over so many seconds from an episode's first command on, the steps allowed grow from none to all.
    """

    max_plan_age_s: float | None = None
    slow_start_s: float = 1.0


@dataclass(frozen=True)
class Status:
    """Where the loop stands at a tick, for those who look on.

    Attributes:
        time_s: since the episode began.
        mode: what the robot does; `reason`: why it holds or rests, empty when it does not.
        paused: whether somebody told it to hold.
        observation_age_s: of the oldest stream; None before the first observation.
        number: of the inference that the command stems from; None without one.
        plan_age_s: since the capture of that inference's observation.
        plan_rest: the share of the newest chunk that is still to come, in [0, 1].
        action: (A,) what was sent; None when nothing was.
        faults: of the episode so far.
        timing: says how time was kept so far.
    """

    time_s: float
    mode: Mode
    reason: str
    paused: bool
    observation_age_s: float | None
    number: int | None
    plan_age_s: float | None
    plan_rest: float
    action: Float32 | None
    faults: Sequence[Fault]
    timing: Callable[[], Timing]


@dataclass(frozen=True)
class ControlledEpisode:
    """How an episode went.

    Attributes:
        steps: commands that were sent, those that hold among them.
        success: whether the task was solved; None where nobody said.
        ended: what ended it; `reason`: in words.
        timing: how time was kept.
        faults: what was wrong meanwhile, from when to when.
        recorded: frames that were saved, 0 where that failed; None where nothing was to be.
    """

    steps: int
    success: bool | None
    ended: Ended
    reason: str
    timing: Timing
    faults: tuple[Fault, ...]
    recorded: int | None = None

    def to_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return {
            "steps": self.steps,
            "success": self.success,
            "ended": self.ended,
            "reason": self.reason,
            "timing": self.timing.to_dict(),
            "faults": [fault.to_dict() for fault in self.faults],
            "recorded": self.recorded,
        }


class ControlLoop:
    """Drives a robot by a policy, episode after episode.

    Each tick: what was sensed last is looked at, what the policy answered goes to the controller, its command (or that
    of an engaged teleoperator) goes through safety to the robot, and an inference is begun when the controller wants
    one. What is missing or too old makes the robot hold.

    Args:
        robot: connected before the first episode; read by one thread while another one commands it.
        policy: a `MetaPolicy` or a `ServedPolicy`.
        controller: turns chunks into commands.
        control_hz: commands per second.
        chunk_hz: actions per second of a chunk; the fps of the policy's features, when None.
        sensing_hz: readings per second; the robot's own fps, when None.
        task: the instruction in words.
        safety: how it is kept, within the robot's limits.
        watchdog: how long the loop waits for what it needs.
        clock: whose time everything is of; the robot's and the teleoperator's clocks are set to it.
        teleop: takes over while it is engaged; connected before the first episode.
        recorder: records what is seen and sent.
        dry_run: everything but `send_action`.
        observers: called at every tick, in the control thread: they must return at once.

    Raises:
        RobotError: the robot has no limits.
        FeatureMismatch: policy and robot disagree on what an observation or an action is, or nobody says how fast the
            policy's actions are meant.
        ContractError: rates that cannot be, a teleoperator that cannot drive the robot, a dry run that is to be
            recorded.
    """

    def __init__(
        self,
        robot: Robot,
        policy: ChunkPolicy,
        controller: Controller,
        *,
        control_hz: float,
        chunk_hz: float | None = None,
        sensing_hz: float | None = None,
        task: str = "",
        safety: SafetySettings | None = None,
        watchdog: WatchdogSettings | None = None,
        clock: Clock | None = None,
        teleop: Teleoperator | None = None,
        recorder: ControlRecorder | None = None,
        dry_run: bool = False,
        observers: Sequence[Callable[[Status], None]] = (),
    ) -> None:
        if robot.limits is None:
            raise RobotError(f"{robot.name}: expected limits, got none: it is not driven. Write `limits:` in its YAML.")
        if dry_run and recorder is not None:
            raise ContractError(
                "control: expected a dry run or a recording, got both: nothing is sent that were to be."
            )
        refuse_differences(policy, robot)
        self.robot, self.policy, self.controller, self.teleop, self.recorder = (
            robot,
            policy,
            controller,
            teleop,
            recorder,
        )
        self.task = task
        self.dry_run = dry_run
        self.clock: Clock = WallClock() if clock is None else clock
        self.robot.clock = self.clock
        if teleop is not None:
            teleop.clock = self.clock
            teleop.begin(robot)
        self.control_period_s = _period("control_hz", control_hz)
        self.sensing_period_s = _period("sensing_hz", sensing_hz or robot.features.fps or control_hz)
        self.features = driven_features(policy, robot, chunk_hz)
        self.chunk_period_s = 1.0 / self.features.fps
        safety = safety or SafetySettings()
        longest_s = (policy.chunk_size or 1) * self.chunk_period_s + 1.0
        self.safety = Safety(
            self.features,
            robot.limits,
            self.control_period_s,
            max_plan_age_s=longest_s if safety.max_plan_age_s is None else safety.max_plan_age_s,
            slow_start_s=safety.slow_start_s,
        )
        self.watchdog = watchdog or WatchdogSettings()
        self.observers = tuple(observers)
        self.planner = Planner(policy, self.chunk_period_s, self.clock)
        self.paused = False
        self.asked_to_end: tuple[Ended, str] | None = None
        controller.begin(self.features, self.control_period_s)  # refused before anything moves

    def run_episode(self, max_seconds: float, seed: int | None = None) -> ControlledEpisode:
        """One episode: until the task is solved, the time is over, somebody ends it, or a fault does.

        Args:
            max_seconds: from the first command on.
            seed: of a simulated robot and of a policy that samples.

        Raises:
            RobotError: the robot cannot begin.
            DataError: the recording cannot begin.
        """
        self.asked_to_end, self.paused = None, False
        self.robot.reset(seed)
        self.planner.begin(seed)
        if self.teleop is not None:
            self.teleop.sent(None)
        if self.recorder is not None:
            self.recorder.begin(task=self.task, seed=seed)
        span_s = -min(self.policy.observation_offsets) * self.chunk_period_s
        try:
            with Sensing(self.robot, self.clock, self.sensing_period_s, span_s) as sensing:
                episode = _Episode(self, sensing, max_seconds)
                try:
                    while not episode.over:
                        episode.tick()
                finally:
                    episode.hold_at_last()
        except BaseException:
            if self.recorder is not None:
                self.recorder.discard()
            raise
        return episode.result()

    def stop(self, reason: str, ended: Ended = "quit") -> None:
        """End the episode at the next tick: the robot is told to hold. May be called by any thread, or by a signal.

        What was asked for first counts, but for an emergency stop.
        """
        if self.asked_to_end is None or ended == "emergency stop":
            self.asked_to_end = (ended, reason)

    def close(self) -> None:
        """Let the policy's thread go."""
        self.planner.close()


@dataclass(frozen=True)
class _Decision:
    """What is to be done at a tick; without an action the robot holds, for the reason."""

    mode: Mode
    action: Float32 | None = None
    command: Command | None = None
    reason: str = ""


class _Episode:
    """One episode while it runs: what changes from tick to tick."""

    def __init__(self, loop: ControlLoop, sensing: Sensing, max_seconds: float) -> None:
        self._loop = loop
        self._sensing = sensing
        self._max_seconds = max_seconds
        self._ticks = Ticks(loop.clock, loop.control_period_s)
        self._start_s = self._held_since_s = self._now_s = loop.clock.now()
        self._first_command_s: float | None = None
        self._watchdog = Watchdog(loop.watchdog, self._start_s)
        self._tally = Tally()
        self._seen: Seen | None = None
        self._stale: str | None = None
        self._last: Float32 | None = None  # what was sent last
        self._steps = self._errors = self._failures = 0
        self._send_problem: str | None = None
        self._chunk: ActionChunk | None = None
        self._asked_about_s = -np.inf  # when the observation of the last request was captured
        self._retry_s = -np.inf
        self._must_plan_anew = True
        self._solved: bool | None = None
        self._ending: tuple[Ended, str] | None = None
        streams = (*(["state"] if loop.features.state_dim else []), *loop.policy.required_cameras)
        self._streams = streams if loop.recorder is None else tuple({*streams, *loop.features.cameras})

    @property
    def over(self) -> bool:
        return self._ending is not None

    def tick(self) -> None:
        """One turn of the loop."""
        tick = self._ticks.wait()
        self._now_s = tick.now_s
        self._ending = self._emergency()
        if self._ending is not None:
            return
        self._look(tick)
        self._hear(tick)
        decision, sent = self._carry_out(self._decide(tick), tick)
        self._ask(tick)
        self._record(decision, tick)
        self._ending = self._ending or self._end_of(decision, tick)
        for observer in self._loop.observers:
            observer(self._status(decision, sent, tick))

    def hold_at_last(self) -> None:
        """The last command of an episode, however it ended."""
        if self._first_command_s is None:
            return
        held = self._loop.safety.check(None, self._now_s).action
        if held is not None:
            self._send(held)

    def result(self) -> ControlledEpisode:
        """Saves the recording, and says how the episode went."""
        assert self._ending is not None
        ended, reason = self._ending
        success = {"success": True, "failure": False}.get(ended, self._solved)
        episode = ControlledEpisode(
            steps=self._steps,
            success=success,
            ended=ended,
            reason=reason,
            timing=self._timing(),
            faults=tuple(self._watchdog.faults),
        )
        recorder = self._loop.recorder
        if recorder is None:
            return episode
        if not len(recorder):
            recorder.discard()
            return episode
        frames = len(recorder)
        _, problem = attempt(lambda: recorder.save(success=success, facts={"control": episode.to_dict()}))
        if problem is not None:
            return replace(episode, ended="fault", reason=problem, recorded=0)
        return replace(episode, recorded=frames)

    # What is known

    def _look(self, tick: Tick) -> None:
        """The newest observation, and whether it may be acted on."""
        sensing, watchdog = self._sensing, self._watchdog
        watchdog.tell(ROBOT, sensing.problem or self._send_problem, tick.now_s)
        self._seen = sensing.newest
        if self._seen is None:
            self._stale = "no observation yet"
            return
        times = {stream: self._seen.observation["times"][stream] for stream in self._streams}
        self._tally.observation_age_ms.add(1e3 * (tick.now_s - min(times.values())))
        self._stale = watchdog.stale(times, tick.now_s)
        self._tally.stale += self._stale is not None
        if self._loop.features.state_dim:
            self._loop.safety.observe(self._seen.observation["state"], times["state"])
        watchdog.tell(OBSERVATION, self._stale, tick.now_s)

    def _hear(self, tick: Tick) -> None:
        """What the policy answered."""
        planner, watchdog = self._loop.planner, self._watchdog
        answer = planner.take()
        if answer is None:
            if (slow := watchdog.slow(planner.asked_s, tick.now_s)) is not None:
                watchdog.tell(POLICY, slow, tick.now_s)
            return
        watchdog.tell(POLICY, answer.problem, tick.now_s)
        if answer.chunk is None:
            self._errors += 1
            self._failures += 1
            self._retry_s = tick.now_s + min(_RETRY_S * 2.0**self._failures, _LONGEST_RETRY_S)
            return
        self._failures = 0
        self._chunk = answer.chunk
        self._tally.inference_ms.add(1e3 * answer.took_s)
        self._tally.delay_ms.add(1e3 * (tick.now_s - answer.chunk.start_s))
        self._loop.controller.receive(answer.chunk, tick.due_s)

    # What is done

    def _decide(self, tick: Tick) -> _Decision:
        if self._seen is None or self._stale is not None:
            return self._holding("observation")
        if self._loop.paused:
            self._must_plan_anew = True
            self._held_since_s = tick.now_s  # as long as people like
            return self._holding("paused")
        if self._loop.teleop is not None:
            action, problem = attempt(self._takeover)
            self._watchdog.tell(TELEOPERATOR, problem, tick.now_s)
            if problem is not None or action is not None:
                self._must_plan_anew = True
                return self._holding("teleoperator") if action is None else _Decision("teleoperator", action)
        if self._must_plan_anew:
            self._plan_anew()
        command = self._loop.controller.command(tick.due_s)
        if command is None:
            return self._holding("no plan")
        return _Decision("policy", command.action, command)

    def _takeover(self) -> Float32 | None:
        """(A,) what the teleoperator does now; None while it is not engaged."""
        assert self._loop.teleop is not None
        assert self._seen is not None
        action = self._loop.teleop.act(self._seen.observation)
        if action is not None and (action.shape != (self._loop.features.action_dim,) or not np.isfinite(action).all()):
            raise ContractError(f"action: expected {self._loop.features.action_dim} finite numbers, got {action}.")
        return action

    def _holding(self, reason: str) -> _Decision:
        return _Decision("hold" if self._first_command_s is not None else "rest", reason=reason)

    def _plan_anew(self) -> None:
        """What was planned, and what is being planned, was for another course of things."""
        self._must_plan_anew = False
        self._chunk = None
        self._loop.planner.forget()
        self._loop.controller.begin(self._loop.features, self._loop.control_period_s)

    def _carry_out(self, decision: _Decision, tick: Tick) -> tuple[_Decision, Float32 | None]:
        """Sends what safety makes of a decision: what was done, and (A,) what was sent, None when nothing was."""
        tally, safety = self._tally, self._loop.safety
        if decision.mode != "rest" and self._first_command_s is None:
            _, problem = attempt(lambda: safety.begin(self._state()))
            if problem is not None:
                self._ending = ("fault", problem)
                return _Decision("rest", reason="robot"), None
            self._first_command_s = tick.due_s
        if decision.mode == "rest":
            tally.holds[decision.reason] += 1
            return decision, None
        captured_s = None if decision.command is None else decision.command.captured_s
        checked = safety.check(decision.action, tick.due_s, captured_s=captured_s)
        if checked.held and decision.action is not None:
            decision = replace(decision, mode="hold", reason=checked.reasons[0])
        sent = None if checked.action is None else self._send(checked.action)
        if sent is None and checked.action is not None:
            decision = replace(decision, mode="hold", reason=ROBOT)
        if decision.mode == "hold":
            tally.holds[decision.reason] += 1
        else:
            tally.clipped.update(checked.reasons)
            tally.interventions += decision.mode == "teleoperator"
            self._held_since_s = tick.now_s
        return decision, sent

    def _send(self, allowed: Float32) -> Float32 | None:
        """(A,) what was sent; None where the robot did not take it."""
        loop = self._loop

        def send() -> Float32:
            sent = loop.robot.send_action(allowed)
            if not np.array_equal(sent, allowed):
                loop.safety.sent(sent)
                self._tally.clipped[ROBOT] += 1
            return sent

        sent, self._send_problem = (allowed, None) if loop.dry_run else attempt(send)
        if sent is None:
            if self._last is not None:
                loop.safety.sent(self._last)  # where the robot still is
            return None
        self._last = sent
        self._steps += 1
        if loop.teleop is not None:
            loop.teleop.sent(sent)
        return sent

    def _state(self) -> Float32 | None:
        return None if self._seen is None else self._seen.observation["state"]

    def _ask(self, tick: Tick) -> None:
        """Begins an inference when one is wanted and can be."""
        loop, seen = self._loop, self._seen
        if seen is None or self._stale is not None or self._must_plan_anew or loop.planner.asked_s is not None:
            return
        if (
            seen.captured_s <= self._asked_about_s
            or tick.now_s < self._retry_s
            or not loop.controller.wants(tick.due_s)
        ):
            return
        self._asked_about_s = seen.captured_s
        previous = loop.controller.previous(seen.captured_s)
        period_s = loop.chunk_period_s
        loop.planner.ask(
            request_of(self._sensing, seen, loop.policy, task=loop.task, period_s=period_s, previous=previous)
        )

    def _record(self, decision: _Decision, tick: Tick) -> None:
        recorder = self._loop.recorder
        if recorder is None or self._last is None or self._seen is None:
            return
        recorder.add(tick.due_s, self._seen, self._last, intervened=decision.mode == "teleoperator")
        self._watchdog.tell(RECORDING, recorder.problem, tick.now_s)

    # How it ends

    def _emergency(self) -> tuple[Ended, str] | None:
        """An emergency stop, which comes before everything else."""
        if self._loop.asked_to_end is not None and self._loop.asked_to_end[0] == "emergency stop":
            return self._loop.asked_to_end
        stopped, problem = attempt(self._loop.robot.stopped)
        self._send_problem = problem or self._send_problem
        return None if stopped is None else ("emergency stop", stopped)

    def _end_of(self, decision: _Decision, tick: Tick) -> tuple[Ended, str] | None:
        loop = self._loop
        if loop.asked_to_end is not None:
            return loop.asked_to_end
        if loop.recorder is not None and loop.recorder.problem is not None:
            return "fault", f"recording: {loop.recorder.problem}"
        if self._watchdog.overdue(self._held_since_s, tick.now_s):
            return "fault", self._watchdog.worst(f"the robot held too long: {decision.reason}")
        self._solved, _ = attempt(loop.robot.success)
        if self._solved:
            return "success", "the task is solved"
        first_s = self._first_command_s
        if first_s is not None and tick.now_s - first_s >= self._max_seconds:
            return "time", f"{self._max_seconds:g} s are over"
        return None

    def _status(self, decision: _Decision, sent: Float32 | None, tick: Tick) -> Status:
        command, chunk, seen = decision.command, self._chunk, self._seen
        rest = 0.0
        if chunk is not None and len(chunk):
            rest = (chunk.end_s - tick.now_s) / (chunk.end_s - chunk.start_s)
        oldest_s = None if seen is None else min(seen.observation["times"][stream] for stream in self._streams)
        return Status(
            time_s=tick.now_s - self._start_s,
            mode=decision.mode,
            reason=decision.reason,
            paused=self._loop.paused,
            observation_age_s=None if oldest_s is None else tick.now_s - oldest_s,
            number=None if command is None else command.number,
            plan_age_s=None if command is None else tick.now_s - command.captured_s,
            plan_rest=min(max(rest, 0.0), 1.0),
            action=sent,
            faults=self._watchdog.faults,
            timing=self._timing,
        )

    def _timing(self) -> Timing:
        return Timing.of(
            self._ticks,
            self._tally,
            seconds=self._now_s - self._start_s,
            observations=self._sensing.count,
            observation_errors=self._sensing.errors,
            inference_errors=self._errors,
        )


def driven_features(policy: ChunkPolicy, robot: Robot, chunk_hz: float | None) -> Features:
    """What is driven: the robot's features, with the fps of the policy's chunks, and what only the policy knows."""
    own, theirs = robot.features, policy.features
    fps = theirs.fps if chunk_hz is None else chunk_hz
    if not fps > 0:
        raise FeatureMismatch(
            "policy: expected the fps of its actions in its features, got none: nobody knows how fast they are meant. "
            "Say it: --chunk_hz N."
        )
    return replace(
        own,
        fps=fps,
        control_space=own.control_space or theirs.control_space,
        control_type=own.control_type or theirs.control_type,
    )


def refuse_differences(policy: ChunkPolicy, robot: Robot) -> None:
    """Raises FeatureMismatch that names every difference between a policy's features and a robot's.

    Their fps may differ: the policy's is that of its chunks, whatever the rates of sensing and control are.
    """
    there = replace(robot.features, fps=0.0)
    if found := policy.features.differences(there):
        raise FeatureMismatch(
            f"{robot.name}: expected what the policy was made with (here), got (there):\n  "
            + "\n  ".join(found)
            + "\nChange the robot's args, or train anew."
        )
    for camera in policy.required_cameras:
        if camera not in there.cameras:
            raise FeatureMismatch(
                f"{robot.name}: expected the cameras the policy looks at ({', '.join(policy.required_cameras)}), "
                f"got {', '.join(there.cameras) or 'none'}{did_you_mean(camera, there.cameras) or '.'} "
                "Add them to the robot's args."
            )


def _period(name: str, hz: float) -> float:
    if not hz > 0:
        raise ContractError(f"{name}: expected hertz above 0, got {hz}.")
    return 1.0 / hz
