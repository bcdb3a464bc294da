"""One thread that computes, so that the event loop never does."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import queue
import threading
from collections.abc import Callable
from typing import Any, TypeVar

from menura.priority import ANSWERING, go_first

Result = TypeVar("Result")

#: Begins the name of every such thread.
NAME = "inference"


class Worker:
    """Computes what it is given in its own thread, one after the other.

    It is handed work, and hands back, without the futures and locks of an executor: on a busy computer each of them is
    another wait for the scheduler. The thread ends with the process, whatever it is doing.

    Args:
        goes_first: whether the thread goes first (`menura.priority`).
    """

    def __init__(self, goes_first: bool = False) -> None:
        self._goes_first = goes_first
        self._work: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        threading.Thread(target=self._run, name=NAME, daemon=True).start()

    def submit(self, compute: Callable[[], Result], done: Callable[[Result | BaseException], None]) -> None:
        """Has `done` called in this event loop with what was computed, or with the error that it raised."""
        self._work.put(functools.partial(_compute, compute, done, asyncio.get_running_loop()))

    async def ask(self, compute: Callable[[], Result]) -> Result:
        """What was computed."""
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

        def done(outcome: Result | BaseException) -> None:
            if answer.done():  # nobody waits any more
                return
            if isinstance(outcome, BaseException):
                answer.set_exception(outcome)
            else:
                answer.set_result(outcome)

        self.submit(compute, done)
        result: Result = await answer
        return result

    def end(self) -> None:
        """Computes what it was given already, and nothing after it."""
        self._work.put(None)

    def _run(self) -> None:
        if self._goes_first:
            go_first(ANSWERING)
        while (work := self._work.get()) is not None:
            work()


def _compute(
    compute: Callable[[], Result], done: Callable[[Result | BaseException], None], loop: asyncio.AbstractEventLoop
) -> None:
    outcome: Result | BaseException
    try:
        outcome = compute()
    except BaseException as error:  # noqa: BLE001  (raised where it is waited for)
        outcome = error
    with contextlib.suppress(RuntimeError):  # the loop was closed meanwhile: nobody waits
        loop.call_soon_threadsafe(done, outcome)
