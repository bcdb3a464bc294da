"""The process behind `menura.data.viewing.examination`. Torch-free."""

from __future__ import annotations

import time
from collections.abc import Callable
from multiprocessing.connection import Connection

from rich.progress import Progress, TaskID

from menura.data.checking import check_dataset
from menura.data.readers.base import Reader
from menura.data.tools.describing import dataset_statistics
from menura.errors import MenuraError

_TOLD_S = 0.2


def examine(connection: Connection, open: Callable[[], Reader], cache_dir: str | None) -> None:
    """Sends what changes of `Examination.state`, at last that nothing is done any more."""
    errors: dict[str, str] = {}
    try:
        statistics = dataset_statistics(open(), num_workers=0)  # this process may have none of its own
        connection.send({"statistics": {name: each.to_dict() for name, each in statistics.items()}})
    except MenuraError as error:
        errors["statistics"] = str(error)
    connection.send({"errors": dict(errors), "doing": {"what": "check", "share": None}})
    try:
        report = check_dataset(open(), cache_dir=cache_dir, progress=_Told(connection))
        connection.send({"report": report.to_dict()})
    except MenuraError as error:
        errors["report"] = str(error)
    connection.send({"errors": errors, "doing": None})


class _Told(Progress):
    """A progress that is not drawn but told to the other process."""

    def __init__(self, connection: Connection) -> None:
        super().__init__(disable=True)
        self._connection = connection
        self._next = 0.0

    def advance(self, task_id: TaskID, advance: float = 1) -> None:
        super().advance(task_id, advance)
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + _TOLD_S
            task = self.tasks[-1]
            share = task.completed / (task.total or 1)
            self._connection.send({"doing": {"what": f"check of {task.description}", "share": share}})
