"""What is shown while a robot is controlled: a live table on a terminal, elsewhere a line each second. Torch-free."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from types import TracebackType

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from menura.control.status import ControlledEpisode, Status
from menura.control.timing import Timing
from menura.control.watchdog import Fault

_REDRAWN_EVERY_S = 0.25
_SAID_EVERY_S = 1.0
_STYLES = {"policy": "green", "teleoperator": "cyan", "hold": "bold red", "rest": "yellow"}


class Dashboard:
    """Looks on while it is entered: an observer of a `ControlLoop`.

    The loop only hands its status over; what is drawn is drawn by a thread of the dashboard's own.

    Args:
        title: what is driven by what.
        console: where to; standard error by default.
        keys: which keys there are, in words.
    """

    def __init__(self, title: str, *, console: Console | None = None, keys: str = "") -> None:
        self._title = title
        self._console = Console(stderr=True) if console is None else console
        self._keys = keys
        self._status: Status | None = None
        self._told: dict[int, bool] = {}  # fault -> whether its end was told
        self._faults: Sequence[Fault] = ()
        self._live: Live | None = None
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None

    def __call__(self, status: Status) -> None:
        self._status = status

    def __enter__(self) -> Dashboard:
        self._status = None
        self._closing.clear()
        if self._console.is_terminal:
            self._live = Live(console=self._console, auto_refresh=False, transient=True)
            self._live.start()
        self._thread = threading.Thread(target=self._run, name="dashboard", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closing.set()
        if self._thread is not None:
            self._thread.join()
        if self._live is not None:
            self._live.stop()
            self._live = None

    def say(self, text: str) -> None:
        """A line that stays."""
        self._console.print(text, highlight=False, markup=False, soft_wrap=True)

    def _run(self) -> None:
        every_s = _REDRAWN_EVERY_S if self._live is not None else _SAID_EVERY_S
        while not self._closing.wait(every_s):
            self._show()
        self._tell_faults()

    def _show(self) -> None:
        self._tell_faults()
        status = self._status
        if status is None:
            return
        if self._live is not None:
            self._live.update(self._panel(status), refresh=True)
        else:
            self.say(line(status))

    def _tell_faults(self) -> None:
        """Faults that began or ended since the last time."""
        status = self._status
        if status is None:
            return
        if status.faults is not self._faults:  # another episode
            self._faults, self._told = status.faults, {}
        for number, fault in enumerate(list(status.faults)):
            over = fault.ended_s is not None
            if self._told.get(number) != over:
                self._told[number] = over
                self.say(f"{'over: ' if over else ''}{fault}")

    def _panel(self, status: Status) -> Group:
        head = Text.assemble((self._title, "bold"), f"  {status.time_s:.1f} s  ", (_mode(status), _STYLES[status.mode]))
        plan = Table.grid(padding=(0, 2))
        plan.add_row("plan     ", _number(status), ProgressBar(total=1.0, completed=status.plan_rest, width=30))
        timing = status.timing()
        counted = Table.grid(padding=(0, 2))
        for name, counts in (("held", timing.holds), ("clipped", timing.clipped)):
            counted.add_row(f"{name:9}", _counted(counts) or "never")
        return Group(head, plan, _rates(timing), counted, Text(self._keys, style="dim"))


def _rates(timing: Timing) -> Table:
    """How fast each of the three goes, how late, old or slow it is (ms), and what went wrong."""
    seconds = max(timing.seconds, 1e-9)
    wrong = {"errors": timing.inference_errors, **timing.refused, "reconnects": timing.reconnects}
    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column("")
    for column in ("Hz", "ms: p50", "p99", "max"):
        table.add_column(column, justify="right", header_style="dim")
    table.add_column("")
    for name, count, spread, counts in (
        ("control", timing.ticks, timing.jitter_ms, {"missed": timing.missed, "overruns": timing.overruns}),
        ("sensing", timing.observations, timing.observation_age_ms, {"errors": timing.observation_errors}),
        ("inference", timing.inferences, timing.inference_ms, wrong),
    ):
        numbers = (count / seconds, spread.p50, spread.p99, spread.max)
        told = {"control": "late", "sensing": "old", "inference": "took"}[name]
        table.add_row(name, *(f"{number:.1f}" for number in numbers), Text(f"{told}  ", style="dim") + _counted(counts))
    return table


def line(status: Status) -> str:
    """All of it on one line, for a log."""
    timing = status.timing()
    age = "-" if status.observation_age_s is None else f"{1e3 * status.observation_age_s:.0f}"
    return (
        f"{status.time_s:7.1f} s  {_mode(status)}  chunk {_number(status)}  observation {age} ms  "
        f"inference {timing.inference_ms.p50:.0f}/{timing.inference_ms.p99:.0f} ms  "
        f"jitter {timing.jitter_ms.p99:.2f} ms  missed {timing.missed}  held {sum(timing.holds.values())}  "
        f"clipped {sum(timing.clipped.values())}"
    )


def summary(episodes: Sequence[ControlledEpisode]) -> Table:
    """A row an episode; jitter and inference are their p99 in ms."""
    table = Table(box=None, padding=(0, 1, 0, 0))
    for column in ("#", "ended", "s", "steps", "missed", "jitter", "inference", "held", "clipped", "faults"):
        table.add_column(column, justify="left" if column == "ended" else "right", no_wrap=True)
    for number, episode in enumerate(episodes):
        timing = episode.timing
        table.add_row(
            str(number),
            episode.ended,
            f"{timing.seconds:.1f}",
            str(episode.steps),
            str(timing.missed),
            f"{timing.jitter_ms.p99:.2f}",
            f"{timing.inference_ms.p99:.0f}",
            str(sum(timing.holds.values())),
            str(sum(timing.clipped.values())),
            str(len(episode.faults)),
        )
    return table


def _mode(status: Status) -> str:
    return f"{status.mode} ({status.reason})" if status.reason else status.mode


def _number(status: Status) -> str:
    if status.number is None or status.plan_age_s is None:
        return "-"
    return f"{status.number}, {1e3 * status.plan_age_s:.0f} ms old"


def _counted(counts: Mapping[str, int]) -> str:
    """What happened, and how often."""
    return ", ".join(f"{reason} {count}" for reason, count in counts.items() if count)
