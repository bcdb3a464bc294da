"""A process that makes cells of a table, one after the other: it trains, evaluates, and measures how fast that is."""

from __future__ import annotations

import resource
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from menura.evaluation.child import Parent, attend
from menura.files import read_json, write_json
from menura.reproduction.baselines import counted
from menura.reproduction.plan import Cell, Plan, fingerprint

CELL_FILE = "cell.json"
#: What the training took, from its end on.
TRAINING_FILE = "training.json"


@dataclass(frozen=True)
class Setup:
    """The first message: whose cells are made."""

    plan: Plan
    task: Path
    project: Path | None


def main(descriptor: int) -> None:
    """The process's whole life."""
    attend(descriptor, _serve)


def _serve(parent: Parent) -> None:
    setup: Setup = parent.receive()
    while True:
        parent.answer(make_cell(setup, parent.receive()))


def make_cell(setup: Setup, cell: Cell) -> dict[str, Any]:
    """Train and evaluate one cell and write `cell.json` into its run, last of all; what is there already is kept."""
    from menura.evaluation.evaluate import evaluate
    from menura.evaluation.latency import measure_latency
    from menura.meta_policy import MetaPolicy
    from menura.training.run import train

    plan, project, cost = setup.plan, setup.project, cell.run / TRAINING_FILE
    before = _cpu_s()
    trained = train(setup.task, output_dir=cell.run, overrides=cell.overrides, project=project)
    if not cost.exists():  # else it was trained before an evaluation that did not end
        write_json(cost, {"cpu_s": round(_cpu_s() - before, 1)})
    policy = MetaPolicy.from_pretrained(cell.run, device="cpu", project=project)
    episodes: dict[str, dict[str, list[float]]] = {}
    before = _cpu_s()
    for name in cell.tasks:
        results = evaluate(
            cell.run,
            output_dir=cell.run / ("evaluation" if len(cell.tasks) == 1 else f"evaluation-{name}"),
            overrides=[f"--{plan.task_key}={name}"],
            episodes=plan.episodes,
            seed=plan.seed,
            num_workers=1,
            videos=0,
            resume=True,
            device="cpu",
            project=project,
            progress=False,
        )
        episodes[name] = counted(results)
    evaluation_s = _cpu_s() - before
    latency = measure_latency(policy, _golden_row(cell.run))
    done = {
        "policy": cell.policy,
        "seed": cell.seed,
        "episodes": episodes,
        "class": policy.name,
        "parameters": sum(parameter.numel() for parameter in policy.policy.parameters()),
        "training_steps": trained.metrics["steps"],
        "training_cpu_s": read_json(cost)["cpu_s"],
        "evaluation_cpu_s": round(evaluation_s, 1),
        "latency_ms": round(latency.median, 3),
        "latency_p99_ms": round(latency.p99, 3),
        "fingerprint": fingerprint(plan, cell),
    }
    write_json(cell.run / CELL_FILE, done)
    return done


def _cpu_s() -> float:
    """Seconds of CPU that this process and its finished children have taken."""
    own, children = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    return own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime


def _golden_row(run: Path) -> dict[str, Any]:
    """One of the observations that a checkpoint keeps."""
    from menura.checkpoint.golden import GOLDEN_FILE, Golden

    raw = Golden(Path(run) / GOLDEN_FILE).observation()
    row: dict[str, Any] = {key: value[:1] for key, value in raw.items() if key not in ("images", "task")}
    if "images" in raw:
        row["images"] = {camera: frames[:1] for camera, frames in raw["images"].items()}
    if raw.get("task") is not None:
        row["task"] = raw["task"] if isinstance(raw["task"], str) else raw["task"][:1]
    return row
