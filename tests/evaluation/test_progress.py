"""The live table of an evaluation, and its lines where there is no terminal."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from typing import Any

import pytest

from menura.evaluation import progress
from menura.evaluation.confidence_sequences import rate_sequence
from menura.evaluation.progress import EpisodeTable
from menura.evaluation.results import EpisodeResult
from menura.evaluation.runner import open_pool, run_episodes
from menura.evaluation.sequential import until_interval
from menura.evaluation.statistics import wilson


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """A line an episode; and rich takes no variable of the shell's for a terminal."""
    monkeypatch.setattr(progress, "_SAID_EVERY_S", 0.0)
    for name in ("FORCE_COLOR", "TTY_COMPATIBLE"):
        monkeypatch.delenv(name, raising=False)


def episode(index: int, success: bool) -> EpisodeResult:
    return EpisodeResult(index, index, success, 0.0, 1, 0.1)


def told(interval: tuple[float, float]) -> str:
    return f"[{interval[0]:.0%}, {interval[1]:.0%}]"


def test_plain_lines_tell_what_a_table_would(capsys: pytest.CaptureFixture[str]) -> None:
    with EpisodeTable() as table:
        table.announce(["reach", "push"])
        row = table.row("reach", 4, finished=1, successes=1)  # one of an earlier call
        for index in range(1, 4):
            row.add(episode(index, success=index != 2))
        row.end()
    out, err = capsys.readouterr()
    lines = [re.sub(r"\d+ s", "N s", line) for line in err.splitlines()]
    assert lines == [
        f"reach: 2 of 4 episodes, 100% succeed {told(wilson(2, 2))}, N s left",
        f"reach: 3 of 4 episodes, 67% succeed {told(wilson(2, 3))}, N s left",
        f"reach: 4 of 4 episodes, 75% succeed {told(wilson(3, 4))}, N s",
    ]
    assert out.strip() == ""


def test_nothing_is_said_where_nothing_is_asked(capsys: pytest.CaptureFixture[str]) -> None:
    with EpisodeTable(enabled=False) as table:
        row = table.row("reach", 1)
        row.add(episode(0, success=True))
        row.end()
    assert capsys.readouterr() == ("", "")


def test_under_a_stopping_rule_it_is_the_interval_that_stays_valid(
    toy: Any, toy_env: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    with open_pool(toy_env(), num_envs=1, num_workers=1) as pool:
        found = run_episodes(toy.ToyPolicy(), pool, seeds=range(100, 103), num_envs=1, stop=until_interval(0.1))
    last = capsys.readouterr().err.splitlines()[-1]
    assert f"succeed {told(rate_sequence(found.successes, 3))}" in last
    assert told(found.interval) in last


TABLE = """
from menura.evaluation.progress import EpisodeTable
from menura.evaluation.results import EpisodeResult

with EpisodeTable() as table:
    table.announce(["reach", "push"])
    row = table.row("reach", 4)
    for index in range(3):
        row.add(EpisodeResult(index, index, index != 1, 0.0, 1, 0.1))
    row.end()
"""


@pytest.mark.skipif(not hasattr(os, "openpty"), reason="needs a pseudo-terminal")
def test_on_a_terminal_each_task_has_its_row() -> None:
    ours, theirs = os.openpty()
    environment = {**os.environ, "COLUMNS": "120", "TERM": "xterm"}
    done = subprocess.run([sys.executable, "-c", TABLE], stdout=theirs, stderr=subprocess.PIPE, env=environment)
    os.close(theirs)
    shown = os.read(ours, 65536).decode()
    os.close(ours)
    assert (done.returncode, done.stderr) == (0, b"")
    last = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", shown).splitlines()[-2:]
    assert re.match(rf"reach .* 3/4 67% succeed {re.escape(told(wilson(2, 3)))} ", last[0])
    assert re.match(r"push .* 0/\? ", last[1])
