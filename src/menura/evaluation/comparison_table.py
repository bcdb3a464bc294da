"""Several policies on several tasks, each trained once or several times: who is better, and who cannot be told."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Any, Literal

import numpy as np

from menura.errors import DataError
from menura.evaluation.bootstrap import Flags, hierarchical_bootstrap
from menura.evaluation.compare import Verdict, compare, refuse_different_protocols
from menura.evaluation.results import Results
from menura.evaluation.statistics import (
    holm,
    mcnemar_exact,
    mean_of_trainings,
    minimal_detectable_effect,
    sample_size,
    student_quantile,
)

Trainings = Sequence[Mapping[str, Results]]  # one a training seed: {task: its results}
Method = Literal["exact McNemar", "sequential", "hierarchical bootstrap"]


@dataclass(frozen=True)
class Rate:
    """The success rate of one policy on one task, over all its trainings, with its interval."""

    value: float
    interval: tuple[float, float]
    successes: tuple[int, ...]
    episodes: int


@dataclass(frozen=True)
class Row:
    """Two policies on one task, or over all tasks.

    Attributes:
        task: its name; empty for a lone task that has none.
        name_a, name_b: of the policies.
        trainings: of a and of b.
        pairs: episodes of the same seed, of each pair of trainings.
        difference: (success rate of a) - (success rate of b).
        interval: of the difference.
        p_value, adjusted: that both are equally good; `adjusted` by Holm for all rows of the table.
        detectable: the smallest true difference that so much data shows with 80 % probability.
        needed: pairs that show the asked difference, else the one found, with 80 % probability; None where there is
            none to show, and with several trainings, where more episodes alone do not help.
        method: what `p_value` and `interval` are made with.
        verdict: of a against b, by `adjusted`.
    """

    task: str
    name_a: str
    name_b: str
    trainings: tuple[int, int]
    pairs: int
    difference: float
    interval: tuple[float, float]
    p_value: float
    detectable: float
    needed: int | None
    method: Method
    adjusted: float = math.nan
    verdict: Verdict = "cannot tell"

    @property
    def sentence(self) -> str:
        """The verdict in words."""
        if self.verdict != "cannot tell":
            return f"{self.name_a} is {self.verdict} than {self.name_b}"
        if self.detectable >= 1:
            return f"cannot tell {self.name_a} from {self.name_b}: so few episodes show no difference at all"
        told = f"cannot tell {self.name_a} from {self.name_b}: {100 * self.detectable:.0f} points or more would show"
        return f"{told}; {self.needed} pairs would be needed" if self.needed is not None else told


@dataclass(frozen=True)
class ComparisonTable:
    """Every pair of policies on every task that all have.

    Attributes:
        policies: name -> number of trainings.
        tasks: in order.
        rates: policy -> task -> its rate.
        rows: one a pair and task.
        overall: one a pair, of the mean over the tasks; empty with one task, and where evaluations were stopped early.
        level: of confidence, for all rows together.
        different_fields: where the protocols differ; empty unless different ones were allowed.
        outcomes: task -> seed -> policy -> share of its trainings that solve it.
    """

    policies: Mapping[str, int]
    tasks: tuple[str, ...]
    rates: Mapping[str, Mapping[str, Rate]]
    rows: tuple[Row, ...]
    overall: tuple[Row, ...]
    level: float
    different_fields: tuple[str, ...]
    outcomes: Mapping[str, Mapping[int, Mapping[str, float]]]

    @property
    def verdicts(self) -> tuple[Row, ...]:
        """What answers the question: the means over the tasks, else the only task's rows."""
        return self.overall or self.rows

    @property
    def scope(self) -> str:
        """What the verdicts are about, in words."""
        single = [name for name, trainings in self.policies.items() if trainings == 1]
        few = [f"{name} ({count})" for name, count in self.policies.items() if 1 < count < 5]
        if len(single) == len(self.policies):
            return (
                "This is about these checkpoints, one training each. Another training seed may turn it round: for a "
                "claim about methods train each several times and give NAME=RUN,RUN,RUN."
            )
        told = "This is about methods: trainings and seeds are both counted as chance. "
        if single:
            told = f"Of {', '.join(single)} it is about the one checkpoint given: how its trainings vary is unknown. "
        if few:
            told += f"With few trainings the intervals are wide, as they must be: {', '.join(few)}."
        return told.rstrip()

    def to_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return {
            "level": self.level,
            "scope": self.scope,
            "policies": dict(self.policies),
            "rates": {name: {task: vars(rate) for task, rate in tasks.items()} for name, tasks in self.rates.items()},
            "rows": [{**vars(row), "sentence": row.sentence} for row in self.rows],
            "overall": [{**vars(row), "sentence": row.sentence} for row in self.overall],
            "different_fields": list(self.different_fields),
        }


