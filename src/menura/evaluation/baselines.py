"""What stands beside a success rate: random actions, and the same policy trained blind.

A blind policy sees neither the object's state nor a camera. It solves door-open in 24 of 30 episodes, so a success rate
that does not stand well above its own blind baseline says nothing about perception.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from menura.evaluation.latency_execution import DelayedExecution
from menura.evaluation.pool import WorkerPool
from menura.evaluation.results import Results
from menura.evaluation.runner import run_episodes
from menura.evaluation.subjects import PolicySubject, RandomActions, Subject

if TYPE_CHECKING:
    from menura.evaluation.ray_cells import RayCells
    from menura.meta_policy import Execution, MetaPolicy

BLIND_SUFFIX = "-blind"


def with_baselines(
    results: Results,
    pool: WorkerPool | RayCells,
    *,
    blind: MetaPolicy | None,
    execution: Execution | DelayedExecution | None = None,
    exact: bool = False,
    output_dir: Path | None = None,
    title: str | None = None,
    **settings: Any,
) -> Results:
    """`results` with the same episodes run by a random policy and, where there is one, by the blind one.

    Args:
        pool: the processes that ran `results`.
        settings: as `run_episodes` was given for `results`; nothing is filmed.
    """
    subjects: dict[str, Subject] = {"random": RandomActions(results.protocol["execution"])}
    if blind is not None:
        subjects["blind"] = PolicySubject(blind, execution, exact)
    found = {
        name: run_episodes(
            subject,
            pool,
            output_dir=output_dir / "baselines" / name if output_dir is not None else None,
            title=f"{title}, {name}" if title else name,
            **{**settings, "videos": 0},
        )
        for name, subject in subjects.items()
    }
    completed = replace(results, baselines=found)
    if output_dir is not None:
        completed.save(output_dir)
    return completed


def blind_run_of(run: str | Path) -> Path | None:
    """The blind run beside a run (`<run>-blind`, as `menura train --blind` names it), if it is there."""
    run = Path(run).resolve()
    candidate = run.with_name(run.name + BLIND_SUFFIX)
    return candidate if candidate.is_dir() else None
