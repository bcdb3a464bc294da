"""What several evaluations have in common: the policy, the processes, the table of what is going on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager, nullcontext
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from menura.config import EnvConfig
from menura.evaluation.pool import WorkerPool
from menura.evaluation.progress import EpisodeTable
from menura.evaluation.request import run_of
from menura.evaluation.runner import as_mapping, open_pool
from menura.evaluation.subjects import AUDITS, AuditActions

if TYPE_CHECKING:
    from menura.evaluation.ray_cells import RayCells
    from menura.meta_policy import MetaPolicy
    from menura.served_policy import ServedPolicy


class Shared:
    """What several evaluations share: the policy, loaded once; the processes; the table of what is going on."""

    def __init__(self, table: EpisodeTable) -> None:
        self.table = table
        self.title: str | None = None  # of the evaluation that runs, in the table
        self.later: Sequence[Mapping[str, Any]] = ()  # environments of the evaluations that follow it
        self._stack = ExitStack()
        self._policy: tuple[Any, Any] | None = None
        self._pool: WorkerPool | RayCells | None = None
        self._blind: dict[Path, MetaPolicy] = {}

    def policy(self, model: str | Path | MetaPolicy | AuditActions, **loading: Any) -> Any:
        """The policy that `model` names; a connection to a server is closed at the end."""
        if self._policy is None or self._policy[0] != (model, loading):
            self._policy = (model, loading), self._stack.enter_context(_opened(model, **loading))
            if (run := run_of(model)) is not None:
                self._register(self._policy[1], run, loading)
        return self._policy[1]

    def blind(self, path: Path, **loading: Any) -> MetaPolicy:
        """The blind baseline that lies there."""
        if path not in self._blind:
            self._blind[path] = policy = _load(path, **loading)
            self._register(policy, path, loading)
        return self._blind[path]

    def pool(
        self,
        env: EnvConfig | Mapping[str, Any],
        num_envs: int,
        episodes: int,
        num_workers: int | None,
        project: Path | None,
        ray: str | None,
    ) -> WorkerPool | RayCells:
        """The processes, opened for the first evaluation, here or on a cluster; before any policy is loaded."""
        if self._pool is None and ray is not None:
            from menura.evaluation.ray_cells import ray_cells

            self._pool = self._stack.enter_context(ray_cells(ray, as_mapping(env), project))
        elif self._pool is None:
            slots = min(num_envs, episodes)
            pool = open_pool(env, num_envs=slots, num_workers=num_workers, project=project)
            self._pool = self._stack.enter_context(pool)
        if not isinstance(self._pool, WorkerPool):
            self._pool.expect(self.later)
        return self._pool

    def _register(self, policy: Any, path: Path, loading: Mapping[str, Any]) -> None:
        """The workers of a cluster load it themselves."""
        if self._pool is not None and not isinstance(self._pool, WorkerPool):
            self._pool.register(policy.checkpoint_hash, path, loading)

    def __enter__(self) -> Shared:
        self._stack.enter_context(self.table)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stack.close()


@contextmanager
def opened_policy(model: str | Path | MetaPolicy | ServedPolicy, **loading: Any) -> Iterator[MetaPolicy | ServedPolicy]:
    """The policy that `model` names, or is; a connection to a server that is made here is closed at the end."""
    if not isinstance(model, (str, Path)):
        yield model
        return
    from menura.meta_policy import MetaPolicy, ServedPolicy

    policy = MetaPolicy.from_pretrained(model, **loading)
    with closing(policy) if isinstance(policy, ServedPolicy) else nullcontext():
        yield policy


@contextmanager
def _opened(
    model: str | Path | MetaPolicy | AuditActions, **loading: Any
) -> Iterator[MetaPolicy | ServedPolicy | AuditActions]:
    """What is evaluated."""
    if isinstance(model, AuditActions):
        yield model
    elif isinstance(model, (str, Path)) and model in AUDITS:
        yield AUDITS[str(model)]()
    else:
        with opened_policy(model, **loading) as policy:
            yield policy


def _load(path: Path, **loading: Any) -> MetaPolicy:
    from menura.meta_policy import MetaPolicy

    return MetaPolicy.from_pretrained(path, **loading)
