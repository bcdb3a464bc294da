"""What a perturbation costs: the same policy, the same seeds, with and without it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from menura.envs.perturbation import Perturbation
from menura.errors import ConfigError
from menura.evaluation.compare import Comparison, compare
from menura.evaluation.pool import WorkerPool
from menura.evaluation.results import Results
from menura.evaluation.runner import run_episodes
from menura.evaluation.subjects import Subject

if TYPE_CHECKING:
    from menura.evaluation.ray_cells import RayCells

DIRECTORY = "perturbed"


def refuse_without_effect(perturbation: Perturbation, subject: Subject) -> None:
    """Raises ConfigError for what a policy that looks at no camera would never notice."""
    if perturbation.of_pictures and not subject.cameras:
        raise ConfigError(
            f"perturb: expected what {subject.identity['name']} can notice, got {perturbation.of_pictures[0]}, and it "
            "looks at no camera. It can notice state_noise, latency and start_spread."
        )


def with_perturbed(
    results: Results,
    subject: Subject,
    pool: WorkerPool | RayCells,
    perturbation: Perturbation,
    *,
    output_dir: Path | None = None,
    title: str | None = None,
    **settings: Any,
) -> Results:
    """`results` with the same episodes under a perturbation.

    Args:
        pool: the processes that ran `results`; they have the unperturbed environment again afterwards.
        settings: as `run_episodes` was given for `results`.
    """
    name = str(perturbation)
    env = pool.env
    pool.change(env, perturbation.changes)
    found = run_episodes(
        subject,
        pool,
        output_dir=output_dir / DIRECTORY if output_dir is not None else None,
        title=f"{title}, {name}" if title else name,
        **settings,
    )
    pool.change(env)
    completed = replace(results, perturbed={**results.perturbed, name: found})
    if output_dir is not None:
        completed.save(output_dir)
    return completed


def cost(results: Results, name: str) -> Comparison:
    """The perturbed arm `name` (a) against the unperturbed one (b), episode by episode of the same seed."""
    found = compare(results.perturbed[name], results, allow_different_protocols=True)
    return replace(found, name_a=name, name_b="unperturbed", different_fields=())


def sentence(results: Results, name: str) -> str:
    """`noise=0.05: the success rate changes by -12 points [-20, -4] on the same 50 seeds: worse (…).`"""
    found = cost(results, name)
    low, high = (round(100 * bound) for bound in found.interval)
    return (
        f"{name}: the success rate changes by {round(100 * found.difference):+d} points [{low:+d}, {high:+d}] on the "
        f"same {found.pairs} seeds: {found.verdict} ({found.only_b} episodes fail that were solved, {found.only_a} "
        "the other way)."
    )
