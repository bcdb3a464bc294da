"""What is computed together, what waits, and for how long."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import numpy as np

from menura.chunks import PreviousChunk
from menura.meta_policy import MetaPolicy
from menura.serving.engine.batching import Batcher
from menura.serving.engine.errors import Busy, PolicyFailed, RequestRefused
from menura.serving.engine.observing import Unheard
from menura.serving.engine.rows import Row, predict_rows
from menura.serving.engine.worker import Worker


def row(value: float, width: int = 1) -> Row:
    return Row(({"state": np.full(width, value, np.float32), "images": {}},))


class Doubling:
    """Answers twice the state; waits at `gate`."""

    def __init__(self) -> None:
        self.batches: list[list[float]] = []
        self.gate = threading.Event()
        self.gate.set()

    def __call__(self, rows: Sequence[Row]) -> list[Any]:
        self.batches.append([float(one.views[0]["state"][0]) for one in rows])
        assert self.gate.wait(30)
        return [PolicyFailed("no") if value < 0 else np.full(1, 2 * value) for value in self.batches[-1]]


@asynccontextmanager
async def batching(doubling: Doubling, **settings: Any) -> AsyncIterator[Batcher]:
    usual: dict[str, Any] = {"max_batch": 3, "max_wait_s": 5.0, "expecting": lambda waiting: False}
    usual["metrics"] = Unheard()
    worker = Worker()
    batcher = Batcher(doubling, worker, **usual | settings)
    yield batcher
    doubling.gate.set()
    batcher.stop()
    worker.end()


def test_what_waits_is_computed_in_order_and_together() -> None:
    doubling = Doubling()

    async def ask() -> None:
        async with batching(doubling) as batcher:
            doubling.gate.clear()
            asked = [asyncio.ensure_future(batcher.compute(row(value))) for value in range(6)]
            asked.insert(2, asyncio.ensure_future(batcher.compute(row(10, width=2))))
            while not doubling.batches:
                await asyncio.sleep(0.001)
            doubling.gate.set()
            answers = [answer.actions.item() for answer in await asyncio.gather(*asked)]
            assert answers == [0, 2, 20, 4, 6, 8, 10]

    asyncio.run(ask())
    assert doubling.batches == [[0, 1, 2], [3, 4, 5], [10]]


def test_a_batch_waits_while_others_may_come() -> None:
    doubling = Doubling()

    async def ask() -> None:
        async with batching(doubling, expecting=lambda waiting: waiting < 2) as batcher:
            first = asyncio.ensure_future(batcher.compute(row(1)))
            await asyncio.sleep(0.02)
            assert not doubling.batches
            await asyncio.gather(first, batcher.compute(row(2)))

    asyncio.run(ask())
    assert doubling.batches == [[1, 2]]


def test_a_batch_does_not_wait_for_ever() -> None:
    doubling = Doubling()

    async def ask() -> None:
        async with batching(doubling, max_wait_s=0.01, expecting=lambda waiting: True) as batcher:
            await batcher.compute(row(1))

    asyncio.run(ask())
    assert doubling.batches == [[1]]


def test_whoever_leaves_while_others_are_waited_for_is_forgotten() -> None:
    doubling = Doubling()
    expected = [True]

    async def ask() -> None:
        async with batching(doubling, expecting=lambda waiting: expected[0]) as batcher:
            gone = asyncio.ensure_future(batcher.compute(row(1)))
            await asyncio.sleep(0.01)
            gone.cancel()
            stays = asyncio.ensure_future(batcher.compute(row(2)))
            await asyncio.sleep(0.01)
            expected[0] = False
            batcher.look_again()
            await stays

    asyncio.run(ask())
    assert doubling.batches == [[2]]


class Watching(Unheard):
    """Remembers how long the queue was."""

    def __init__(self) -> None:
        self.lengths: list[float] = []

    def set(self, value: float) -> None:
        self.lengths.append(value)


def test_whoever_leaves_takes_no_room_in_a_long_inference() -> None:
    doubling, watching = Doubling(), Watching()

    async def ask() -> None:
        async with batching(doubling, metrics=watching) as batcher:
            doubling.gate.clear()
            running = asyncio.ensure_future(batcher.compute(row(1)))
            while not doubling.batches:
                await asyncio.sleep(0.001)
            for _ in range(5):
                leaving = asyncio.ensure_future(batcher.compute(row(2)))
                await asyncio.sleep(0)
                leaving.cancel()
                await asyncio.sleep(0.001)
                assert watching.lengths[-1] == 0
            doubling.gate.set()
            await running

    asyncio.run(ask())
    assert max(watching.lengths) == 1
    assert doubling.batches == [[1]]


def test_errors_are_of_their_row_alone() -> None:
    doubling = Doubling()

    async def ask() -> list[Any]:
        async with batching(doubling) as batcher:
            return await asyncio.gather(*(batcher.compute(row(value)) for value in (1, -1)), return_exceptions=True)

    good, bad = asyncio.run(ask())
    assert good.actions.item() == 2
    assert isinstance(bad, PolicyFailed)


def test_whoever_waits_at_the_end_is_told() -> None:
    doubling = Doubling()

    async def ask() -> list[Any]:
        async with batching(doubling, max_batch=1) as batcher:
            doubling.gate.clear()
            asked = [asyncio.ensure_future(batcher.compute(row(value))) for value in (1, 2)]
            await asyncio.sleep(0.01)
            batcher.stop()
            doubling.gate.set()
            return await asyncio.gather(*asked, return_exceptions=True)

    assert [type(answer) for answer in asyncio.run(ask())] == [Busy, Busy]


def sight_row(message: dict[str, Any], **more: Any) -> Row:
    return Row(({key: message[key] for key in ("state", "images")} | {"task": message["prompt"]},), **more)


def test_rows_of_one_form_are_alike(observed: Any) -> None:
    form = sight_row(observed(0)).form
    assert form == sight_row(observed(1)).form
    other = observed(0)
    other["images"]["top"] = other["images"]["top"][:8, :12]
    assert form != sight_row(other).form
    assert form != sight_row(observed(0), timestep=3).form
    assert form != sight_row(observed(0), previous=PreviousChunk(np.zeros((1, 2), np.float32), 0)).form


def test_what_a_policy_refuses_is_refused(sight: MetaPolicy, observed: Any) -> None:
    message = observed(0)
    message["images"].pop("wrist")
    (answer,) = predict_rows(sight, [sight_row(message)])
    assert isinstance(answer, RequestRefused)
    assert "wrist" in str(answer)


def test_the_chunk_under_way_reaches_the_policy(sight: MetaPolicy, observed: Any) -> None:
    """The actions that will have been executed before the answer is there are those of the old chunk."""
    previous = PreviousChunk(np.full((3, 2), 0.25, np.float32), 2)
    rows = [sight_row(observed(0), previous=previous, generator=sight.generator(1))]
    (actions,) = predict_rows(sight, rows)
    assert isinstance(actions, np.ndarray)
    np.testing.assert_allclose(actions[:2], 0.25, atol=1e-6)


class Overflowing:
    """A policy whose second row is beyond float32 in physical units."""

    name = "Overflowing"

    def predict(self, obs: dict[str, Any], generator: Any = None) -> np.ndarray:
        actions = np.zeros((len(obs["task"]), 2, 2), np.float32)
        actions[1] = np.inf
        return actions


def test_physical_actions_are_finite_or_none(observed: Any) -> None:
    first, second = predict_rows(Overflowing(), [sight_row(observed(0)), sight_row(observed(0))])  # type: ignore[arg-type]
    assert isinstance(first, np.ndarray)
    assert isinstance(second, PolicyFailed)
