"""The environment of a task, kept open between the rollouts of a training."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType

from transformers import PreTrainedModel

from menura.config import ResolvedTask
from menura.config.schema import RolloutsConfig
from menura.evaluation.pool import WorkerPool
from menura.evaluation.results import Results
from menura.evaluation.runner import open_pool, run_episodes
from menura.evaluation.subjects import PolicySubject
from menura.meta_policy import Execution, MetaPolicy, TemporalEnsemble
from menura.processing.processor import Processor

#: Added to the evaluation's seed. The best checkpoint is chosen by these episodes; were they those that the final
#: evaluation runs, its success rate would be the maximum of many tries on the very same episodes: too high.
SEED_OFFSET = 500_000_000


class Validation:
    """Rolls a policy out in the task's environment, always the same validation episodes; a context manager.

    The worker processes start with the first rollout. Of a policy trained on several datasets, the statistics of
    `evaluation.dataset` hold.
    """

    def __init__(self, task: ResolvedTask, rollouts: RolloutsConfig, processor: Processor, run: Path) -> None:
        self._task = task
        self._rollouts = rollouts
        self._processor = processor
        self._directory = run / "rollouts"
        self._pool: WorkerPool | None = None

    def __call__(self, policy: PreTrainedModel, step: int) -> Results:
        """The results after `step`, also written to `rollouts/step-<step>/` of the run."""
        evaluation = self._task.config.evaluation
        execution: Execution | None = None
        if evaluation.execution == "temporal_ensemble":
            execution = TemporalEnsemble(evaluation.ensemble_coefficient)
        meta = MetaPolicy(policy, self._processor, dataset=evaluation.dataset)
        return run_episodes(
            PolicySubject(meta, execution, evaluation.exact),
            self._opened(),
            seeds=range(first := evaluation.seed + SEED_OFFSET, first + self._rollouts.episodes),
            num_envs=self._num_envs,
            output_dir=self._directory / f"step-{step}",
            videos=0,
            progress=False,
        )

    @property
    def _num_envs(self) -> int:
        return min(self._rollouts.num_envs or self._task.config.evaluation.num_envs, self._rollouts.episodes)

    def _opened(self) -> WorkerPool:
        if self._pool is None:
            env = self._task.config.env
            assert env is not None  # `rollouts_config` has required it
            workers = self._rollouts.num_workers or self._task.config.evaluation.num_workers
            self._pool = open_pool(
                env,
                num_envs=self._num_envs,
                num_workers=workers,
                project=self._task.project,
            )
        return self._pool

    def __enter__(self) -> Validation:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._pool is not None:
            self._pool.close()
