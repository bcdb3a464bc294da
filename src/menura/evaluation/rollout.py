"""Rollouts: environments in processes, one batched policy call a round, the same outcome for any number of processes.

`num_envs` slots are split into two groups that take turns: while one steps, actions are predicted for the other. A
group's round is: gather a reply of each of its busy slots, give the finished ones the next episodes in order of slot,
predict a plan for all others in one batch, hand both out. So which rows meet in a batch depends on `num_envs` alone.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol, runtime_checkable

import numpy as np

from menura.data.episode import Float32
from menura.envs.base import Observation
from menura.errors import ContractError
from menura.evaluation.messages import Begin, Execute, Job
from menura.evaluation.pool import WorkerPool
from menura.evaluation.results import EpisodeResult


class PlanSession(Protocol):
    """What rollouts need of a `menura.meta_policy.Session`; one row a slot."""

    def reset(self, rows: Sequence[int] | None = None, seeds: Sequence[int] | None = None) -> None: ...

    def plan(self, obs: Mapping[str, Any], rows: Sequence[int]) -> list[Float32]: ...


@runtime_checkable
class MeasuringSession(Protocol):
    """A session that measures something itself."""

    def measures(self, row: int, steps: int) -> Mapping[str, float]:
        """Of the row's episode, which ended after so many steps."""
        ...


def rollouts(
    session: PlanSession, pool: WorkerPool, episodes: Iterable[Begin], num_envs: int
) -> Generator[EpisodeResult, None, None]:
    """Runs the episodes and yields each as it finishes, in an order that depends on `num_envs` alone.

    Args:
        session: of `num_envs` rows.
        pool: told already how episodes are conducted.
        episodes: what is to be run, begun in this order.
        num_envs: slots, at least 1.

    Whoever has seen enough closes it: what is still running is dropped, and the pool can be used again.

    Raises:
        ContractError: the policy answered a wrong shape or numbers that are not finite.
        EnvironmentFailure: an environment or its process failed; what was yielded stands.
    """
    waiting = deque(episodes)
    half = (num_envs + 1) // 2
    groups = [_Group(session, waiting, range(half)), _Group(session, waiting, range(half, num_envs))]
    for group in groups:
        pool.send(group.first_jobs())
    outstanding = deque(group for group in groups if group.jobs)  # whose replies are to come, in this order
    try:
        while outstanding:
            group = outstanding.popleft()
            replies = pool.receive(group.jobs)
            yield from (
                _measured(session, slot, reply) for slot, reply in replies.items() if isinstance(reply, EpisodeResult)
            )
            pool.send(group.next_jobs(replies))
            if group.jobs:
                outstanding.append(group)
    except GeneratorExit:  # enough has been seen: what was handed out is answered, and the processes are free again
        for group in outstanding:
            pool.receive(group.jobs)
        raise


def _measured(session: PlanSession, slot: int, episode: EpisodeResult) -> EpisodeResult:
    if not isinstance(session, MeasuringSession):
        return episode
    return replace(episode, measures={**episode.measures, **session.measures(slot, episode.steps)})


class _Group:
    """Slots whose plans are made together. `jobs` is what was handed out last: empty when all episodes are done."""

    def __init__(self, session: PlanSession, waiting: deque[Begin], slots: Iterable[int]) -> None:
        self._session = session
        self._waiting = waiting
        self._slots = slots
        self._running: dict[int, Begin] = {}
        self.jobs: dict[int, Job] = {}

    def first_jobs(self) -> dict[int, Job]:
        self.jobs = self._begin(self._slots)
        return self.jobs

    def next_jobs(self, replies: Mapping[int, Observation | EpisodeResult]) -> dict[int, Job]:
        observations = {slot: reply for slot, reply in replies.items() if not isinstance(reply, EpisodeResult)}
        self.jobs = self._begin(slot for slot in replies if slot not in observations)
        if observations:
            rows = list(observations)
            plans = self._session.plan(batch(list(observations.values())), rows)
            for slot, actions in zip(rows, plans, strict=True):
                self.jobs[slot] = Execute(self._checked(actions, self._running[slot]))
        return self.jobs

    def _begin(self, slots: Iterable[int]) -> dict[int, Job]:
        begun: dict[int, Job] = {}
        for slot in slots:
            if self._waiting:
                episode = self._waiting.popleft()
                self._running[slot] = episode
                self._session.reset([slot], [episode.seed])
                begun[slot] = episode
        return begun

    @staticmethod
    def _checked(actions: Float32, episode: Begin) -> Float32:
        actions = np.asarray(actions, dtype=np.float32)
        if actions.ndim != 2 or len(actions) == 0:
            raise ContractError(
                f"episode {episode.index}: expected of the policy a plan of shape (n, A), n > 0, got {actions.shape}."
            )
        if not np.isfinite(actions).all():
            raise ContractError(
                f"episode {episode.index} (seed {episode.seed}): expected finite actions of the policy, got "
                f"{actions[~np.isfinite(actions).all(axis=1)][0].tolist()}. Its training may have diverged."
            )
        return actions


def batch(observations: Sequence[Observation]) -> dict[str, Any]:
    """Observations of B environments -> one: state (B, …), images {camera: (B, …)}, task [B]."""
    first = observations[0]
    return {
        "state": np.stack([observation["state"] for observation in observations]),
        "images": {
            camera: np.stack([observation["images"][camera] for observation in observations])
            for camera in first["images"]
        },
        "task": [observation["task"] for observation in observations],
    }
