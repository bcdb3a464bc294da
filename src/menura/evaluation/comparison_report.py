"""A comparison as it is read: a table in the terminal, and JSON, Markdown and a page on disk."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

import menura
from menura.errors import DataError
from menura.evaluation.comparison_table import ComparisonTable, Rate
from menura.evaluation.page import episode_videos, render, text_of
from menura.evaluation.protocol import flatten
from menura.evaluation.results import FILE_NAME, IN_RUN, Results
from menura.evaluation.suite import load_results
from menura.files import write_json, write_text

FILES = ("comparison.json", "comparison.md", "comparison.html")


def read_policies(words: Sequence[str]) -> tuple[dict[str, list[Path]], dict[str, list[dict[str, Results]]]]:
    """The directories and the results of policies given as `PATH` or `NAME=PATH,PATH,…`, by the policies' names.

    A policy without a name is called as its results say; where two say the same, by its path.

    Raises:
        DataError: a name is given twice, or there are no results.
    """
    given: list[tuple[str | None, list[Path]]] = []
    for word in words:
        name, equals, paths = word.partition("=")
        named = bool(equals) and not Path(word).exists()
        given.append((name, [Path(path) for path in paths.split(",")]) if named else (None, [Path(word)]))
    results = [[load_results(path) for path in paths] for _, paths in given]
    own = [
        name or str(next(iter(found[0].values())).policy["name"])
        for (name, _), found in zip(given, results, strict=True)
    ]
    names = [
        name if own.count(name) == 1 or explicit else str(paths[0])
        for name, (explicit, paths) in zip(own, given, strict=True)
    ]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise DataError(f"compare: expected each policy once, got {twice} twice. Name them: NAME=PATH.")
    return (
        {name: paths for name, (_, paths) in zip(names, given, strict=True)},
        dict(zip(names, results, strict=True)),
    )


def show(table: ComparisonTable, console: Console | None = None) -> None:
    """Prints the table, the verdicts and what they are about."""
    columns, lines = _cells(table)
    shown = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        shown.add_column(column, justify="left" if column in ("task", "policies", "verdict") else "right")
    for row, cells in zip((*table.rows, *table.overall), lines, strict=True):
        style = {"better": "green", "worse": "red", "cannot tell": ""}[row.verdict]
        shown.add_row(*cells[:-1], Text(cells[-1], style=style), end_section=row is table.rows[-1])
    sentences = [f"{row.sentence}." for row in table.verdicts]
    parts: list[Any] = [shown, *(Text(sentence, style="bold") for sentence in sentences), Text(table.scope)]
    if table.different_fields:
        parts.append(Text("The protocols differ, so the policies may not be why:"))
        parts += [Text(f"  {field}") for field in table.different_fields]
    (console or Console()).print(Group(*parts))


def write(
    directory: Path,
    table: ComparisonTable,
    policies: Mapping[str, Sequence[Mapping[str, Results]]],
    paths: Mapping[str, Sequence[Path]],
    command: str | None = None,
) -> list[Path]:
    """Writes the JSON, the Markdown and the page; the page shows videos of the first training of each policy."""
    directory.mkdir(parents=True, exist_ok=True)
    files = [directory / name for name in FILES]
    write_json(files[0], table.to_dict())
    write_text(files[1], to_markdown(table))
    write_text(files[2], _page(directory, table, policies, paths, command))
    return files


def to_markdown(table: ComparisonTable) -> str:
    """The table, the verdicts and what they are about."""
    columns, rows = _cells(table)
    lines = [f"| {' | '.join(cells)} |" for cells in (columns, ["---"] * len(columns), *rows)]
    lines += ["", *(f"- {row.sentence}." for row in table.verdicts), "", table.scope]
    if table.different_fields:
        lines += ["", "The protocols differ, so the policies may not be why:", ""]
        lines += [f"- `{field}`" for field in table.different_fields]
    return "\n".join(lines) + "\n"


def _cells(table: ComparisonTable) -> tuple[list[str], list[list[str]]]:
    """The columns, and of each row its cells: what says the same in each is left out."""
    names, several_tasks = list(table.policies), len(table.tasks) > 1
    one_pair = len(names) == 2
    columns = ["task"] * several_tasks + (names if one_pair else ["policies"]) + ["difference", "p", "verdict"]
    rows = []
    for row in (*table.rows, *table.overall):
        low, high = (f"{100 * end:+.0f}" for end in row.interval)
        rates = [_rate(table.rates[name].get(row.task)) for name in names]
        cells = [row.task] * several_tasks + (rates if one_pair else [f"{row.name_a} against {row.name_b}"])
        rows.append([*cells, f"{100 * row.difference:+.0f} [{low}, {high}]", f"{row.adjusted:.2g}", row.verdict])
    return columns, rows


def _rate(rate: Rate | None) -> str:
    """Without its interval, which is the page's: of two policies it is the difference's that counts."""
    return "" if rate is None else f"{100 * rate.value:.0f} %"


def _page(
    directory: Path,
    table: ComparisonTable,
    policies: Mapping[str, Sequence[Mapping[str, Results]]],
    paths: Mapping[str, Sequence[Path]],
    command: str | None,
) -> str:
    first = {name: trainings[0] for name, trainings in policies.items()}
    places = {name: paths[name][0] for name in policies}
    return render(
        "comparison.html.jinja",
        title=" against ".join(table.policies),
        table=table,
        names=list(table.policies),
        tasks=[
            _task(table, task, {name: tasks[task] for name, tasks in first.items()}, places, directory)
            for task in table.tasks
        ],
        command=command,
        version=menura.__version__,
    )


def _task(
    table: ComparisonTable, task: str, results: Mapping[str, Results], places: Mapping[str, Path], page_directory: Path
) -> dict[str, Any]:
    """What the page shows of a task: of each policy the first training's videos, measures and protocol."""
    names = list(table.policies)
    videos = {name: episode_videos(results[name], _directory(places[name], task), page_directory) for name in names}
    index = {name: {episode.seed: episode.index for episode in results[name].episodes} for name in names}
    protocol = results[names[0]].protocol
    return {
        "name": task,
        "rates": [(name, table.rates[name][task]) for name in names],
        "rows": [row for row in table.rows if row.task == task],
        "seeds": [
            {
                "seed": seed,
                "shares": [shares[name] for name in names],
                "videos": [videos[name].get(index[name][seed]) for name in names],
            }
            for seed, shares in table.outcomes[task].items()
        ],
        "filmed": any(videos.values()),
        "measures": _measures(results),
        "protocol": [(key, text_of(value)) for key, value in flatten(protocol).items()],
        "fingerprint": results[names[0]].fingerprint,
    }


def _measures(results: Mapping[str, Results]) -> list[tuple[str, list[float | None]]]:
    names = dict.fromkeys(name for each in results.values() for name in each.measures)
    return [(name, [each.measures.get(name) for each in results.values()]) for name in names]


def _directory(path: Path, task: str) -> Path:
    """Where the results of a task lie: what its videos' paths are relative to."""
    if path.is_file():
        return path.parent
    for candidate in (path / task, path / IN_RUN / task):
        if (candidate / FILE_NAME).is_file():
            return candidate
    return path
