"""`menura data check PATH`."""

from __future__ import annotations

import json as json_
import shlex
import textwrap
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from menura.cli.data.options import Args, Format, Json, Keys, Source, Wrappers, opened

if TYPE_CHECKING:
    from rich.text import Text

    from menura.data.checking import Finding, Report

_COLOURS = {"error": "bold red", "warning": "yellow", "note": "cyan"}
_INDENT = len("warning  ")
# As `menura.data.checking.remedies` writes them.
_COMMAND, _EPISODES = "menura data ", " --episodes "


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
        _show(report, source)
    if report.errors:
        raise typer.Exit(1)


def _show(report: Report, source: str) -> None:
    from rich.console import Console

    console = Console(highlight=False, soft_wrap=True)  # wrapped below, so that a command stays one line to be copied
    for line in _lines(report, source, console.width):
        console.print(line)
    for closing in _closing(report):
        console.print(closing, markup=False)


def _lines(report: Report, source: str, width: int) -> Iterator[Text]:
    """One block a kind of fault, worst first: each finding, then how to mend it."""
    from rich.text import Text

    kinds = [finding.kind for finding in report.findings]
    for kind, block in groupby(
        sorted(report.findings, key=lambda each: kinds.index(each.kind)), lambda each: each.kind
    ):
        findings = list(block)
        for finding in findings:
            what = ": ".join(part for part in (kind, finding.subject, finding.message) if part)
            first, *rest = _wrapped(what, width)
            severity = Text(f"{finding.severity:<{_INDENT}}", style=_COLOURS[finding.severity])
            yield severity + Text(first[_INDENT:], style="default")
            yield from map(Text, rest)
            yield from map(Text, _wrapped(f"{finding.where}; {finding.confidence:.0%} sure", width))
        advice, commands = _remedy(findings)
        yield from (Text(line, style="dim") for line in _wrapped(advice, width))
        yield from (Text(" " * _INDENT + _pasted(command, source), style="dim") for command in commands)


def _wrapped(text: str, width: int) -> list[str]:
    indent = " " * _INDENT
    return textwrap.wrap(
        text, width, initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False, break_long_words=False
    )


def _remedy(findings: Sequence[Finding]) -> tuple[str, list[str]]:
    """Advice on findings of one kind, and the commands: one that leaves out the episodes of all of them."""
    advices, commands = zip(*(_parted(finding.remedy) for finding in findings), strict=True)
    distinct = [command for command in dict.fromkeys(commands) if command]
    if len(distinct) > 1 and all(_EPISODES in command for command in distinct):
        shared = distinct[0].partition(_EPISODES)[0]
        episodes = dict.fromkeys(",".join(command.partition(_EPISODES)[2] for command in distinct).split(","))
        distinct = [shared + _EPISODES + ",".join(episodes)]
    return advices[0], distinct


def _parted(remedy: str) -> tuple[str, str]:
    """What a remedy says, and the command it ends with."""
    advice, command, rest = remedy.partition(_COMMAND)
    return advice, command + rest


def _pasted(command: str, source: str) -> str:
    """The command for this very dataset, to be copied."""
    path = Path(source)
    mended = (path.parent if path.exists() else Path()) / f"{path.name.partition('.')[0] or path.name}_mended"
    return command.replace("SRC", shlex.quote(source)).replace("DST", shlex.quote(str(mended)))


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