def compare_all(
    policies: Mapping[str, Trainings],
    *,
    allow_different_protocols: bool = False,
    effect: float | None = None,
    level: float = 0.95,
) -> ComparisonTable:
    """Compares every pair of policies on every task, paired by seed.

    One training of each: exact McNemar test and Newcombe's interval (`compare`). Several: a hierarchical bootstrap over
    trainings and seeds, for episodes of one training are no independent trials of a method. Evaluations that were
    stopped early, of one training each: the test and interval that stay valid under it. Holm's correction is over all
    rows: that among them any difference is claimed where there is none happens in at most 5 % of all tables.

    Args:
        policies: name -> its trainings, each `load_results(directory)`.
        allow_different_protocols: compare all the same; the table lists what differs.
        effect: the true difference, in (0, 1], for which `needed` is worked out; by default the one found.
        level: of confidence.

    Raises:
        DataError: fewer than two policies, protocols that differ, no task or no seed in common, several trainings whose
            evaluations were stopped early.
    """
    if len(policies) < 2:
        raise DataError(f"compare: expected at least two policies, got {len(policies)}. Give another.")
    tasks = _common_tasks(policies)
    differences = () if not tasks else _protocol_differences(policies, tasks, allow_different_protocols)
    flags = {
        task: _Task.of({name: [each[task] for each in given] for name, given in policies.items()}, task)
        for task in tasks
    }
    pairs = list(itertools.combinations(policies, 2))
    rows = [_row(task, *pair, policies, flags[task], effect, level) for pair in pairs for task in tasks]
    overall: list[Row] = []
    if len(tasks) > 1 and all(row.method != "sequential" for row in rows):
        overall = [_overall([row for row in rows if (row.name_a, row.name_b) == pair], flags, level) for pair in pairs]
    return ComparisonTable(
        {name: len(given) for name, given in policies.items()},
        tuple(tasks),
        {
            name: {task: _rate([each[task] for each in given], flags[task].solved[name], level) for task in tasks}
            for name, given in policies.items()
        },
        _judged(rows, level),
        _judged(overall, level),
        level,
        tuple(differences),
        {task: own.outcomes() for task, own in flags.items()},
    )


@dataclass(frozen=True)
class _Task:
    """One task's seeds that all trainings ran, and who solved them: policy -> (trainings, seeds)."""

    seeds: tuple[int, ...]
    solved: Mapping[str, Flags]
    stopped: bool

    @classmethod
    def of(cls, policies: Mapping[str, Sequence[Results]], task: str) -> _Task:
        everyone = [results for trainings in policies.values() for results in trainings]
        common = set.intersection(*({episode.seed for episode in results.episodes} for results in everyone))
        if not common:
            place = f" of {task}" if task else ""
            raise DataError(
                f"compare: expected episodes{place} of the same seeds, got none in common. Evaluate all with one seed."
            )
        seeds = tuple(sorted(common))
        solved = {name: np.array([_by_seed(results, seeds) for results in own]) for name, own in policies.items()}
        return cls(seeds, solved, any(results.stopping is not None for results in everyone))

    def outcomes(self) -> dict[int, dict[str, float]]:
        shares = {name: flags.mean(axis=0) for name, flags in self.solved.items()}
        return {seed: {name: float(share[i]) for name, share in shares.items()} for i, seed in enumerate(self.seeds)}


def _by_seed(results: Results, seeds: Sequence[int]) -> list[bool]:
    solved = {episode.seed: episode.success for episode in results.episodes}
    return [solved[seed] for seed in seeds]


def _common_tasks(policies: Mapping[str, Trainings]) -> list[str]:
    everyone = [each for trainings in policies.values() for each in trainings]
    tasks = [task for task in everyone[0] if all(task in each for each in everyone)]
    if not tasks and all(len(each) == 1 for each in everyone):  # a lone task is the same by any name
        raise DataError(
            "compare: expected results of the same task, got "
            + ", ".join(sorted({next(iter(each)) or "an unnamed one" for each in everyone}))
            + ". Give directories of the same kind."
        )
    if not tasks:
        raise DataError("compare: expected a task that all have results of, got none. Evaluate all on the same tasks.")
    return tasks


def _protocol_differences(policies: Mapping[str, Trainings], tasks: Sequence[str], allowed: bool) -> list[str]:
    """Against the first training of the first policy, task by task."""
    first, *others = [each for trainings in policies.values() for each in trainings]
    found: dict[str, None] = {}
    for task in tasks:
        for other in others:
            lines = refuse_different_protocols(first[task].protocol, other[task].protocol, allowed)
            found.update(dict.fromkeys(f"{task}: {line}" if task else line for line in lines))
    return list(found)


