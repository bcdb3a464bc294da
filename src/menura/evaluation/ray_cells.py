"""Episodes on a Ray cluster: blocks of consecutive seeds, each run by whoever is free. Ray is imported here alone.

A block is `num_envs` episodes, so what meets in a batch of the policy depends on `num_envs` and not on the cluster. A
block whose worker is lost is run again; what was finished has already come back and is kept. Of several tasks the next
ones' blocks are begun as soon as a CPU has nothing else to do.
"""

from __future__ import annotations

import os
import sys
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from menura.data.ray_workers import fetched, ray_cluster
from menura.errors import ConfigError, EnvironmentFailure
from menura.evaluation.messages import Begin, Conduct, Description, Setup
from menura.evaluation.pool import WorkerPool
from menura.evaluation.results import EpisodeResult
from menura.evaluation.rollout import rollouts
from menura.evaluation.subjects import AuditActions, PolicySubject, Subject

_AHEAD = 2  # blocks under way or waiting, for each CPU of the cluster
_TRIES = 10  # of a block; each lost worker costs one


@dataclass(frozen=True)
class _Source:
    """How a worker gets what is evaluated: it loads a policy itself, and is sent anything else."""

    path: str | None
    loading: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    subject: AuditActions | None = None

    def load(self) -> Subject:
        if self.subject is not None:
            return self.subject
        from menura.meta_policy import MetaPolicy

        assert self.path is not None
        return PolicySubject(MetaPolicy.from_pretrained(self.path, **self.loading), **self.settings)


@dataclass(frozen=True)
class _Block:
    """What is to be run, and where its modules and relative paths are found."""

    setup: Setup
    conduct: Conduct
    source: _Source
    episodes: tuple[Begin, ...]
    working_directory: str
    path: tuple[str, ...]


class RayCells:
    """Takes the place of a `WorkerPool`: `run_episodes` runs its episodes here. See `ray_cells`."""

    def __init__(self, ray: Any, size: int, env: Mapping[str, Any], project: Path | None) -> None:
        self._ray = ray
        self.size = size
        self._setup = Setup(dict(env), project)
        self._sources: dict[str, tuple[str, Mapping[str, Any]]] = {}
        self._audits: dict[str, AuditActions] = {}
        self._conduct: Conduct | None = None
        self._later: tuple[dict[str, Any], ...] = ()
        self._begun: list[tuple[_Block, Any]] = []  # before their turn

    def register(self, hash: str | None, path: str | Path, loading: Mapping[str, Any]) -> None:
        """A policy of this hash is loaded from `path` by each worker."""
        self._sources[str(hash)] = str(path), loading

    @property
    def env(self) -> dict[str, Any]:
        return self._setup.env

    def change(self, env: Mapping[str, Any], perturbation: Mapping[str, float] | None = None) -> None:
        """Another environment, or a perturbed one, from now on."""
        self._setup = replace(self._setup, env=dict(env), perturbation=dict(perturbation or {}))

    def expect(self, later: Sequence[Mapping[str, Any]]) -> None:
        """Environments in which the same episodes will be run afterwards."""
        self._later = tuple(map(dict, later))

    def describe(self, film: bool = False) -> Description:
        """What the environment says of itself on one of the cluster's machines."""
        remote = self._ray.remote(num_cpus=1, max_retries=_TRIES)(_describe)
        description: Description = fetched(self._ray, remote.remote(self._setup, os.getcwd(), tuple(sys.path)), _lost)
        return replace(description, undrawn="On a cluster none are filmed." if film else None)

    def conduct(self, conduct: Conduct) -> None:
        """How the episodes from now on are run."""
        self._conduct = conduct

    def rollouts(
        self, subject: Subject, episodes: Sequence[Begin], num_envs: int
    ) -> Generator[EpisodeResult, None, None]:
        """Runs the episodes and yields each when its block is finished."""
        source = self._source(subject)
        blocks = self._blocks(self._setup, source, episodes, num_envs)
        self._drop(lambda b: (b.setup, b.source) == (self._setup, source) and b not in blocks)  # begun in vain
        later = deque(
            block
            for env in self._later
            for block in self._blocks(replace(self._setup, env=env), source, episodes, num_envs)
        )
        ahead = _AHEAD * self.size

        def spare(places: int) -> None:
            while later and len(self._begun) < places:
                block = later.popleft()
                if all(block != begun for begun, _ in self._begun):
                    self._begun.append((block, self._start(block)))

        try:
            yield from in_turn(blocks, self._begin, self._first_done, self._cancel, ahead, spare)
        finally:
            self._drop(lambda block: block in blocks)

    def close(self) -> None:
        """Cancels what was begun before its turn, which never came."""
        self._drop(lambda block: True)

    def _blocks(self, setup: Setup, source: _Source, episodes: Sequence[Begin], num_envs: int) -> list[_Block]:
        assert self._conduct is not None
        place = os.getcwd(), tuple(sys.path)
        return [
            _Block(setup, self._conduct, source, tuple(episodes[first : first + num_envs]), *place)
            for first in range(0, len(episodes), num_envs)
        ]

    def _begin(self, block: _Block) -> Any:
        for place, (begun, reference) in enumerate(self._begun):
            if begun == block:
                del self._begun[place]
                return reference
        return self._start(block)

    def _start(self, block: _Block) -> Any:
        return self._ray.remote(num_cpus=1, max_retries=_TRIES)(_run).remote(block)

    def _drop(self, those: Callable[[_Block], bool]) -> None:
        for block, reference in self._begun:
            if those(block):
                self._cancel(reference)
        self._begun = [(block, reference) for block, reference in self._begun if not those(block)]

    def _source(self, subject: Subject) -> _Source:
        if isinstance(subject, AuditActions):  # those of one rule are one source
            return _Source(None, subject=self._audits.setdefault(subject.rule, subject))
        known = self._sources.get(str(subject.identity["hash"]))
        if known is None or not isinstance(subject, PolicySubject):
            raise ConfigError(
                f"ray: expected a policy that each worker can load by its path, got {subject.identity['name']}. "
                "Save it, and give the directory."
            )
        return _Source(*known, settings=subject.settings)

    def _first_done(self, waiting: Sequence[Any]) -> tuple[Any, Any]:
        done, _ = self._ray.wait(list(waiting), num_returns=1)
        return done[0], fetched(self._ray, done[0], _lost)

    def _cancel(self, reference: Any) -> None:
        self._ray.cancel(reference, force=True)


