"""Work on every episode, in order, shared by several processes."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable, Generator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import reduction
from multiprocessing.reduction import ForkingPickler
from typing import Any, TypeVar

import torch

from menura.errors import DataError

Result = TypeVar("Result")
log = logging.getLogger(__name__)

# How many results may wait, for each process, until those before them are done.
_AHEAD = 4


def in_order(work: Callable[[int], Result], count: int, num_workers: int) -> Generator[Result, None, None]:
    """`work(0) … work(count - 1)`, in order, computed by `num_workers` processes (by this one when 0).

    Args:
        work: passed once to every process; it must be picklable to be shared.
        count: how many results.
        num_workers: how many processes.
    """
    shared = _pickled(work) if num_workers > 0 else None
    if shared is None:
        yield from map(work, range(count))
        return
    with ProcessPoolExecutor(num_workers, _context(), _start, (shared,)) as pool:
        waiting: deque[Future[Result]] = deque()
        try:
            for index in range(count):
                waiting.append(pool.submit(_call, index))
                if len(waiting) >= _AHEAD * num_workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        except BrokenProcessPool as error:
            raise DataError(
                f"Reading episodes in {num_workers} processes: expected them to finish, got one that was killed "
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
    cannot_travel = (reduction.pickle.PicklingError, TypeError, AttributeError)  # type: ignore[attr-defined]
    try:
        return bytes(ForkingPickler.dumps(work))
    except cannot_travel as error:
        log.warning("Episodes are read by one process, for the dataset cannot be passed to others: %s", error)
        return None


_work: Callable[[int], Any] | None = None


def _start(shared: bytes) -> None:
    global _work
    threading.Thread(target=_end_with_parent, daemon=True).start()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle, once
    torch.set_num_threads(1)  # torch's thread pool does not survive a fork, and the cores are taken
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
