"""Statistics and the check of a dataset, made in the background while its episodes are looked at. Torch-free."""

from __future__ import annotations

from collections.abc import Callable
from threading import Lock, Thread
from typing import Any

from rich.progress import Progress

from menura.data.checking import Report, check_dataset
from menura.data.readers.base import Reader
from menura.data.statistics import Statistics
from menura.data.tools.describing import dataset_statistics
from menura.errors import MenuraError


class Examination:
    """Begins when it is first asked how far it is.

    Args:
        open: opens the dataset once more, for this thread.
        cache_dir: where the check's report is kept; as `check_dataset`.
    """

    def __init__(self, open: Callable[[], Reader], cache_dir: str | None = None) -> None:
        self._open = open
        self._cache_dir = cache_dir
        self._thread: Thread | None = None
        self._starting = Lock()
        self._bar = Progress(disable=True)
        self._statistics: dict[str, Statistics] | None = None
        self._report: Report | None = None
        self._errors: dict[str, str] = {}

    def state(self) -> dict[str, Any]:
        """JSON-able: `statistics` and `report`, None until they are there; `errors` of each; `doing`: (what, share)."""
        with self._starting:
            if self._thread is None:
                self._thread = Thread(target=self._run, name="examination", daemon=True)
                self._thread.start()
        statistics = self._statistics
        return {
            "statistics": None if statistics is None else {key: each.to_dict() for key, each in statistics.items()},
            "report": None if self._report is None else self._report.to_dict(),
            "errors": self._errors,
            "doing": self._doing() if self._thread.is_alive() else None,
        }

    def wait(self) -> None:
        """Until all is there."""
        self.state()
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        try:
            self._statistics = dataset_statistics(self._open())
        except MenuraError as error:
            self._errors = {**self._errors, "statistics": str(error)}
        try:
            self._report = check_dataset(self._open(), cache_dir=self._cache_dir, progress=self._bar)
        except MenuraError as error:
            self._errors = {**self._errors, "report": str(error)}

    def _doing(self) -> dict[str, Any]:
        if self._statistics is None and "statistics" not in self._errors:
            return {"what": "statistics", "share": None}
        tasks = self._bar.tasks
        if not tasks:
            return {"what": "check", "share": None}
        return {"what": f"check of {tasks[-1].description}", "share": tasks[-1].completed / (tasks[-1].total or 1)}
