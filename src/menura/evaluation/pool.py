"""The processes that step environments, seen from the one that holds the policy. Torch-free."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any

from menura.evaluation.child import Child
from menura.evaluation.messages import Conduct, Describe, Description, Execute, Job, Reply, Setup

#: Bytes of actions that the system keeps for a process that does not read them yet, whatever else is under way.
_ALWAYS_FITS = 32 * 1024


class WorkerPool:
    """`num_workers` processes that share the slots: slot i lives in process i % num_workers.

    They end with this process, however it ends.
    """

    def __init__(self, env: Mapping[str, Any], num_workers: int, project: Path | None = None) -> None:
        self._setup = Setup(dict(env), project)
        self._workers: list[Child] = []
        self._owed = [0] * num_workers  # replies to batches of jobs
        self._taken: list[deque[Any]] = [deque() for _ in range(num_workers)]  # those that were taken in early
        for number in range(num_workers):
            self._workers.append(Child("menura.evaluation.worker", f"environment process {number}", self._setup))

    @property
    def size(self) -> int:
        return len(self._workers)

    @property
    def pids(self) -> list[int]:
        return [worker.pid for worker in self._workers]

    def change(self, env: Mapping[str, Any], perturbation: Mapping[str, float] | None = None) -> None:
        """Another environment, or a perturbed one, in the same processes. No episode may be running."""
        setup = replace(self._setup, env=dict(env), perturbation=dict(perturbation or {}))
        if setup != self._setup:
            self._setup = setup
            for worker in self._workers:
                worker.send(setup)

    @property
    def env(self) -> dict[str, Any]:
        """The environment `{"class": …, "args": …}` that its processes make now."""
        return self._setup.env

    def describe(self, film: bool = False) -> Description:
        """What the environment says of itself; with `film` also whether it can be drawn."""
        self._workers[0].send(Describe(slot=0, film=film))
        description: Description = self._workers[0].receive()
        return description

    def conduct(self, conduct: Conduct) -> None:
        """How the episodes from now on are run. None may be running."""
        for worker in self._workers:
            worker.send(conduct)

    def send(self, jobs: Mapping[int, Job]) -> None:
        """Hands out one batch of jobs, `{slot: job}`. Several batches may be under way."""
        for number, worker in enumerate(self._workers):
            share = {slot: job for slot, job in jobs.items() if slot % self.size == number}
            if share:
                if sum(job.actions.nbytes for job in share.values() if isinstance(job, Execute)) > _ALWAYS_FITS:
                    self._take_in(number)
                worker.send(share)
                self._owed[number] += 1

    def receive(self, jobs: Mapping[int, Job]) -> dict[int, Reply]:
        """The replies to the oldest batch not yet answered, which was `jobs`; by slot, in order."""
        replies: dict[int, Reply] = {}
        for number in sorted({slot % self.size for slot in jobs}):
            replies.update(self._taken[number].popleft() if self._taken[number] else self._receive(number))
        return dict(sorted(replies.items()))

    def _receive(self, number: int) -> Any:
        self._owed[number] -= 1
        return self._workers[number].receive()

    def _take_in(self, number: int) -> None:
        """Reads all that a process owes: busy sending it, it would not read, and a long message would not pass."""
        while self._owed[number]:
            self._taken[number].append(self._receive(number))

    def close(self) -> None:
        for worker in self._workers:
            worker.dismiss()
        for worker in self._workers:
            worker.end()

    def __enter__(self) -> WorkerPool:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
