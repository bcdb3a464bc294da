"""Write the tables of docs/results.md and docs/policies/ from bench/results/*.json: nothing there is typed in by hand.

    menura reproduce bench/smoke.yaml
    cp runs/smoke/results.json bench/results/smoke.json
    python tools/write_results.py             # `--check` writes nothing, and fails where the page says anything else

A file of `bench/results/` has the name of the plan that made it. What was trained and measured must be what the plan
says today; its title, and what was published, are taken from the plan.
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

from menura.errors import DataError, MenuraError
from menura.files import read_json, write_text
from menura.reproduction.plan import SUCCESS, Plan
from menura.reproduction.table import COSTS, Table, told

ROOT = Path(__file__).resolve().parents[1]
BENCH = ROOT / "bench"
RESULTS = BENCH / "results"
PAGE = ROOT / "docs" / "results.md"
WRITTEN = re.compile(r"(?<=-->\n)(.*)(?=<!-- results: end -->)", re.DOTALL)
#: In the page of a family of policies: which ones, and what their numbers are.
NUMBERS = re.compile(r"(<!-- numbers of ([\w, ]+)\. [^>]*-->\n)(.*?)(?=<!-- numbers: end -->)", re.DOTALL)

#: What decides the numbers of a table, beside each policy's own sections.
DECIDES = (
    "task",
    "task_key",
    "tasks",
    "sections",
    "joint",
    "training_seeds",
    "demonstrations",
    "dataset",
    "episodes",
    "seed",
    "metric",
)


def tables(bench: Path = BENCH, results: Path = RESULTS) -> dict[Path, Table | None]:
    """Every plan, in the order of the page, and its table; None where it was not made."""
    plans = [*sorted(bench.glob("*.yaml")), *sorted((bench / "published").glob("*.yaml"))]
    unknown = {file.stem for file in results.glob("*.json")} - {plan.stem for plan in plans}
    if unknown:
        raise DataError(f"{results}: expected names of plans, got {', '.join(sorted(unknown))}. Name each as its plan.")
    return {plan: read(plan, results / f"{plan.stem}.json") for plan in plans}


def read(path: Path, file: Path) -> Table | None:
    """The table of a plan, as it was made."""
    if not file.is_file():
        return None
    plan, made = Plan.read(path), read_json(file, DataError)
    of = Plan.model_validate(made["plan"])
    changed = [key for key in DECIDES if getattr(plan, key) != getattr(of, key)]
    changed += [f"policies.{name}" for name, sections in of.policies.items() if plan.policies.get(name) != sections]
    if changed:
        raise DataError(f"{file}: expected results of {path} as it is, got others: {', '.join(changed)}. Make it anew.")
    return Table.of(plan, made["cells"], made["baselines"])


def pages(found: dict[Path, Table | None]) -> dict[Path, str]:
    """What every page with results is to say."""
    policies = {page: page.read_text(encoding="utf-8") for page in sorted((PAGE.parent / "policies").glob("*.md"))}
    new = {
        page: NUMBERS.sub(lambda of: of[1] + numbers(of[2].split(", "), found), text) for page, text in policies.items()
    }
    return {PAGE: WRITTEN.sub(lambda _: written(found), PAGE.read_text(encoding="utf-8")), **new}


def numbers(policies: list[str], found: dict[Path, Table | None]) -> str:
    """What these policies reach in all tables, in the page of their family; over the tasks of a table the average."""
    heads = ["", "policy", "percent", "blind one", *(title for _, title, _ in COSTS)]
    lines = ["", f"| {' | '.join(heads)} |", f"|{'---|' * len(heads)}"]
    for table in filter(None, found.values()):
        plan, figures = table.plan, table.figures()
        blind = next((policy for policy in figures if _is_blind(plan, policy)), None)
        for policy in (policy for policy in policies if policy in figures):
            what = f"[{plan.title}](../results.md#{_anchor(plan.title)})"
            if len(plan.tasks) > 1:
                what += f", mean of {len(plan.tasks)} tasks"
            if plan.metric != SUCCESS:
                what += f": {plan.metric}"
            costs = [form.format(figures[policy][key]) for key, _, form in COSTS]
            lines.append(
                f"| {what} | `{policy}` | {_mean(table, policy)} | {_mean(table, blind)} | {' | '.join(costs)} |"
            )
    return "\n".join(lines) + "\n\n"


def _mean(table: Table, name: str | None) -> str:
    if name is None:
        return ""
    return told(table.average(name) if len(table.plan.tasks) > 1 else table.rate(name, table.plan.tasks[0]))


def written(found: dict[Path, Table | None], root: Path = ROOT) -> str:
    """The part of the page between its marks."""
    lines = ["", "| plan | what it is | trainings made |", "|---|---|---|"]
    for path, table in found.items():
        name, plan = path.relative_to(root).as_posix(), Plan.read(path)
        title = f"[{plan.title}](#{_anchor(plan.title)})" if table else plan.title
        lines.append(f"| [`{name}`](../{name}) | {title} | {_progress(plan, table)} |")
    for path, table in found.items():
        if table is not None:
            lines += ["", *_part(path.relative_to(root).as_posix(), _comment(path), table)]
    return "\n".join(lines) + "\n\n"


def _part(name: str, about: str, table: Table) -> list[str]:
    plan = table.plan
    data = f"`{plan.dataset}`" if plan.dataset else f"{plan.demonstrations} demonstrations a task"
    trainings = f"{len(plan.training_seeds)} training{'s' * (len(plan.training_seeds) > 1)} a policy"
    counted = "" if plan.metric == SUCCESS else f" Counted is not success but `{plan.metric}`, an episode's largest."
    blind = [f"`{policy}`" for policy in table.names if _is_blind(plan, policy)]
    seeds = f"{plan.episodes} episodes of each, seeds {plan.seed} to {plan.seed + plan.episodes - 1}"
    return [
        f"## {plan.title}",
        "",
        about,
        "",
        f"{data}; {trainings}{' of all tasks' if plan.joint else ' and task'}; {seeds}.{counted}"
        + (f" Blind: {', '.join(blind)}." if blind else " No blind policy was trained."),
        "",
        *table.to_markdown().splitlines(),
        "",
        "```text",
        f"menura reproduce {name}",
        "```",
    ]


def _is_blind(plan: Plan, policy: str) -> bool:
    return bool(plan.policies.get(policy, {}).get("processor", {}).get("blind", False))


def _progress(plan: Plan, table: Table | None) -> str:
    wanted = len(plan.policies) * len(plan.training_seeds) * (1 if plan.joint else len(plan.tasks))
    return f"{len(table.cells)} of {wanted}" if table else f"not run: 0 of {wanted}"


def _comment(path: Path) -> str:
    """What the plan's file says of itself on its first lines."""
    lines = path.read_text(encoding="utf-8").splitlines()
    end = next(number for number, line in enumerate(lines) if not line.startswith("#"))
    return " ".join(line.removeprefix("#").strip() for line in lines[:end])


def _anchor(title: str) -> str:
    """As GitHub names a heading."""
    return re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; fail where the page differs")
    check = parser.parse_args().check
    try:
        new = pages(tables())
    except MenuraError as error:
        sys.exit(str(error))
    for page, text in new.items():
        if text == page.read_text(encoding="utf-8"):
            continue
        if check:
            sys.exit(f"{page}: is not what bench/results/ says. Call tools/write_results.py.")
        write_text(page, text)


if __name__ == "__main__":
    main()