def _rate(trainings: Sequence[Results], solved: Flags, level: float) -> Rate:
    """Of one training over all its episodes; of several over the seeds that all have run, as they are compared."""
    if len(trainings) == 1:
        (only,) = trainings
        return Rate(only.success_rate or 0.0, only.interval, (only.successes,), len(only.episodes))
    successes, episodes = tuple(solved.sum(axis=1).tolist()), solved.shape[1]
    return Rate(*mean_of_trainings([successes], episodes, level), successes, episodes)


def _row(
    task: str, a: str, b: str, policies: Mapping[str, Trainings], own: _Task, effect: float | None, level: float
) -> Row:
    trainings = len(policies[a]), len(policies[b])
    if trainings != (1, 1):
        if own.stopped:
            raise DataError(
                f"compare: expected of {a} and {b}, of which several trainings are compared, evaluations of so many "
                "episodes as was fixed beforehand, got some that a rule might end early. Evaluate them without "
                "--until_ci and --against."
            )
        return _bootstrapped(task, a, b, [own.solved[a]], [own.solved[b]], len(own.seeds), level)
    found = compare(policies[a][0][task], policies[b][0][task], allow_different_protocols=True, level=level)
    discordance = (found.only_a + found.only_b) / found.pairs
    wanted = effect if effect is not None else abs(found.difference)
    needed = sample_size(wanted, max(discordance, wanted), level) if wanted > 0 else None
    return Row(
        task=task,
        name_a=a,
        name_b=b,
        trainings=trainings,
        pairs=found.pairs,
        difference=found.difference,
        interval=found.interval,
        p_value=found.p_value,
        detectable=found.detectable,
        needed=needed,
        method="sequential" if found.sequential else "exact McNemar",
    )


def _overall(rows: Sequence[Row], flags: Mapping[str, _Task], level: float) -> Row:
    """The mean over the tasks, which are these and no sample of others."""
    a, b = rows[0].name_a, rows[0].name_b
    pairs, name = sum(row.pairs for row in rows), f"mean of {len(rows)} tasks"
    if rows[0].trainings != (1, 1):
        sides = [[flags[row.task].solved[each] for row in rows] for each in (a, b)]
        return _bootstrapped(name, a, b, sides[0], sides[1], pairs, level)
    # Of each task the interval's distances, squared and added: Donner and Zou's MOVER (Statistics in Medicine 21
    # (2002)); if both are equally good at every task, discordant pairs of all tasks are tosses of one fair coin.
    difference = fmean(row.difference for row in rows)
    below = math.sqrt(sum((row.difference - row.interval[0]) ** 2 for row in rows)) / len(rows)
    above = math.sqrt(sum((row.interval[1] - row.difference) ** 2 for row in rows)) / len(rows)
    solved = [(flags[row.task].solved[a][0], flags[row.task].solved[b][0]) for row in rows]
    only_a = sum(int((of_a & ~of_b).sum()) for of_a, of_b in solved)
    only_b = sum(int((of_b & ~of_a).sum()) for of_a, of_b in solved)
    return Row(
        task=name,
        name_a=a,
        name_b=b,
        trainings=(1, 1),
        pairs=pairs,
        difference=difference,
        interval=(difference - below, difference + above),
        p_value=mcnemar_exact(only_a, only_b),
        detectable=minimal_detectable_effect(pairs, (only_a + only_b) / pairs, level),
        needed=None,
        method="exact McNemar",
    )


def _bootstrapped(
    task: str, a: str, b: str, of_a: Sequence[Flags], of_b: Sequence[Flags], pairs: int, level: float
) -> Row:
    found = hierarchical_bootstrap(of_a, of_b, level=level)
    power = student_quantile(0.5 + level / 2, found.freedom) + student_quantile(0.8, found.freedom)
    return Row(
        task=task,
        name_a=a,
        name_b=b,
        trainings=(len(of_a[0]), len(of_b[0])),
        pairs=pairs,
        difference=found.difference,
        interval=found.interval,
        p_value=found.p_value,
        detectable=min(1.0, power * found.error),
        needed=None,
        method="hierarchical bootstrap",
    )


def _judged(rows: Sequence[Row], level: float) -> tuple[Row, ...]:
    """Each with its p-value adjusted for all, and its verdict."""
    judged = []
    for row, adjusted in zip(rows, holm([row.p_value for row in rows]), strict=True):
        verdict: Verdict = "cannot tell"
        if adjusted <= 1 - level and row.difference != 0:
            verdict = "better" if row.difference > 0 else "worse"
        judged.append(replace(row, adjusted=adjusted, verdict=verdict))
    return tuple(judged)