def _lost(error: Exception) -> EnvironmentFailure:
    return EnvironmentFailure(
        f"ray: expected a block of episodes to be finished within {_TRIES} tries, got {error}. "
        "What is finished is kept; go on with resume."
    )


def in_turn(
    blocks: Sequence[Any],
    begin: Callable[[Any], Any],
    first_done: Callable[[Sequence[Any]], tuple[Any, Sequence[EpisodeResult]]],
    cancel: Callable[[Any], None],
    ahead: int,
    spare: Callable[[int], None] = lambda places: None,
) -> Generator[EpisodeResult, None, None]:
    """Hands out blocks, `ahead` at a time, and yields the episodes of each done; closed, it cancels the rest.

    `spare` is told how many places are left when all blocks are handed out.
    """
    waiting = deque(blocks)
    running: list[Any] = []
    try:
        while waiting or running:
            while waiting and len(running) < ahead:
                running.append(begin(waiting.popleft()))
            spare(ahead - len(running))
            done, episodes = first_done(running)
            running.remove(done)
            yield from episodes
    finally:
        for reference in running:
            cancel(reference)


@contextmanager
def ray_cells(address: str, env: Mapping[str, Any], project: Path | None = None) -> Iterator[RayCells]:
    """The cluster at `address` (`auto`, `host:port`, `ray://…`; `local` starts one on this machine).

    Raises:
        DataError: Ray is not installed, or the cluster does not answer.
    """
    before = os.environ.get("RAY_ADDRESS")
    os.environ["RAY_ADDRESS"] = address
    try:
        with ray_cluster() as cluster, closing(RayCells(cluster.ray, cluster.count, env, project)) as cells:
            yield cells
    finally:
        if before is None:
            os.environ.pop("RAY_ADDRESS", None)
        else:
            os.environ["RAY_ADDRESS"] = before


# In a process of the cluster, which keeps its policy and its environments from block to block.

_kept: dict[str, Any] = {}


def _describe(setup: Setup, working_directory: str, path: Sequence[str]) -> Description:
    _settle(working_directory, path)
    return _pool(setup).describe()


def _run(block: _Block) -> list[EpisodeResult]:
    _settle(block.working_directory, block.path)
    if _kept.get("source") != block.source:
        _kept.update(source=block.source, subject=block.source.load())
    subject: Subject = _kept["subject"]
    pool = _pool(block.setup)
    environment = pool.describe()
    pool.conduct(block.conduct)
    slots = len(block.episodes)
    return list(rollouts(subject.session(slots, environment), pool, block.episodes, slots))


def _pool(setup: Setup) -> WorkerPool:
    """One process that steps, beside this one that asks the policy."""
    pool: WorkerPool | None = _kept.get("pool")
    if pool is None or _kept["project"] != setup.project:
        if pool is not None:
            pool.close()
        pool = WorkerPool(setup.env, 1, setup.project)
        _kept.update(pool=pool, project=setup.project)
    pool.change(setup.env, setup.perturbation)
    return pool


def _settle(working_directory: str, path: Sequence[str]) -> None:
    if Path(working_directory).is_dir():  # paths may be relative
        os.chdir(working_directory)
    sys.path += [place for place in path if place not in sys.path]
