"""Episodes in virtual time: an answer is there when its delay has passed, and meanwhile the environment goes on.

An observation is captured at the time of its step, step / fps. The delay of its inference is drawn, the chunk arrives
that much later, and a controller says at each tick of the control rate what is commanded. Nothing that a controller
does before it wants the next observation depends on what happens in the environment, so all actions until then are
known at once: an evaluation in virtual time is as fast as any, and as repeatable.

What is simplified: an inference begins at a step of the environment, as there are no observations between two; it takes
no time from the loop; and of several commands within a step the newest is executed.

Time begins with the first plan: until it is there the robot rests, so that it arrives at 0. How long it took is told to
the controller, which counts on delays it has seen.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from menura.chunks import ActionChunk, PreviousChunk
from menura.control.controllers.base import TOLERANCE_S, Controller
from menura.control.hold import hold_action
from menura.data.episode import Float32
from menura.errors import ContractError
from menura.evaluation.latency_execution import DelayedExecution
from menura.evaluation.latency_model import LatencyModel
from menura.features import Features
from menura.session import Executor, Row, Session

if TYPE_CHECKING:
    from menura.meta_policy import MetaPolicy
    from menura.served_policy import ServedPolicy

_STREAM = 0x1A7E  # of random numbers: delays are those of the episode's seed, and of nothing else


class LatencySession(Session):
    """`batch_size` episodes in virtual time, each with a controller and delays of its own.

    Args:
        policy: who is asked.
        execution: latency, controller, control rate.
        batch_size: how many episodes run side by side.
        max_episode_steps: of the environment; no plan is longer.
        exact: infer row by row.

    Raises:
        ContractError: actions that cannot be held, or not at this control rate.
    """

    def __init__(
        self,
        policy: MetaPolicy | ServedPolicy,
        execution: DelayedExecution,
        batch_size: int,
        max_episode_steps: int,
        exact: bool = False,
    ) -> None:
        refuse_unheld(policy.features, execution.control_hz)
        self._delayed = execution
        self._max_episode_steps = max_episode_steps
        super().__init__(policy, batch_size, exact=exact)

    def measures(self, row: int, steps: int) -> Mapping[str, float]:
        """Of the row's episode that ended after so many steps: the mean delay in seconds, the share of steps at which
        nothing was meant for the time and the robot held, and the inferences begun."""
        executor = self._rows[row].executor
        assert isinstance(executor, _Delayed)
        return executor.measures(steps)

    def _executor(self, seed: int | None) -> Executor:
        features, execution = self.policy.features, self._delayed
        return _Delayed(
            execution.new_controller(self.policy.n_action_steps),
            execution.latency,
            np.random.default_rng(None if seed is None else [_STREAM, seed]),
            features,
            1 / (execution.control_hz or features.fps),
            self._max_episode_steps,
        )

    def _previous(self, rows: Sequence[Row]) -> list[PreviousChunk | None]:
        return [row.executor.previous() for row in rows if isinstance(row.executor, _Delayed)]

    def _predict(self, obs: Mapping[str, Any], rows: list[Row]) -> list[Float32]:
        for index, row in enumerate(rows):
            if "state" in obs and isinstance(row.executor, _Delayed):
                row.executor.state = np.asarray(obs["state"][index], np.float32)
        return super()._predict(obs, rows)


def refuse_unheld(features: Features, control_hz: float | None) -> None:
    """ContractError where nothing is known that a robot could do while it waits."""
    if features.control_type is None:
        raise ContractError(
            "latency: expected actions that can be held, absolute or differences, got features that do not say which. "
            "Wrap the dataset, wrappers: [{class: DeclareFeatures, args: {control_type: …}}], and train again."
        )
    if not features.fps:
        raise ContractError("latency: expected features that say the policy's rate (fps), got none.")
    if features.control_type == "delta" and control_hz is not None and abs(control_hz - features.fps) > 1e-6:
        raise ContractError(
            f"control_hz: expected the environment's {features.fps:g} Hz for actions that are differences, since its "
            f"step executes one command, got {control_hz:g} Hz. Leave it out."
        )


class _Delayed:
    """One episode: what the environment executes at each of its steps.

    Attributes:
        due: whether the next observation is to be answered.
        state: (D,) of the newest observation; None where there is none.
    """

    def __init__(
        self,
        controller: Controller,
        latency: LatencyModel,
        random: np.random.Generator,
        features: Features,
        control_period_s: float,
        max_episode_steps: int,
    ) -> None:
        controller.begin(features, control_period_s)
        self.due = True
        self.state: Float32 | None = None
        self._controller, self._latency, self._random = controller, latency, random
        self._features, self._control_period_s = features, control_period_s
        self._period_s = 1 / features.fps
        self._max_steps = max_episode_steps
        self._step = 0  # at which the next inference begins, or began
        self._tick = 0  # the next
        self._number = 0  # of the next inference
        self._last: Float32 | None = None
        self._holds = False  # whether that is no command of the controller
        self._plan: Float32 = np.empty((0, features.action_dim), np.float32)
        self._position = 0  # in the plan
        self._delays: list[tuple[int, float]] = []  # (step at which it was captured, seconds)
        self._held: list[bool] = []  # of each step

    def previous(self) -> PreviousChunk | None:
        return self._controller.previous(self._step * self._period_s)

    def receive(self, chunk: Float32) -> None:
        """The answer to the observation of the step that was due: works out all until the next one is wanted."""
        captured_s, delay_s = self._step * self._period_s, self._latency.draw(self._random)
        answer = ActionChunk(np.asarray(chunk, np.float32), captured_s, self._period_s, self._number)
        arrival_s = captured_s + delay_s
        if self._number == 0:  # nothing moved meanwhile: the answer is as good as new, and only its delay is told
            self._controller.expect(delay_s)
            arrival_s = captured_s
        self._number += 1
        self._delays.append((self._step, delay_s))
        self._plan, self._position, self.due = self._until_wanted(answer, arrival_s), 0, False

    def take(self, offsets: tuple[int, ...]) -> Float32:
        """The actions until the next step whose observation is needed: by the next inference, or perhaps by one after
        it, whose step is not known yet."""
        start, length = self._position, len(self._plan)
        self._position = max(start + 1, length + offsets[0])
        self.due = self._position == length
        return self._plan[start : self._position]

    def measures(self, steps: int) -> Mapping[str, float]:
        delays = [delay for step, delay in self._delays if step < max(steps, 1)]
        held = self._held[:steps]
        return {
            "delay_s": float(np.mean(delays)),
            "held_share": float(np.mean(held)) if held else 0.0,
            "inferences": float(len(delays)),
        }

    def _until_wanted(self, answer: ActionChunk, arrival_s: float) -> Float32:
        """(n, A), n > 0: what is executed from this step on until an inference begins again, when this is over."""
        actions: list[Float32] = []
        coming: ActionChunk | None = answer
        while True:
            now_s = self._step * self._period_s
            coming = self._ticks(now_s - TOLERANCE_S, coming, arrival_s)
            if coming is not None and arrival_s <= now_s + TOLERANCE_S:
                self._controller.receive(coming, arrival_s)
                coming = None
            if actions and coming is None and self._controller.wants(now_s):
                break
            coming = self._ticks(now_s + TOLERANCE_S, coming, arrival_s)
            assert self._last is not None, "there is a tick at the first step"
            actions.append(self._last)
            self._held.append(self._holds)
            self._step += 1
            if self._step >= self._max_steps:
                break
        return np.stack(actions)

    def _ticks(self, until_s: float, coming: ActionChunk | None, arrival_s: float) -> ActionChunk | None:
        """Commands at all ticks up to then; the answer, while it has not arrived."""
        while (now_s := self._tick * self._control_period_s) <= until_s:
            if coming is not None and arrival_s <= now_s + TOLERANCE_S:
                self._controller.receive(coming, arrival_s)
                coming = None
            self._command(now_s)
            self._tick += 1
        return coming

    def _command(self, now_s: float) -> None:
        command = self._controller.command(now_s)
        self._holds = command is None
        action = hold_action(self._features, self._last, self.state) if command is None else command.action
        if action is None:
            raise ContractError(
                f"{type(self._controller).__name__}: expected a command at the first tick, when the first plan is "
                "there, got none, and the state does not say where the robot is."
            )
        self._last = action
