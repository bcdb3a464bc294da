"""The engine of the policy server: from a message to an answer, whatever door it came through."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch

from menura.errors import ConfigError, ContractError
from menura.meta_policy import MetaPolicy
from menura.priority import ANSWERING, go_first
from menura.serving.engine.batching import Batcher, Computed
from menura.serving.engine.errors import Busy, Late, ServingError
from menura.serving.engine.keys import KeyMap
from menura.serving.engine.metadata import PROTOCOL_VERSION, describe
from menura.serving.engine.observing import EngineMetrics, Unheard
from menura.serving.engine.request import Request, RequestReader, blank_observation
from menura.serving.engine.rows import Row, failure, predict_rows
from menura.serving.engine.sessions import Observation, ServingSession
from menura.serving.engine.worker import Worker

__all__ = ["PROTOCOL_VERSION", "Engine", "ServingSession"]

#: Of a picture: 3840 x 2160 and a little more.
MAX_IMAGE_PIXELS = 1 << 23
# A session that was answered this recently may ask again soon, and a batch waits for it.
_ACTIVE_S = 1.0


class Engine:
    """Answers messages with a policy's actions; knows nothing of transports. Lives in one event loop.

    The loop itself computes nothing: pictures are decoded in one pool of threads, the policy is asked in one thread.

    Args:
        meta: the policy.
        keys: how messages name the parts of an observation: a `KeyMap`, or what `KeyMap.read` takes; the checkpoint's
            own names, when None.
        max_batch: how many requests are computed together at most.
        max_wait_ms: how long the policy is left idle for others to be computed with.
        max_queue: how many requests may wait.
        max_image_pixels: of one picture.
        metrics: told what happens.
        goes_first: whether its threads go before other programs, where the system permits it (`menura.priority`).

    Raises:
        ConfigError: a number is out of range, or the keys do not fit the checkpoint.
    """

    def __init__(
        self,
        meta: MetaPolicy,
        *,
        keys: KeyMap | str | Path | None = None,
        max_batch: int = 8,
        max_wait_ms: float = 2.0,
        max_queue: int = 64,
        max_image_pixels: int = MAX_IMAGE_PIXELS,
        metrics: EngineMetrics | None = None,
        goes_first: bool = False,
    ) -> None:
        for name, value in {
            "max_batch": max_batch,
            "max_queue": max_queue,
            "max_image_pixels": max_image_pixels,
        }.items():
            if value < 1:
                raise ConfigError(f"{name}: expected at least 1, got {value}.")
        if not 0 <= max_wait_ms <= 1000:
            raise ConfigError(f"max_wait_ms: expected 0 to 1000, got {max_wait_ms}.")
        if not isinstance(keys, KeyMap):
            keys = KeyMap.of(meta.features) if keys is None else KeyMap.read(keys)
        self.meta = meta
        self.keys = keys.fitted(meta.features, meta.required_cameras)
        self._max_batch = max_batch
        self._max_queue = max_queue
        self._metrics: EngineMetrics = metrics or Unheard()
        self._reader = RequestReader(meta, self.keys, max_image_pixels)
        self._resets = callable(getattr(meta.policy, "reset", None))
        # Of several threads that compute together all but one are ordinary: to go first would be to wait for them.
        computes_alone = meta.device.type != "cpu" or torch.get_num_threads() == 1
        self._worker = Worker(goes_first and computes_alone)
        self._decoders = ThreadPoolExecutor(
            max_workers=min(4, os.cpu_count() or 1),
            thread_name_prefix="pictures",
            initializer=functools.partial(go_first, ANSWERING) if goes_first else None,
        )
        self._batcher = Batcher(
            functools.partial(predict_rows, meta),
            self._worker,
            max_batch=max_batch,
            max_wait_s=max_wait_ms / 1e3,
            expecting=self._expecting,
            metrics=self._metrics,
        )
        limits = {"max_batch": max_batch, "max_queue": max_queue, "max_image_pixels": max_image_pixels}
        self._described = describe(meta, self.keys, limits)
        self._sessions: set[ServingSession] = set()
        self._in_flight = 0
        self._all_answered = asyncio.Event()
        self._open = False

    async def start(self) -> None:
        """Warms the policy up, alone and with a full batch, so that the first clients do not wait; then answers.

        Raises:
            ContractError: the policy has no actions for a blank observation.
        """
        for rows in sorted({1, self._max_batch}):
            await self._worker.ask(functools.partial(self._warm_up, rows))
        self._open = True

    def metadata(self, session: ServingSession) -> dict[str, Any]:
        """What a client is told first: plain lists, numbers and text."""
        return {**self._described, "session": session.id}

    def open_session(self) -> ServingSession:
        """A new client, with a history and a random generator of its own."""
        session = ServingSession(self.meta)
        self._sessions.add(session)
        self._metrics.sessions.set(len(self._sessions))
        return session

    def close_session(self, session: ServingSession) -> None:
        """The client is gone."""
        self._sessions.discard(session)
        self._metrics.sessions.set(len(self._sessions))
        self._batcher.look_again()

    async def answer(self, session: ServingSession, message: Mapping[Any, Any]) -> dict[str, Any]:
        """The answer to a message: `actions` (T, A) float32 in physical units, and timings in ms.

        A message that only observes or resets is answered without actions. When it is refused, nothing has changed for
        its session. Cancelled, it is not computed, if it still waits.

        Raises:
            RequestRefused: the message is not what the policy was trained on.
            Late: its `deadline_ms` passed.
            Busy: too many requests wait, or the engine ends.
            PolicyFailed: the policy gave no actions.
        """
        arrived_s = asyncio.get_running_loop().time()
        if not self._open:
            raise Busy("server: expected one that answers, got one that begins or ends. Ask again later.")
        if self._in_flight - self._batcher.computing >= self._max_queue:
            raise Busy(f"queue: expected at most {self._max_queue} requests to wait, got another. Ask again later.")
        request = self._reader.read(message)
        session.in_flight += 1
        self._count(1)
        try:
            return await self._in_time(session, request, arrived_s)
        finally:
            session.in_flight -= 1
            session.last_answer_s = asyncio.get_running_loop().time()
            self._count(-1)

    async def drain(self, timeout_s: float) -> None:
        """Takes no further request, answers those that are there, as far as there is time, and ends the threads."""
        self._open = False
        if self._in_flight:
            self._all_answered.clear()
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._all_answered.wait(), timeout_s)
        self._batcher.stop()
        self._worker.end()
        self._decoders.shutdown(wait=False, cancel_futures=True)

    async def _in_time(self, session: ServingSession, request: Request, arrived_s: float) -> dict[str, Any]:
        work = self._answer(session, request, arrived_s)
        if request.deadline_s is None:
            return await work
        loop = asyncio.get_running_loop()
        deadline_s = arrived_s + request.deadline_s
        with contextlib.suppress(asyncio.TimeoutError):
            answer = await asyncio.wait_for(work, deadline_s - loop.time())
            if loop.time() <= deadline_s:
                return answer
        raise Late(f"deadline: expected an answer within {request.deadline_s * 1e3:g} ms, got none.")

    async def _answer(self, session: ServingSession, request: Request, arrived_s: float) -> dict[str, Any]:
        loop = asyncio.get_running_loop()
        async with session.lock:
            if request.is_ready:
                observation = self._reader.observation(request)
            else:
                observation = await loop.run_in_executor(self._decoders, self._reader.observation, request)
            await self._begin(session, request)
            row = None if request.observation is None else self._row(session, request, observation)
            computed = None if row is None else await self._batcher.compute(row)
        return _told(computed, loop.time() - arrived_s)

    async def _begin(self, session: ServingSession, request: Request) -> None:
        """A new episode, where the message begins one.

        A policy that holds something of an episode itself is told, too, as an evaluation tells it, where it has one
        session alone.
        """
        if request.reset:
            session.begin(request.seed)
        begins = request.reset or session.unanswered
        if begins and self._resets and self._sessions == {session}:
            failed = await self._worker.ask(self._reset_policy)
            if failed is not None:
                raise failed

    def _row(self, session: ServingSession, request: Request, observation: Observation) -> Row | None:
        """What is to be computed; None where the message asks for no actions."""
        views: tuple[Observation, ...] = (observation,)
        is_pad = request.observation_is_pad
        if not request.has_history:
            session.observe(observation, request.timestep)
            if session.looks_back and not request.observe:
                views, is_pad = session.views()
        if request.observe:
            return None
        return Row(views, is_pad, request.timestep, session.generator, request.previous)

    def _expecting(self, waiting: int) -> bool:
        """Whether more sessions than those that wait are asking, or were answered of late and may ask again soon."""
        if len(self._sessions) <= waiting:
            return False
        since_s = asyncio.get_running_loop().time() - _ACTIVE_S
        return sum(session.in_flight > 0 or session.last_answer_s > since_s for session in self._sessions) > waiting

    def _reset_policy(self) -> ServingError | None:
        """Why it could not be; in the worker."""
        try:
            self.meta.reset()
        except (Exception, SystemExit) as error:  # noqa: BLE001  whatever a policy does ends a request alone
            return failure(self.meta, error)
        return None

    def _warm_up(self, rows: int) -> None:
        generators = [generator for _ in range(rows) if (generator := self.meta.generator(0)) is not None]
        try:
            self.meta.predict(blank_observation(self.meta, rows), generator=generators or None)
        except Exception as error:  # whatever a policy's code raises, or torch, which is out of memory
            step = "Lower --max_batch." if rows > 1 else "Try `menura check run`."
            raise ContractError(
                f"warming up: expected {self.meta.name} to answer {rows} blank observations, "
                f"got {type(error).__name__}: {error} {step}"
            ) from error

    def _count(self, change: int) -> None:
        self._in_flight += change
        if not self._in_flight:
            self._all_answered.set()


def _told(computed: Computed | None, total_s: float) -> dict[str, Any]:
    if computed is None:
        return {"server_timing": {"infer_ms": total_s * 1e3}}
    return {
        "actions": computed.actions,
        "policy_timing": {"infer_ms": computed.infer_s * 1e3},
        "server_timing": {"infer_ms": total_s * 1e3, "queue_ms": computed.waited_s * 1e3},
    }
