"""`menura data check PATH`."""

from __future__ import annotations

import json as json_
from itertools import groupby
from typing import TYPE_CHECKING, Annotated

import typer

from menura.cli.data.options import Args, Format, Json, Keys, Source, Wrappers, opened

if TYPE_CHECKING:
    from rich.table import Table

    from menura.data.checking import Report

_COLOURS = {"error": "bold red", "warning": "yellow", "note": "cyan"}


def check(
    source: Source,
    format: Format = None,
    keys: Keys = None,
    args: Args = None,
    wrappers: Wrappers = None,
    full: Annotated[bool, typer.Option("--full", help="Look at every frame of every camera.")] = False,
    json: Json = False,
) -> None:
    """Look for what is wrong with a dataset; exit code 1 when there are errors."""
    from menura.data.checking import check_dataset

    reader = opened(source, format, keys, args, wrappers=wrappers)
    report = check_dataset(reader, pictures="all" if full else "sampled", progress=True)
    if json:
        typer.echo(json_.dumps(report.to_dict(), indent=2))
    else:
        _show(report)
    if report.errors:
        raise typer.Exit(1)


def _show(report: Report) -> None:
    from rich.console import Console

    console = Console(highlight=False)
    if report.findings:
        console.print(_table(report))
    for line in _closing(report):
        console.print(line, soft_wrap=True, markup=False)


def _table(report: Report) -> Table:
    """One block a kind of fault, worst first: each finding, then how to mend it."""
    from rich.table import Table
    from rich.text import Text

    table = Table(show_header=True, header_style="bold", box=None, pad_edge=False)
    for title in ("", "fault", "what", "where", "sure"):
        table.add_column(title, no_wrap=title in ("", "fault", "sure"))
    findings = sorted(report.findings, key=lambda finding: [each.kind for each in report.findings].index(finding.kind))
    for kind, group in groupby(findings, key=lambda finding: finding.kind):
        block = list(group)
        for number, finding in enumerate(block):
            what = f"{finding.subject}: {finding.message}" if finding.subject else finding.message
            severity = Text(finding.severity, style=_COLOURS[finding.severity])
            name = kind if number == 0 else ""
            table.add_row(severity, name, Text(what), Text(finding.where), f"{finding.confidence:.0%}")
        table.add_row("", "", Text(block[0].remedy, style="dim"), "", "", end_section=True)
    return table


def _counted(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"


def _closing(report: Report) -> list[str]:
    from menura.data.checking.report import SEVERITIES

    counts = [_counted(len(report.of(severity)), severity) for severity in SEVERITIES]
    lines = [f"{report.dataset}: {report.episodes:,} episodes, {report.frames:,} frames: {', '.join(counts)}."]
    if report.seen:
        lines.append(f"Looked at: all tables; {'; '.join(report.seen)}.")
    if guess := report.facts.get("control_type"):
        lines.append(f"The dataset does not say whether actions are absolute or delta; they look {guess}.")
    return lines
