"""Requests that arrive together are computed together, in a thread of their own, without waiting in vain."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass

from menura.serving.arrays import Float32
from menura.serving.errors import Busy, ServingError
from menura.serving.observing import EngineMetrics
from menura.serving.rows import Row

_ENDED = "server: expected one that computes, got one that has ended. Ask again later."

Compute = Callable[[Sequence[Row]], list[Float32 | ServingError]]


@dataclass(frozen=True)
class Computed:
    """A row's actions (T, A), how long it waited for its turn, and how long its batch took."""

    actions: Float32
    waited_s: float
    infer_s: float


@dataclass(frozen=True, eq=False)
class _Waiting:
    row: Row
    form: tuple[object, ...]
    arrived_s: float
    answer: asyncio.Future[Computed]


class Batcher:
    """Rows wait here for the worker, in the order they came; those of equal form are computed in one batch.

    While the worker computes, what arrives gathers. When it is free, a batch that is not full waits for others only as
    long as `expecting` says that there may be some, and at most `max_wait_s`. A row whose `compute` is cancelled while
    it waits is not computed.

    Args:
        compute: asked in the worker for each row's actions or error.
        worker: one thread, shared with nobody who is slow.
        max_batch: rows of a batch at most.
        max_wait_s: how long the worker may be left idle for a larger batch.
        expecting: told how many wait, whether anybody else may ask soon.
        metrics: is told of each batch and of the queue.
    """

    def __init__(
        self,
        compute: Compute,
        worker: Executor,
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
        self._changed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self.computing = 0

    def start(self) -> None:
        """Begin to compute."""
        self._task = asyncio.get_running_loop().create_task(self._run(), name="batches")

    async def compute(self, row: Row) -> Computed:
        """A row's actions, once it was its turn. Raises the ServingError that the policy's answer is instead."""
        if self._task is None or self._task.done():
            raise Busy(_ENDED)
        loop = asyncio.get_running_loop()
        waiting = _Waiting(row, row.form, loop.time(), loop.create_future())
        self._set_waiting([*self._waiting, waiting])
        self._changed.set()
        try:
            return await waiting.answer
        finally:  # also when it is cancelled: what nobody waits for takes no memory
            self._set_waiting([other for other in self._waiting if other is not waiting])

    def look_again(self) -> None:
        """What `expecting` says has changed."""
        self._changed.set()

    async def stop(self) -> None:
        """Compute no more. Who still waits gets Busy."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        for waiting in self._waiting:
            if not waiting.answer.done():
                waiting.answer.set_exception(Busy(_ENDED))

    async def _run(self) -> None:
        while True:
            batch = await self._next()
            self.computing = len(batch)
            try:
                await self._answer(batch)
            finally:
                self.computing = 0

    async def _next(self) -> list[_Waiting]:
        """The next batch, taken out of those who wait."""
        loop = asyncio.get_running_loop()
        free_s = loop.time()
        while True:
            self._changed.clear()
            batch = self._oldest_alike()
            if batch:
                rest_s = max(free_s, batch[0].arrived_s) + self._max_wait_s - loop.time()
                if len(batch) == self._max_batch or rest_s <= 0 or not self._expecting(len(self._waiting)):
                    self._set_waiting([waiting for waiting in self._waiting if waiting not in batch])
                    return batch
                alarm = loop.call_later(rest_s, self._changed.set)
                await self._changed.wait()
                alarm.cancel()
            else:
                await self._changed.wait()

    def _oldest_alike(self) -> list[_Waiting]:
        """Those who wait longest and can be computed together."""
        there = [waiting for waiting in self._waiting if not waiting.answer.done()]
        return [waiting for waiting in there if waiting.form == there[0].form][: self._max_batch]

    def _set_waiting(self, waiting: list[_Waiting]) -> None:
        self._waiting = waiting
        self._metrics.queue.set(len(waiting))

    async def _answer(self, batch: list[_Waiting]) -> None:
        loop = asyncio.get_running_loop()
        begun_s = loop.time()
        rows = [waiting.row for waiting in batch]
        try:
            results, infer_s = await loop.run_in_executor(self._worker, self._timed, rows)
        except BaseException:  # the server ends
            self._waiting = batch + self._waiting
            raise
        self._metrics.observe_batch(len(rows), infer_s)
        for waiting, result in zip(batch, results, strict=True):
            if waiting.answer.done():
                continue
            if isinstance(result, ServingError):
                waiting.answer.set_exception(result)
            else:
                waiting.answer.set_result(Computed(result, begun_s - waiting.arrived_s, infer_s))

    def _timed(self, rows: list[Row]) -> tuple[list[Float32 | ServingError], float]:
        start = time.perf_counter()
        return self._compute(rows), time.perf_counter() - start
