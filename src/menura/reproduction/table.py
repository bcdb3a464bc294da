"""The table of a plan's results: what is counted, with how certain it is, as JSON, Markdown and a page."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from menura.evaluation.statistics import mean_of_trainings, wilson
from menura.files import write_json, write_text
from menura.reproduction.plan import Plan

RESULTS_FILE = "results.json"
MARKDOWN_FILE = "table.md"


@dataclass(frozen=True)
class Table:
    """What the finished cells of a plan say.

    Attributes:
        plan: of which.
        cells: what each wrote (`cell.json`).
    """

    plan: Plan
    cells: tuple[Mapping[str, Any], ...]

    @classmethod
    def of(cls, plan: Plan, cells: Sequence[Mapping[str, Any]]) -> Table:
        policies, seeds = list(plan.policies), list(plan.training_seeds)
        order = sorted(
            cells, key=lambda c: (policies.index(c["policy"]), seeds.index(c["seed"]), sorted(c["successes"]))
        )
        return cls(plan, tuple(order))

    def counts(self, policy: str, task: str) -> list[int]:
        """Successes among `plan.episodes`, one number a training seed."""
        return [sum(c["successes"][task]) for c in self.cells if c["policy"] == policy and task in c["successes"]]

    def rate(self, policy: str, task: str) -> tuple[float, tuple[float, float]] | None:
        """(success rate over all trainings, 95 % Wilson interval of these trainings' episodes); None before any."""
        counts = self.counts(policy, task)
        n = len(counts) * self.plan.episodes
        return (sum(counts) / n, wilson(sum(counts), n)) if counts else None

    def average(self, policy: str) -> tuple[float, tuple[float, float]] | None:
        """(mean over the tasks, its 95 % interval over trainings and episodes); None while a task is missing."""
        counts = [self.counts(policy, task) for task in self.plan.tasks]
        if not all(counts):
            return None
        return mean_of_trainings(counts, self.plan.episodes)

    def told(self, cell: Mapping[str, Any]) -> str:
        """A finished cell in a few words."""
        share = statistics.fmean(sum(flags) / len(flags) for flags in cell["successes"].values())
        task = next(iter(cell["successes"])) if len(cell["successes"]) == 1 else "all tasks"
        return f"{cell['policy']}, {task}, seed {cell['seed']}: {share:.0%}"

    def figures(self) -> dict[str, dict[str, Any]]:
        """Of each policy that has been trained: its rates, its average, and what it costs."""
        figures = {}
        for policy in self.plan.policies:
            own = [cell for cell in self.cells if cell["policy"] == policy]
            if not own:
                continue
            average = self.average(policy)
            figures[policy] = {
                "tasks": {task: self.rate(policy, task) for task in self.plan.tasks if self.counts(policy, task)},
                "average": average,
                "parameters": own[0]["parameters"],
                "training_cpu_s": statistics.median(cell["training_cpu_s"] for cell in own),
                "latency_ms": statistics.median(cell["latency_ms"] for cell in own),
            }
        return figures

    def to_dict(self) -> dict[str, Any]:
        """JSON-able: the plan, every cell, and every figure of the table."""
        plan, cells = self.plan.model_dump(mode="json"), [dict(cell) for cell in self.cells]
        return {"plan": plan, "figures": self.figures(), "cells": cells}

    def to_markdown(self) -> str:
        """The table as it stands in the docs: rows are tasks, columns policies; below what they cost."""
        figures = self.figures()
        names = list(figures)
        lines = [f"| | {' | '.join(names)} |", f"|---|{'---|' * len(names)}"]
        for task in self.plan.tasks:
            rates = [self.rate(name, task) for name in names]
            best = max((round(rate[0], 3) for rate in rates if rate), default=None)
            lines.append(f"| {task} | {' | '.join(_told(rate, best) for rate in rates)} |")
        averages = [figures[name]["average"] for name in names]
        best = max((round(average[0], 3) for average in averages if average), default=None)
        lines.append(f"| **average** | {' | '.join(_told(average, best) for average in averages)} |")
        for title, key, form in (
            ("parameters", "parameters", "{:,}"),
            ("training, CPU seconds", "training_cpu_s", "{:.0f}"),
            ("latency, ms", "latency_ms", "{:.1f}"),
        ):
            lines.append(f"| {title} | {' | '.join(form.format(figures[name][key]) for name in names)} |")
        return "\n".join(lines) + "\n"

    def save(self, directory: Path) -> None:
        """Write `results.json` and `table.md`."""
        directory.mkdir(parents=True, exist_ok=True)
        write_json(directory / RESULTS_FILE, self.to_dict())
        write_text(directory / MARKDOWN_FILE, f"# {self.plan.title}\n\n{self.to_markdown()}")


def _told(rate: tuple[float, tuple[float, float]] | None, best: float | None) -> str:
    if rate is None:
        return ""
    value, (low, high) = rate
    figure = f"{value * 100:.0f}"
    return f"{f'**{figure}**' if round(value, 3) == best else figure} [{low * 100:.0f}, {high * 100:.0f}]"
