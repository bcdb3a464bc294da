"""Work on every episode, in order, shared by several processes or by a Ray cluster. Torch-free."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import reduction
from multiprocessing.reduction import ForkingPickler
from typing import Any, Protocol, TypeVar

from menura.errors import DataError

Result = TypeVar("Result")
log = logging.getLogger(__name__)

# How many results may wait, for each process, until those before them are done.
_AHEAD = 4

#: What pickling raises of what cannot be pickled.
CANNOT_TRAVEL = (reduction.pickle.PicklingError, TypeError, AttributeError)  # type: ignore[attr-defined]


class Workers(Protocol):
    """Those who share work.

    Attributes:
        count: how many work at a time; 0 when this process does.
    """

    @property
    def count(self) -> int: ...

    def in_order(self, work: Callable[[int], Result], count: int) -> Generator[Result, None, None]:
        """`work(0) … work(count - 1)`, in order, a bounded number of them ahead of what was taken.

        Whoever closes it early ends the work.

        Raises:
            What `work` raises first.
            DataError: who worked was lost.
        """
        ...


@contextmanager
def open_workers(num_workers: int, *, ray: bool = False) -> Iterator[Workers]:
    """`num_workers` processes of this machine, this one alone when 0; or the cores of a Ray cluster."""
    if not ray:
        yield Processes(num_workers)
        return
    from menura.data.ray_workers import ray_cluster

    with ray_cluster() as cluster:
        yield cluster


@dataclass(frozen=True)
class Processes:
    """Processes of this machine; `work` is passed once to each, and must be picklable to be shared."""

    count: int

    def in_order(self, work: Callable[[int], Result], count: int) -> Generator[Result, None, None]:
        """As `Workers` says."""
        processes = min(self.count, count)
        shared = _pickled(work) if processes > 0 else None
        if shared is None:
            yield from map(work, range(count))
            return
        with ProcessPoolExecutor(processes, _context(), _start, (shared,)) as pool:
            waiting: deque[Future[Result]] = deque()
            try:
                for index in range(count):
                    waiting.append(pool.submit(_call, index))
                    if len(waiting) >= _AHEAD * processes:
                        yield waiting.popleft().result()
                while waiting:
                    yield waiting.popleft().result()
            except BrokenProcessPool as error:
                raise DataError(
                    f"Reading episodes in {processes} processes: expected them to finish, got one that was killed "
                    "(mostly for memory). Take fewer (num_workers)."
                ) from error
            finally:
                pool.shutdown(wait=True, cancel_futures=True)


def _context() -> Any:
    # Fork on Linux: it needs no `if __name__ == "__main__"` in the user's script and starts in milliseconds.
    return multiprocessing.get_context("fork" if sys.platform == "linux" else None)


def _pickled(work: Callable[[int], Any]) -> bytes | None:
    """`work` as multiprocessing passes it to other processes; None, and a warning, when it cannot travel.

    Also under fork, where it could be inherited: so that no open file, and no position in it, is shared.
    """
    try:
        return bytes(ForkingPickler.dumps(work))
    except CANNOT_TRAVEL as error:
        log.warning("Episodes are read by one process, for the dataset cannot be passed to others: %s", error)
        return None


_work: Callable[[int], Any] | None = None


def _start(shared: bytes) -> None:
    global _work
    threading.Thread(target=_end_with_parent, daemon=True).start()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle, once
    if "torch" in sys.modules:  # its thread pool does not survive a fork, and the cores are taken
        sys.modules["torch"].set_num_threads(1)
    _work = ForkingPickler.loads(shared)


def _end_with_parent() -> None:
    """A killed parent cannot end its processes, and an idle one would wait for work, and hold locks, forever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
    os._exit(1)


def _call(index: int) -> Any:
    assert _work is not None
    return _work(index)
