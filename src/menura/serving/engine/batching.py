"""Requests that arrive together are computed together, in a thread of their own, without waiting in vain."""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from menura.serving.engine.arrays import Float32
from menura.serving.engine.errors import Busy
from menura.serving.engine.observing import EngineMetrics
from menura.serving.engine.rows import Row
from menura.serving.engine.worker import Worker

_ENDED = "server: expected one that computes, got one that has ended. Ask again later."

Results = Sequence[Float32 | BaseException]
Compute = Callable[[Sequence[Row]], Results]


@dataclass(frozen=True)
class Computed:
    """A row's actions (T, A), how long it waited for its turn, and how long its batch took."""

    actions: Float32
    waited_s: float
    infer_s: float


@dataclass(frozen=True, eq=False)
class _Waiting:
    row: Row
    arrived_s: float
    answer: asyncio.Future[Computed]


class Batcher:
    """Rows wait here for the worker, in the order they came; those of equal form are computed in one batch.

    While the worker computes, what arrives gathers. When it is free, a batch that is not full waits for others only as
    long as `expecting` says that there may be some, and at most `max_wait_s`. A row whose `compute` is cancelled while
    it waits is not computed. All of it happens in calls of one event loop: nothing waits for a turn of its own.

    Args:
        compute: asked in the worker for each row's actions or error.
        worker: shared with nobody who is slow.
        max_batch: rows of a batch at most.
        max_wait_s: how long the worker may be left idle for a larger batch.
        expecting: told how many wait, whether anybody else may ask soon.
        metrics: is told of each batch and of the queue.
    """

    def __init__(
        self,
        compute: Compute,
        worker: Worker,
        *,
        max_batch: int,
        max_wait_s: float,
        expecting: Callable[[int], bool],
        metrics: EngineMetrics,
    ) -> None:
        self._compute = compute
        self._worker = worker
        self._max_batch = max_batch
        self._max_wait_s = max_wait_s
        self._expecting = expecting
        self._metrics = metrics
        self._waiting: list[_Waiting] = []
        self._computing: list[_Waiting] = []
        self._free_s = float("-inf")  # since when the worker is
        self._alarm: asyncio.TimerHandle | None = None
        self._ended = False

    @property
    def computing(self) -> int:
        """How many rows the worker has."""
        return len(self._computing)

    async def compute(self, row: Row) -> Computed:
        """A row's actions, once it was its turn. Raises the ServingError that the policy's answer is instead."""
        if self._ended:
            raise Busy(_ENDED)
        loop = asyncio.get_running_loop()
        waiting = _Waiting(row, loop.time(), loop.create_future())
        self._waiting.append(waiting)
        loop.call_soon(self.look_again)  # with what else comes in this turn of the loop
        try:
            return await waiting.answer
        except asyncio.CancelledError:  # what nobody waits for takes no memory
            self._leave([waiting])
            raise

    def look_again(self) -> None:
        """Gives the worker its next batch, if there is one that need not wait: whenever something has changed."""
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        if self._computing or not self._waiting or self._ended:
            self._metrics.queue.set(len(self._waiting))
            return
        loop = asyncio.get_running_loop()
        batch = self._oldest_alike()
        rest_s = max(self._free_s, batch[0].arrived_s) + self._max_wait_s - loop.time()
        if len(batch) < self._max_batch and rest_s > 0 and self._expecting(len(self._waiting)):
            self._alarm = loop.call_later(rest_s, self.look_again)
        else:
            self._computing = batch
            self._worker.submit(
                functools.partial(self._timed, [waiting.row for waiting in batch]),
                functools.partial(self._answer, batch, loop.time()),
            )
            self._waiting = [waiting for waiting in self._waiting if waiting not in batch]
        self._metrics.queue.set(len(self._waiting))

    def stop(self) -> None:
        """Compute no more. Who still waits gets Busy."""
        self._ended = True
        for waiting in (*self._computing, *self._waiting):
            if not waiting.answer.done():
                waiting.answer.set_exception(Busy(_ENDED))
        self._leave(self._waiting)

    def _leave(self, gone: Sequence[_Waiting]) -> None:
        self._waiting = [waiting for waiting in self._waiting if waiting not in gone]
        self.look_again()

    def _oldest_alike(self) -> list[_Waiting]:
        """Those who wait longest and can be computed together."""
        oldest, *others = self._waiting
        alike = [waiting for waiting in others if waiting.row.form == oldest.row.form]
        return [oldest, *alike][: self._max_batch]

    def _answer(self, batch: list[_Waiting], begun_s: float, outcome: tuple[Results, float] | BaseException) -> None:
        self._computing = []
        self._free_s = asyncio.get_running_loop().time()
        results, infer_s = ([outcome] * len(batch), 0.0) if isinstance(outcome, BaseException) else outcome
        self._metrics.observe_batch(len(batch), infer_s)
        for waiting, result in zip(batch, results, strict=True):
            if waiting.answer.done():
                continue
            if isinstance(result, BaseException):
                waiting.answer.set_exception(result)
            else:
                waiting.answer.set_result(Computed(result, begun_s - waiting.arrived_s, infer_s))
        self.look_again()

    def _timed(self, rows: list[Row]) -> tuple[Results, float]:
        start = time.perf_counter()
        return self._compute(rows), time.perf_counter() - start
