"""Attempts at a demonstration, one a seed, made in processes and handed out in the order of their seeds."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
from collections.abc import Generator, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from multiprocessing.connection import Connection, Pipe, wait
from pathlib import Path
from typing import Any

from menura.data.episode import Episode
from menura.envs.make import make_env, make_expert
from menura.envs.recording import Actor, largest_action_step, record
from menura.errors import EnvironmentFailure, MenuraError

_LAUNCH = "import sys; from menura.evaluation.recorders import main; main(int(sys.argv[1]))"
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
    """

    env: Mapping[str, Any]
    expert: Mapping[str, Any] | None
    policy: str | None
    noise: float
    extra_steps: int
    project: Path | None = None


@dataclass(frozen=True)
class Attempt:
    """An episode and the largest change of its actions from one step to the next."""

    episode: Episode
    largest_step: float


class Recorder:
    """Makes attempts in this process."""

    def __init__(self, recording: Recording) -> None:
        self._recording = recording
        self._env = make_env(recording.env, recording.project)
        self._actor = _make_actor(recording)

    def attempts(self, first_seed: int) -> Iterator[Attempt]:
        return map(self.attempt, itertools.count(first_seed))

    def attempt(self, seed: int) -> Attempt:
        recording = self._recording
        episode = record(self._env, self._actor, seed=seed, noise=recording.noise, extra_steps=recording.extra_steps)
        return Attempt(episode, largest_action_step(episode, self._env.noisy_actions))

    def close(self) -> None:
        self._env.close()


def attempts(recording: Recording, first_seed: int, num_workers: int) -> Generator[Attempt, None, None]:
    """Attempts with the seeds `first_seed`, `first_seed + 1`, …, without end; the same for any number of processes."""
    with closing(Recorder(recording) if num_workers == 1 else _Pool(recording, num_workers)) as maker:
        yield from maker.attempts(first_seed)


class _Pool:
    """Fresh interpreters, no copies: OpenGL does not survive a fork, and a user's script is not run again."""

    def __init__(self, recording: Recording, num_workers: int) -> None:
        self._processes: list[subprocess.Popen[bytes]] = []
        self._connections: list[Connection] = []
        environment = {
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path),
        }
        for _ in range(num_workers):
            ours, theirs = Pipe()
            with theirs:
                process = subprocess.Popen(
                    [sys.executable, "-c", _LAUNCH, str(theirs.fileno())],
                    env=environment,
                    pass_fds=(theirs.fileno(),),
                    stdin=subprocess.DEVNULL,
                )
            self._processes.append(process)
            self._connections.append(ours)
            ours.send(recording)

    def attempts(self, first_seed: int) -> Iterator[Attempt]:
        finished: dict[int, Attempt] = {}
        idle = list(self._connections)
        running: dict[Connection, int] = {}
        given = wanted = first_seed
        while True:
            while idle and given < wanted + _AHEAD * len(self._connections):
                connection = idle.pop()
                connection.send(given)
                running[connection] = given
                given += 1
            ready = wait(list(running))
            for connection in [each for each in running if each in ready]:
                finished[running.pop(connection)] = self._receive(connection)
                idle.append(connection)
            while wanted in finished:
                yield finished.pop(wanted)
                wanted += 1

    def _receive(self, connection: Connection) -> Attempt:
        try:
            reply = connection.recv()
        except (EOFError, ConnectionResetError):
            process = self._processes[self._connections.index(connection)]
            raise EnvironmentFailure(
                f"recording process: expected it to run on, got exit code {process.wait()}; its last words are above. "
                "Recorded episodes are kept; collect again to go on."
            ) from None
        if isinstance(reply, MenuraError):
            raise reply
        attempt: Attempt = reply
        return attempt

    def close(self) -> None:
        for process, connection in zip(self._processes, self._connections, strict=True):
            process.kill()  # it has nothing to save
            process.wait()
            connection.close()


def main(descriptor: int) -> None:
    """A recording process; `descriptor` is its end of the connection."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    connection = Connection(descriptor)
    try:
        recorder = Recorder(connection.recv())
        while True:
            connection.send(recorder.attempt(connection.recv()))
    except (EOFError, BrokenPipeError):
        return  # the parent is gone
    except MenuraError as error:
        connection.send(error)


def _make_actor(recording: Recording) -> Actor:
    if recording.policy is not None:
        from menura.evaluation.policy_actor import PolicyActor

        return PolicyActor(recording.policy, recording.project)
    assert recording.expert is not None
    actor: Actor = make_expert(recording.expert, recording.project)
    return actor
