"""One episode of the control loop, tick by tick. Torch-free."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from menura.chunks import ActionChunk
from menura.control.controllers.base import Command
from menura.control.planning import NoPolicy, request_of
from menura.control.sensing import Seen, Sensing
from menura.control.status import ControlledEpisode, Ended, Mode, Status
from menura.control.timing import Tally, Tick, Ticks, Timing
from menura.control.watchdog import OBSERVATION, POLICY, RECORDING, ROBOT, TELEOPERATOR, Watchdog, attempt
from menura.errors import ContractError

if TYPE_CHECKING:
    from menura.control.loop import ControlLoop

Float32 = NDArray[np.float32]

#: After a request that failed, the next one comes so much later (s), twice as much each time, up to the second number.
_RETRY_S, _LONGEST_RETRY_S = 0.05, 1.0


@dataclass(frozen=True)
class _Decision:
    """What is to be done at a tick; without an action the robot holds, for the reason."""

    mode: Mode
    action: Float32 | None = None
    command: Command | None = None
    reason: str = ""


class Episode:
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
        self._reconnects = loop.planner.reconnects  # until it began
        self._chunk: ActionChunk | None = None
        self._asked_about_s = -np.inf  # when the observation of the last request was captured
        self._retry_s = -np.inf
        self._must_plan_anew = True
        self._solved: bool | None = None
        self._stopped = False  # by its own emergency stop
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
        """The last command of an episode, however it ended; none for a robot that has stopped by itself.

        Where that one stands nobody knows, and what it is told now it might do when it is released.
        """
        if self._first_command_s is None or self._stopped:
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
            self._retry_s = tick.now_s + min(_RETRY_S * 2.0 ** (self._failures - 1), _LONGEST_RETRY_S)
            return
        self._failures = 0
        self._tally.inference_ms.add(1e3 * answer.took_s)
        self._tally.delay_ms.add(1e3 * (tick.now_s - answer.chunk.start_s))
        self._chunk = self._in_time(answer.chunk, tick)
        controller = self._loop.controller
        refused = controller.refused.copy()
        controller.receive(self._chunk, tick.due_s)
        self._tally.refused.update(controller.refused - refused)

    def _in_time(self, chunk: ActionChunk, tick: Tick) -> ActionChunk:
        """The chunk; while the robot rests, as of now: nothing has moved since its observation, and no action is past.

        One that is older than any plan may be is left to its own time.
        """
        delay_s = tick.due_s - chunk.start_s
        if self._first_command_s is not None or not 0 < delay_s <= self._loop.safety.max_plan_age_s:
            return chunk
        self._loop.controller.expect(delay_s)
        return replace(chunk, start_s=tick.due_s)

    # What is done

    def _decide(self, tick: Tick) -> _Decision:
        if self._seen is None or self._stale is not None:
            self._must_plan_anew = True
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
        if isinstance(self._loop.policy, NoPolicy):
            return self._holding("nobody drives")
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
            else:
                attempt(lambda: loop.safety.begin(self._state()))  # it was never sent anything
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
        self._stopped = stopped is not None
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
        over, _ = attempt(loop.robot.over)
        return None if over is None else ("over", over)

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
            reconnects=self._loop.planner.reconnects - self._reconnects,
        )
