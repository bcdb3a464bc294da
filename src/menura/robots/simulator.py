"""An environment in a thread of its own, which makes, steps, draws and closes it: OpenGL draws only where it began."""

from __future__ import annotations

import queue
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

from menura.envs.base import SimEnv

Answer = TypeVar("Answer")
_Jobs = queue.SimpleQueue["tuple[Callable[[], Any], Future[Any]] | None"]

#: How often (s) an idle thread looks whether the program has ended.
_LOOKS_S = 0.2


class Simulator:
    """An environment, and the one thread that may touch it. The thread ends, and closes it, when nobody holds this.

    Attributes:
        env: to be used by jobs, and read when no job runs.
    """

    env: SimEnv

    def __init__(self, make: Callable[[], SimEnv]) -> None:
        self._jobs: _Jobs = queue.SimpleQueue()
        made: Future[SimEnv] = Future()
        threading.Thread(target=_work, args=(make, made, self._jobs), name="simulator").start()
        weakref.finalize(self, self._jobs.put, None)
        self.env = made.result()

    def submit(self, job: Callable[[], Answer]) -> Future[Answer]:
        """Done after what was submitted before."""
        answer: Future[Answer] = Future()
        self._jobs.put((job, answer))
        return answer

    def do(self, job: Callable[[], Answer]) -> Answer:
        """Its answer, or its error."""
        return self.submit(job).result()


def _work(make: Callable[[], SimEnv], made: Future[SimEnv], jobs: _Jobs) -> None:
    """The thread. It holds the environment, and nothing that belongs to who uses it."""
    try:
        env = make()
    except BaseException as error:  # noqa: BLE001 (whoever waits for it is told)
        made.set_exception(error)
        return
    made.set_result(env)
    del make, made
    while threading.main_thread().is_alive():
        try:
            job = jobs.get(timeout=_LOOKS_S)
        except queue.Empty:
            continue
        if job is None:
            break
        _do(*job)
        del job
    env.close()


def _do(job: Callable[[], Any], answer: Future[Any]) -> None:
    try:
        answer.set_result(job())
    except BaseException as error:  # noqa: BLE001 (whoever waits for it is told)
        answer.set_exception(error)
