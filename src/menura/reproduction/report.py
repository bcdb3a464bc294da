"""The page of a table: who succeeds how often, at a glance, and what it costs. Opens from disk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from menura.files import write_text
from menura.reproduction.table import Table

_COSTS = (("parameters", "parameters"), ("training, CPU seconds", "training"), ("latency, ms", "latency"))


def write_page(path: Path, table: Table) -> None:
    """Write the page as one file without scripts."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=jinja2.StrictUndefined
    )
    plan = table.plan
    page = environment.get_template("report.html.jinja").render(
        title=plan.title,
        done=len(table.cells),
        total=len(plan.policies) * len(plan.training_seeds) * (1 if plan.joint else len(plan.tasks)),
        demonstrations=plan.demonstrations,
        seeds=len(plan.training_seeds),
        episodes=plan.episodes,
        tasks=plan.tasks,
        policies=_policies(table),
        costs=_COSTS,
    )
    write_text(path, page)


def _policies(table: Table) -> list[dict[str, Any]]:
    return [
        {
            "name": name,
            "average": _percent(own["average"]),
            "rates": {task: _rate(table, name, task) for task in table.plan.tasks},
            "parameters": f"{own['parameters']:,}",
            "training": f"{own['training_cpu_s']:.0f}",
            "latency": f"{own['latency_ms']:.1f}",
        }
        for name, own in table.figures().items()
    ]


def _rate(table: Table, policy: str, task: str) -> dict[str, Any] | None:
    rate = _percent(table.rate(policy, task))
    counts = " · ".join(map(str, table.counts(policy, task)))
    return None if rate is None else {**rate, "counts": f"{counts} of {table.plan.episodes}"}


def _percent(rate: tuple[float, tuple[float, float]] | None) -> dict[str, float] | None:
    return None if rate is None else {"value": 100 * rate[0], "low": 100 * rate[1][0], "high": 100 * rate[1][1]}
