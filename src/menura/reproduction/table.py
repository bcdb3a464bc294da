"""The table of a plan's results: what is counted, how certain it is, what it cost, and what others have published."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from menura.errors import DataError
from menura.evaluation.statistics import mean_of_measures, mean_of_trainings, wilson
from menura.files import write_json, write_text
from menura.reproduction.plan import AVERAGE, SUCCESS, Plan
from menura.reproduction.published import Verdict, judge

RESULTS_FILE = "results.json"
MARKDOWN_FILE = "table.md"
LATEX_FILE = "table.tex"

Rate = tuple[float, tuple[float, float]]

#: What a policy costs: key of its figures, in words, and how it is written.
COSTS = (
    ("parameters", "parameters", "{:,}"),
    ("training_cpu_s", "training, CPU seconds", "{:.0f}"),
    ("latency_ms", "latency, ms", "{:.1f}"),
)


@dataclass(frozen=True)
class Table:
    """What the finished cells of a plan say.

    Attributes:
        plan: of which.
        cells: what each wrote (`cell.json`).
        baselines: `{"name", "task", "episodes"}` of what stands beside the policies.
    """

    plan: Plan
    cells: tuple[Mapping[str, Any], ...]
    baselines: tuple[Mapping[str, Any], ...] = ()

    @classmethod
    def of(cls, plan: Plan, cells: Sequence[Mapping[str, Any]], baselines: Sequence[Mapping[str, Any]] = ()) -> Table:
        policies, seeds = list(plan.policies), list(plan.training_seeds)
        order = sorted(
            cells, key=lambda c: (policies.index(c["policy"]), seeds.index(c["seed"]), sorted(c["episodes"]))
        )
        return cls(plan, tuple(order), tuple(baselines))

    @property
    def names(self) -> list[str]:
        """Baselines, and then the policies that have been trained: the columns."""
        there = {cell["policy"] for cell in self.cells}
        beside = dict.fromkeys(baseline["name"] for baseline in self.baselines)
        return [*beside, *(policy for policy in self.plan.policies if policy in there)]

    def values(self, name: str, task: str) -> list[list[float]]:
        """The metric of every episode, of each training (or of the baseline)."""
        own = [cell["episodes"] for cell in self.cells if cell["policy"] == name and task in cell["episodes"]]
        beside = [line["episodes"] for line in self.baselines if (line["name"], line["task"]) == (name, task)]
        metric = self.plan.metric
        for counted in [episodes[task] for episodes in own] + beside:
            if metric not in counted:
                raise DataError(f"metric: expected one of {', '.join(counted)}, which are counted, got {metric!r}.")
        return [episodes[task][metric] for episodes in own] + [counted[metric] for counted in beside]

    def counts(self, name: str, task: str) -> list[int]:
        """Successes, one number a training."""
        return [round(sum(episodes)) for episodes in self.values(name, task)]

    def rate(self, name: str, task: str) -> Rate | None:
        """(mean over all trainings, its 95 % interval); None before any. Of successes it is Wilson's, of these
        trainings' episodes; of a measure that of `mean_of_measures`."""
        values = self.values(name, task)
        if not values:
            return None
        if self.plan.metric != SUCCESS:
            return mean_of_measures([self._independent(name, values)])
        n = sum(map(len, values))
        successes = round(sum(map(sum, values)))
        return successes / n, wilson(successes, n)

    def average(self, name: str) -> Rate | None:
        """(mean over the tasks, its 95 % interval over trainings and episodes); None while a task is missing."""
        values = [self.values(name, task) for task in self.plan.tasks]
        if not all(values):
            return None
        if name not in self.plan.policies:
            alone = self.rate(name, self.plan.tasks[0]) if len(values) == 1 else None
            return alone or mean_of_measures([self._independent(name, trainings) for trainings in values])
        lengths = {len(episodes) for trainings in values for episodes in trainings}
        if self.plan.metric == SUCCESS and len(lengths) == 1:
            return mean_of_trainings([[round(sum(v)) for v in trainings] for trainings in values], lengths.pop())
        return mean_of_measures(values)

    def verdicts(self) -> list[Verdict]:
        """Each published cell against ours, as far as ours is there."""
        found = []
        for policy, rows in self.plan.published.items():
            for row, published in rows.items():
                ours = self._over_trainings(policy, row)
                if ours is not None:
                    found.append(judge(policy, row, *ours, published))
        return found

    def told(self, cell: Mapping[str, Any]) -> str:
        """A finished cell in a few words."""
        share = statistics.fmean(statistics.fmean(counted[self.plan.metric]) for counted in cell["episodes"].values())
        task = next(iter(cell["episodes"])) if len(cell["episodes"]) == 1 else "all tasks"
        return f"{cell['policy']}, {task}, seed {cell['seed']}: {share:.0%}"

    def figures(self) -> dict[str, dict[str, Any]]:
        """Of each column: its rates, its average, and of a policy what it costs."""
        figures: dict[str, dict[str, Any]] = {}
        for name in self.names:
            rates = {task: rate for task in self.plan.tasks if (rate := self.rate(name, task))}
            figures[name] = {"tasks": rates, "average": self.average(name)}
            own = [cell for cell in self.cells if cell["policy"] == name]
            if own:
                figures[name] |= {
                    "parameters": own[0]["parameters"],
                    "training_cpu_s": statistics.median(cell["training_cpu_s"] for cell in own),
                    "latency_ms": statistics.median(cell["latency_ms"] for cell in own),
                }
        return figures

    def cpu_hours(self) -> float:
        """What all trainings and evaluations have cost; recording apart."""
        seconds = sum(float(cell["training_cpu_s"]) + float(cell["evaluation_cpu_s"]) for cell in self.cells)
        return seconds / 3600

    def cost(self) -> str:
        """`cpu_hours` in words: "3.2 CPU hours", below one "12 CPU minutes"."""
        hours = self.cpu_hours()
        if hours >= 1:
            return f"{hours:.1f} CPU hours"
        minutes = max(1, round(60 * hours))
        return f"{minutes} CPU minute{'s' * (minutes > 1)}"

    def to_dict(self) -> dict[str, Any]:
        """JSON-able: the plan, every cell, and every figure of the table."""
        verdicts = [
            {**asdict(verdict), "published": verdict.published.model_dump(mode="json")} for verdict in self.verdicts()
        ]
        return {
            "plan": self.plan.model_dump(mode="json"),
            "figures": self.figures(),
            "verdicts": verdicts,
            "cpu_hours": round(self.cpu_hours(), 3),
            "cells": [dict(cell) for cell in self.cells],
            "baselines": [dict(baseline) for baseline in self.baselines],
        }

    def rows(self) -> list[tuple[str, list[str]]]:
        """The table in words: rows are tasks and what the policies cost, columns `names`. The best is in asterisks."""
        figures = self.figures()
        rows = []
        for task in (*self.plan.tasks, *((AVERAGE,) if len(self.plan.tasks) > 1 else ())):
            rates = {
                name: own["average"] if task == AVERAGE else own["tasks"].get(task) for name, own in figures.items()
            }
            trained = [rate[0] for name, rate in rates.items() if rate and name in self.plan.policies]
            best = max((round(value, 3) for value in trained), default=None)
            rows.append(
                (task, [told(rate, best if name in self.plan.policies else None) for name, rate in rates.items()])
            )
        for key, title, form in COSTS:
            rows.append((title, [form.format(own[key]) if key in own else "" for own in figures.values()]))
        return rows

    def to_markdown(self) -> str:
        """The table as it stands in the docs; below it what was published, and the cost of all."""
        lines = [f"| | {' | '.join(self.names)} |", f"|---|{'---|' * len(self.names)}"]
        lines += [f"| {_heading(row)} | {' | '.join(cells)} |" for row, cells in self.rows()]
        verdicts = self.verdicts()
        if verdicts:
            lines += ["", "| | ours | published | verdict |", "|---|---|---|---|"]
            lines += [
                f"| {v.policy}, {v.row} | {told((v.ours, v.interval))} | {100 * v.published.value:.0f} "
                f"({v.published.source}) | {v} |"
                for v in verdicts
            ]
        lines += ["", f"All trainings and evaluations: {self.cost()}."]
        return "\n".join(lines) + "\n"

    def to_latex(self) -> str:
        """The table for a paper, with the rules of the package `booktabs`."""
        lines = [
            f"% {self.plan.title}: percent with 95 % intervals",
            f"% {self.plan.demonstrations} demonstrations, {len(self.plan.training_seeds)} trainings, "
            f"{self.plan.episodes} episodes each",
            rf"\begin{{tabular}}{{l{'r' * len(self.names)}}}",
            r"\toprule",
            " & ".join(["", *map(_latex, self.names)]) + r" \\",
            r"\midrule",
        ]
        lines += [" & ".join([_latex(row), *map(_latex, cells)]) + r" \\" for row, cells in self.rows()]
        return "\n".join([*lines, r"\bottomrule", r"\end{tabular}"]) + "\n"

    def save(self, directory: Path) -> None:
        """Write `results.json`, `table.md` and `table.tex`."""
        directory.mkdir(parents=True, exist_ok=True)
        write_json(directory / RESULTS_FILE, self.to_dict())
        write_text(directory / MARKDOWN_FILE, f"# {self.plan.title}\n\n{self.to_markdown()}")
        write_text(directory / LATEX_FILE, self.to_latex())

    def _independent(self, name: str, values: Sequence[Sequence[float]]) -> Sequence[Sequence[float]]:
        """What differs by chance: a policy's trainings; of a baseline, which has none, its episodes."""
        return values if name in self.plan.policies else [[value] for episodes in values for value in episodes]

    def _over_trainings(self, policy: str, row: str) -> Rate | None:
        """As `average`, of a lone task too: a claim about a method must count how much trainings differ."""
        if row == AVERAGE:
            return self.average(policy)
        values = self.values(policy, row)
        return mean_of_measures([values]) if values else None


def told(rate: Rate | None, best: float | None = None) -> str:
    """In percent, with its interval, in asterisks where it is the best; nothing before there is a rate."""
    if rate is None:
        return ""
    value, (low, high) = rate
    figure = f"{value * 100:.0f}"
    return f"{f'**{figure}**' if round(value, 3) == best else figure} [{low * 100:.0f}, {high * 100:.0f}]"


def _heading(row: str) -> str:
    return f"**{row}**" if row == AVERAGE else row


def _latex(text: str) -> str:
    if text.startswith("**"):
        figure, _, rest = text[2:].partition("**")
        return rf"\textbf{{{figure}}}{rest}"
    return text.replace("_", r"\_").replace("%", r"\%").replace("&", r"\&")
