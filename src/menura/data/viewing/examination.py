"""Statistics and the check of a dataset, made by another process while its episodes are looked at. Torch-free."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from collections.abc import Callable
from multiprocessing.connection import Connection
from threading import Lock
from typing import Any

from menura.data.readers.base import Reader

_NICER = 10  # playing goes first


class Examination:
    """What there is to know of a dataset as a whole; made when first asked for.

    A process of its own, for it keeps an interpreter busy, and this one has frames to deliver. It is forked before the
    server has threads, and waits.

    Args:
        open: opens the dataset in that process.
        cache_dir: where the check's report is kept; as `check_dataset`.
    """

    def __init__(self, open: Callable[[], Reader], cache_dir: str | None = None) -> None:
        context: Any = multiprocessing.get_context("fork" if sys.platform == "linux" else None)
        self._connection, theirs = context.Pipe()
        ends = (theirs, self._connection if sys.platform == "linux" else None)
        self._process = context.Process(target=_examine, args=(*ends, open, cache_dir), daemon=True)
        self._process.start()
        theirs.close()
        self._lock = Lock()
        self._asked = False
        self._state: dict[str, Any] = {"statistics": None, "report": None, "errors": {}, "doing": None}

    def state(self) -> dict[str, Any]:
        """JSON-able: `statistics` and `report`, None until they are there; `errors` of each; `doing`: {what, share}."""
        with self._lock:
            if not self._asked:
                self._asked = True
                self._state["doing"] = {"what": "statistics", "share": None}
                self._connection.send("begin")
            try:
                while self._state["doing"] is not None and self._connection.poll():
                    self._state = {**self._state, **self._connection.recv()}
            except (EOFError, ConnectionError):
                self._lost()
            return self._state

    def _lost(self) -> None:
        """The process ended without its last message: a class of the user's raised an error, or it was killed."""
        message = "The process that examines the dataset ended; menura data check says why."
        missing = {what: message for what in ("statistics", "report") if self._state[what] is None}
        self._state = {**self._state, "errors": {**missing, **self._state["errors"]}, "doing": None}

    def end(self) -> None:
        """Whatever is being done."""
        self._process.terminate()
        self._process.join()
        self._connection.close()


def _examine(
    connection: Connection, other_end: Connection | None, open: Callable[[], Reader], cache_dir: str | None
) -> None:
    """The process; what it needs is imported there."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's, whose end is ours
    if other_end is not None:
        other_end.close()
    try:
        connection.recv()
        if hasattr(os, "nice"):
            os.nice(_NICER)
        from menura.data.viewing.examining import examine

        examine(connection, open, cache_dir)
    except (EOFError, ConnectionError):  # nobody looks any more
        return
