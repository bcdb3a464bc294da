"""Several tasks of one environment: evaluated in the same processes, each with results of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from menura.config import split_section
from menura.envs.suites import tasks_of, with_task
from menura.errors import DataError
from menura.evaluation.evaluate import REPORT_FILE, evaluate
from menura.evaluation.latency_execution import suffix_of
from menura.evaluation.progress import EpisodeTable
from menura.evaluation.report import Section, write_report
from menura.evaluation.request import Env, Request, default_output_dir
from menura.evaluation.results import FILE_NAME, IN_RUN, Results
from menura.evaluation.runner import as_mapping
from menura.evaluation.shared import Shared
from menura.evaluation.subjects import AuditActions
from menura.files import read_json, write_json

if TYPE_CHECKING:
    from menura.meta_policy import MetaPolicy

TASKS_FILE = "tasks.json"  # what marks a directory of several evaluations, and orders them


def evaluate_tasks(
    model: str | Path | MetaPolicy | AuditActions,
    env: Env,
    tasks: str | Sequence[str],
    *,
    output_dir: str | Path | None = None,
    overrides: Sequence[str] = (),
    project: Path | None = None,
    progress: bool = True,
    command: str | None = None,
    against: str | Path | None = None,
    **settings: Any,
) -> dict[str, Results]:
    """Evaluates on one task after the other, in the same processes, the policy loaded once.

    Writes `<output_dir>/<task>/results.json` of each, and one `report.html` and `tasks.json` of all, which are up to
    date after each task. Finished tasks are kept when another fails; with `resume` they are not run again.

    Args:
        model, overrides, project, progress, settings: see `menura.evaluate`.
        env: an environment whose class has an argument `task`; the run's own by default.
        tasks: names, and suites of the environment (`MT10`); in one string separated by commas.
        output_dir: by default `<run>/evaluation-<tasks>`.
        command: what repeats this, for the report.
        against: a directory of several tasks: on each, stop when shown to be better or worse than there.

    Raises:
        ConfigError: the environment has no argument `task`. The others: see `menura.evaluate`.
    """
    asked = Request.of(model, env, overrides, project)
    base, project = as_mapping(asked.env), asked.project
    names = tasks_of(base, tasks, project)
    suffix = suffix_of(settings.get("execution"))
    directory = Path(output_dir) if output_dir is not None else default_output_dir(model, env, tasks, suffix)
    _, others = split_section(overrides, "env")
    found: dict[str, Results] = {}
    baselines = _baselines(against, names)
    with Shared(EpisodeTable(progress)) as shared:
        shared.table.announce(names)
        for number, name in enumerate(names):
            shared.title = name
            shared.later = [with_task(base, later) for later in names[number + 1 :]]
            found[name] = evaluate(
                model,
                with_task(base, name),
                output_dir=directory / name if directory is not None else None,
                overrides=others,
                against=baselines.get(name),
                project=project,
                shared=shared,
                **settings,
            )
            if directory is not None:
                _write(directory, found, names, asked.run, command)
    return found


def _baselines(against: str | Path | None, tasks: Sequence[str]) -> dict[str, Results]:
    """The results to stop against, by task."""
    if against is None:
        return {}
    found = load_results(against)
    missing = [task for task in tasks if task not in found]
    if missing:
        raise DataError(
            f"against: expected results of {', '.join(tasks)} in {against}, got none of {', '.join(missing)}. "
            "Evaluate the baseline on them."
        )
    return found


def _write(
    directory: Path, found: Mapping[str, Results], names: Sequence[str], run: Path | None, command: str | None
) -> None:
    """What is known of all tasks so far."""
    rates = {name: {"success_rate": r.success_rate, "interval": list(r.interval)} for name, r in found.items()}
    mean = sum(r.success_rate or 0.0 for r in found.values()) / len(found)
    write_json(directory / TASKS_FILE, {"format": 1, "tasks": list(names), "mean": mean, "results": rates})
    sections = [Section(name, results, directory / name, run, command) for name, results in found.items()]
    write_report(directory / REPORT_FILE, sections, title=f"{len(names)} tasks")


def load_results(path: str | Path) -> dict[str, Results]:
    """The results of each task in a directory of several; of any other `{"": its results}`.

    Raises:
        DataError: there are none.
    """
    path = Path(path)
    for directory in (path, path / IN_RUN):
        if (directory / TASKS_FILE).is_file():
            tasks = read_json(directory / TASKS_FILE, DataError)["tasks"]
            return {task: Results.load(directory / task) for task in tasks if (directory / task / FILE_NAME).exists()}
    return {"": Results.load(path)}


def summary(found: Mapping[str, Results]) -> str:
    """One line a task, and their mean."""
    width = max(map(len, found))
    lines = [f"{name:<{width}}  {results}" for name, results in found.items()]
    mean = sum(results.success_rate or 0.0 for results in found.values()) / len(found)
    return "\n".join([*lines, f"{'mean':<{width}}  {mean:.0%} over {len(found)} tasks"])
