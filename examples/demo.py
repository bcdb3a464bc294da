"""The main job, twice: record demonstrations, train, evaluate, compare with baselines, report.

ALOHA transfer cube from state, and MetaWorld button-press-topdown from one 84×84 camera. Every step is a command that
you can type yourself; it is printed before it runs. Run again, it goes on where it stopped.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from menura.evaluation.report import Section, write_report
from menura.evaluation.results import Results

MENURA = [sys.executable, "-m", "menura.cli.main"]
EPISODES = 50
console = Console()


@dataclass(frozen=True)
class Part:
    """One task of the demo."""

    task: str
    title: str
    needs_rendering: bool


PARTS = (
    Part("aloha_transfer", "ALOHA transfer cube, state", needs_rendering=False),
    Part("metaworld_button_press_topdown", "MetaWorld button press, pixels", needs_rendering=True),
)


def can_render() -> bool:
    probe = [sys.executable, "-c", "from menura.envs.rendering import require_rendering; require_rendering()"]
    return subprocess.run(probe, capture_output=True, check=False).returncode == 0


def say(arguments: list[str], note: str = "") -> None:
    console.print(f"\n[bold]$ menura {shlex.join(arguments)}[/bold]{note}", highlight=False)


def menura(arguments: list[str], cwd: Path) -> None:
    """Runs one command in the foreground; its failure is the demo's."""
    say(arguments)
    code = subprocess.run([*MENURA, *arguments], cwd=cwd, check=False).returncode
    if code:
        sys.exit(code)


def run_part(part: Part, cwd: Path, videos: bool) -> None:
    """Collects, trains (the blind baseline beside it, on the other core), evaluates."""
    menura(["collect", part.task], cwd)
    blind = ["train", part.task, "--blind"]
    say(blind, "   (beside the next, on the other core)")
    with (cwd / f"{part.task}-blind.log").open("w") as log:
        beside = subprocess.Popen([*MENURA, *blind], cwd=cwd, stdout=log, stderr=subprocess.STDOUT)
        try:
            menura(["train", part.task], cwd)
            if beside.wait():
                console.print((cwd / f"{part.task}-blind.log").read_text())
                sys.exit(1)
        finally:
            beside.kill()
    videos_flag = [] if videos else ["--videos", "0"]
    menura(
        ["eval", "-m", f"runs/{part.task}", "--episodes", str(EPISODES), "--baselines", "--resume", *videos_flag], cwd
    )


def row(part: Part, section: Section) -> list[str]:
    """One line of the table."""
    log = json.loads((section.run / "trainer_state.json").read_text())["log_history"]
    train_s = next(entry["train_runtime"] for entry in reversed(log) if "train_runtime" in entry)
    low, high = section.results.interval
    rates = {name: f"{of.successes}/{of.asked}" for name, of in section.results.baselines.items()}
    return [
        part.title,
        f"{section.results.successes}/{section.results.asked} [{low:.0%}, {high:.0%}]",
        rates["blind"],
        rates["random"],
        f"{train_s:.0f} s",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--directory", type=Path, default=Path("demo"), help="where data, runs and report go")
    cwd = parser.parse_args().directory.absolute()
    cwd.mkdir(parents=True, exist_ok=True)
    rendering = can_render()
    if not rendering:
        console.print("Nothing can be drawn on this machine: the part from pixels and all videos are left out.")
    start = time.monotonic()
    table = Table(box=None, pad_edge=False)
    for column in ("task", "success [95 %]", "blind", "random", "training"):
        table.add_column(column, no_wrap=True)
    sections = []
    for part in PARTS:
        if part.needs_rendering and not rendering:
            continue
        run_part(part, cwd, videos=rendering)
        run = cwd / "runs" / part.task
        command = f"menura eval -m runs/{part.task} --episodes {EPISODES} --baselines"
        sections.append(Section(part.title, Results.load(run / "evaluation"), run / "evaluation", run, command))
        table.add_row(*row(part, sections[-1]))
    report = write_report(cwd / "report.html", sections, title="Menura: the demo")
    console.print()
    console.print(table)
    console.print()
    for section in sections:
        console.print(os.path.relpath(section.run), highlight=False, soft_wrap=True)
    console.print(os.path.relpath(report), highlight=False, soft_wrap=True)
    console.print(f"{time.monotonic() - start:.0f} s in all")


if __name__ == "__main__":
    main()
