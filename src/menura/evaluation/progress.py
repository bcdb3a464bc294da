"""What is shown while episodes run: how many, how many succeed, how certain that is, how long it will take."""

from __future__ import annotations

from types import TracebackType

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from menura.evaluation.results import EpisodeResult
from menura.evaluation.statistics import wilson


class EpisodeProgress:
    """A live line on a terminal; nothing elsewhere."""

    def __init__(self, title: str, total: int, finished: int = 0, successes: int = 0, enabled: bool = True) -> None:
        self._finished, self._successes = finished, successes
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(compact=True),
            disable=not enabled,
        )
        self._task = self._progress.add_task(title, total=total, completed=finished, rate=self._rate())

    def add(self, episode: EpisodeResult) -> None:
        self._finished += 1
        self._successes += episode.success
        self._progress.update(self._task, completed=self._finished, rate=self._rate())

    def _rate(self) -> str:
        if not self._finished:
            return ""
        low, high = wilson(self._successes, self._finished)
        return f"{self._successes / self._finished:.0%} succeed [{low:.0%}, {high:.0%}]"

    def __enter__(self) -> EpisodeProgress:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._progress.stop()
