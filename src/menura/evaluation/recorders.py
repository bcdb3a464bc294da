"""Attempts at a demonstration, one a seed, made in processes and handed out in the order of their seeds."""

from __future__ import annotations

import itertools
from collections.abc import Generator, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from menura.data.episode import Episode
from menura.envs.base import SimEnv
from menura.envs.make import make_env, make_expert
from menura.envs.recording import Actor, Recovery, largest_action_step, record
from menura.errors import EnvironmentFailure
from menura.evaluation.child import Child, Parent, attend
from menura.user_code import naming_users_line

_AHEAD = 3  # attempts a process may be ahead of the one that is waited for: bounds the memory


@dataclass(frozen=True)
class Recording:
    """How attempts are made.

    Attributes:
        env: `{"class": …, "args": …}`.
        expert: `{"class": …, "args": …}`, or None when a policy acts.
        policy: a checkpoint, or None when an expert acts.
        noise: see `menura.envs.recording.record`.
        extra_steps: steps recorded past the first success.
        project: where a user's classes are looked for.
        dataset: whose statistics hold, of a policy trained on several.
        recovery: fields of a `menura.envs.recording.Recovery`; None for no such episodes.
        stride: from one seed to the next.
    """

    env: Mapping[str, Any]
    expert: Mapping[str, Any] | None
    policy: str | None
    noise: float
    extra_steps: int
    project: Path | None = None
    dataset: str | None = None
    recovery: Mapping[str, Any] | None = None
    stride: int = 1


@dataclass(frozen=True)
class Attempt:
    """An episode and the largest change of its actions from one step to the next."""

    episode: Episode
    largest_step: float


class Recorder:
    """Makes attempts in this process."""

    def __init__(self, recording: Recording) -> None:
        self._recording = recording
        self._project = recording.project or Path.cwd()
        with naming_users_line(self._project, EnvironmentFailure):
            self._env = make_env(recording.env, recording.project)
            self._actor = _make_actor(recording, self._env)

    def attempts(self, first_seed: int) -> Iterator[Attempt]:
        return map(self.attempt, itertools.count(first_seed, self._recording.stride))

    def attempt(self, seed: int) -> Attempt:
        recording = self._recording
        env, noise, extra_steps = self._env, recording.noise, recording.extra_steps
        recovery = None if recording.recovery is None else Recovery(**recording.recovery)
        with naming_users_line(self._project, EnvironmentFailure, lambda: f"in the attempt of seed {seed}"):
            episode = record(env, self._actor, seed=seed, noise=noise, extra_steps=extra_steps, recovery=recovery)
        return Attempt(episode, largest_action_step(episode, env.noisy_actions))

    def close(self) -> None:
        self._env.close()


def attempts(recording: Recording, first_seed: int, num_workers: int) -> Generator[Attempt, None, None]:
    """Attempts, one a seed from `first_seed` on, without end; the same for any number of processes."""
    with closing(Recorder(recording) if num_workers == 1 else _Pool(recording, num_workers)) as maker:
        yield from maker.attempts(first_seed)


class _Pool:
    """Makes attempts in several processes."""

    def __init__(self, recording: Recording, num_workers: int) -> None:
        names = [f"recording process {number}" for number in range(num_workers)]
        self._children = [Child("menura.evaluation.recorders", name, recording) for name in names]
        self._stride = recording.stride

    def attempts(self, first_seed: int) -> Iterator[Attempt]:
        finished: dict[int, Attempt] = {}
        idle = list(self._children)
        running: dict[Child, int] = {}
        given = wanted = first_seed
        while True:
            while idle and given < wanted + _AHEAD * len(self._children) * self._stride:
                child = idle.pop()
                child.send(given)
                running[child] = given
                given += self._stride
            for child in Child.first_ready(running):
                finished[running.pop(child)] = child.receive()
                idle.append(child)
            while wanted in finished:
                yield finished.pop(wanted)
                wanted += self._stride

    def close(self) -> None:
        for child in self._children:
            child.dismiss()
        for child in self._children:
            child.end()


def serve(parent: Parent) -> None:
    """A recording process: a Recording comes first, then seeds, each answered by its Attempt."""
    recorder = Recorder(parent.receive())
    while True:
        parent.answer(recorder.attempt(parent.receive()))


def main(descriptor: int) -> None:
    """The process; `descriptor` is its end of the connection."""
    attend(descriptor, serve)


def _make_actor(recording: Recording, env: SimEnv) -> Actor:
    if recording.policy is not None:
        from menura.evaluation.policy_actor import PolicyActor

        return PolicyActor(recording.policy, recording.project, recording.dataset)
    assert recording.expert is not None
    actor: Actor = make_expert(recording.expert, recording.project, env)
    return actor
