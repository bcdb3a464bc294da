"""Evaluate a policy in an environment, with its baselines beside it."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, ExitStack, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from menura.config.schema import EnvConfig
from menura.envs.perturbation import Perturbation
from menura.evaluation.baselines import with_baselines
from menura.evaluation.latency_execution import DelayedExecution
from menura.evaluation.pool import WorkerPool
from menura.evaluation.progress import EpisodeTable
from menura.evaluation.results import Results
from menura.evaluation.robustness import refuse_without_effect, with_perturbed
from menura.evaluation.runner import as_mapping, open_pool, run_episodes
from menura.evaluation.sequential import StoppingRule
from menura.evaluation.subjects import AuditActions, PolicySubject

if TYPE_CHECKING:
    from menura.evaluation.ray_cells import RayCells
    from menura.meta_policy import Execution, MetaPolicy
    from menura.served_policy import ServedPolicy


def evaluate_policy(
    policy: MetaPolicy | ServedPolicy | AuditActions,
    env: EnvConfig | Mapping[str, Any],
    *,
    episodes: int = 50,
    seed: int = 100_000,
    num_envs: int = 8,
    num_workers: int | None = None,
    output_dir: str | Path | None = None,
    videos: int | Literal["all"] | None = None,
    video_fps: float = 10,
    execution: Execution | DelayedExecution | None = None,
    exact: bool = False,
    stop_at_success: bool = True,
    resume: bool = False,
    stop: StoppingRule | None = None,
    baselines: bool = False,
    blind: MetaPolicy | None = None,
    perturbation: Perturbation | None = None,
    project: Path | None = None,
    progress: bool | EpisodeTable = True,
    title: str | None = None,
    pool: WorkerPool | RayCells | None = None,
) -> Results:
    """Runs `episodes` episodes of fresh seeds and says how many succeed, how certain that is, and under what protocol.

    Episode i is a function of `seed + i` alone. `num_workers` changes only the speed: outcomes are equal to the last
    bit. `num_envs` decides which episodes meet in a batch of the policy, and with it the last bits of what the policy
    answers; with `exact` it is inferred row by row and not even they change.

    Args:
        policy: what is evaluated.
        env: `{class, args}`.
        seed: of the first episode.
        num_envs: environments that run side by side, one row of the policy's batch each.
        num_workers: processes that share them; one a CPU by default.
        output_dir: where `results.json` and `videos/` are written, while episodes finish; None writes nothing.
        videos: how many of the first episodes are filmed; None films all where the environment can be drawn, and
            says so where it cannot.
        video_fps: frames per second of the videos, which play in real time.
        execution: `OpenLoop()` by default, or `TemporalEnsemble(coefficient)`; or a `DelayedExecution`.
        stop_at_success: end an episode at its first successful step; success is "at any step" either way.
        resume: keep the finished episodes of an interrupted evaluation in `output_dir`.
        stop: ends the evaluation when its question is answered (`menura.evaluation.sequential`).
        baselines: also run a random policy and, when given, `blind`.
        perturbation: also run the same episodes under it; see `Results.perturbed`.
        project: directory of the user's own classes.
        progress: whether it is shown, or the table in which it is; its row there is `title`.
        pool: open processes to use; they take this environment and are not closed.

    Raises:
        FeatureMismatch: the environment is not what the policy was trained for; each difference is named.
        EnvironmentFailure: an environment or its process failed; finished episodes are in `output_dir`.
    """
    directory = Path(output_dir) if output_dir is not None else None
    subject = policy if isinstance(policy, AuditActions) else PolicySubject(policy, execution, exact)
    settings: dict[str, Any] = {
        "seeds": range(seed, seed + episodes),
        "num_envs": num_envs,
        "videos": videos,
        "video_fps": video_fps,
        "stop_at_success": stop_at_success,
        "resume": resume,
        "progress": progress,
    }
    if perturbation is not None:
        refuse_without_effect(perturbation, subject)
    with ExitStack() as stack:
        if pool is None:
            opened = open_pool(env, num_envs=min(num_envs, episodes), num_workers=num_workers, project=project)
            pool = stack.enter_context(opened)
        else:
            pool.change(as_mapping(env))
        stack.enter_context(_threads_for(policy))
        results = run_episodes(subject, pool, output_dir=directory, stop=stop, title=title, **settings)
        settings["seeds"] = settings["seeds"][: len(results.episodes)]
        if baselines:
            results = with_baselines(
                results,
                pool,
                blind=blind,
                execution=execution,
                exact=exact,
                output_dir=directory,
                title=title,
                **settings,
            )
        if perturbation is not None:
            results = with_perturbed(
                results, subject, pool, perturbation, output_dir=directory, title=title, **settings
            )
    return results


def _threads_for(policy: MetaPolicy | ServedPolicy | AuditActions) -> AbstractContextManager[None]:
    """As many torch threads as the policy is worth, where one is asked here; torch is not imported for any other."""
    inner = getattr(policy, "policy", None)
    if inner is None:
        return nullcontext()
    from menura.policies.threads import suitable_threads

    return suitable_threads(inner)
