"""The engine of the policy server: from a message to an answer, whatever door it came through."""

from __future__ import annotations

import asyncio
import functools
import time
import uuid
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import torch

from menura.errors import MenuraError
from menura.meta_policy import MetaPolicy
from menura.serving.errors import RequestRefused
from menura.serving.request import batched, blank_observation

PROTOCOL_VERSION = 1


@dataclass
class ServingSession:
    """What belongs to one client."""

    id: str
    generator: torch.Generator | None


class Engine:
    """Answers messages with a policy's actions; knows nothing of transports. Lives in one event loop.

    Args:
        meta: the policy.
        keys: how messages name the parts of an observation; the checkpoint's own names, when None.
        max_batch: how many requests are computed together at most.
        max_wait_ms: how long a request waits for others to be computed with.
        max_queue: how many requests may wait.
        max_image_pixels: of one picture.
        metrics: told what happens.
    """

    def __init__(
        self,
        meta: MetaPolicy,
        *,
        keys: Any = None,
        max_batch: int = 8,
        max_wait_ms: float = 2.0,
        max_queue: int = 64,
        max_image_pixels: int = 1 << 22,
        metrics: Any = None,
    ) -> None:
        self.meta = meta
        self._worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="inference")

    async def start(self) -> None:
        """Warms the policy up, so that the first client does not wait."""
        blank = blank_observation(self.meta)
        await asyncio.get_running_loop().run_in_executor(self._worker, self.meta.predict, blank)

    def metadata(self, session: ServingSession) -> dict[str, Any]:
        """What a client is told first."""
        return {
            "protocol_version": PROTOCOL_VERSION,
            "session": session.id,
            "features": self.meta.features.to_dict(),
            "chunk_size": self.meta.chunk_size,
            "n_action_steps": self.meta.n_action_steps,
            "n_obs_steps": self.meta.n_obs_steps,
            "observation_offsets": list(self.meta.observation_offsets),
            "required_cameras": list(self.meta.required_cameras),
            "checkpoint_hash": self.meta.checkpoint_hash,
        }

    def open_session(self) -> ServingSession:
        """A new client, with a history and a random generator of its own."""
        return ServingSession(uuid.uuid4().hex, self.meta.generator(None))

    def close_session(self, session: ServingSession) -> None:
        """The client is gone."""

    async def answer(self, session: ServingSession, message: Mapping[Any, Any]) -> dict[str, Any]:
        """The answer to a message: `actions` (T, A) float32 in physical units, and timings.

        Raises:
            RequestRefused: the message is not what the policy was trained on.
            Late: its `deadline_ms` passed.
            Busy: too many requests wait.
            PolicyFailed: the policy gave no actions.
        """
        start = time.perf_counter()
        try:
            observation = batched(message)
            is_pad = observation.pop("observation_is_pad", None)
            generators = None if session.generator is None else [session.generator]
            predict = functools.partial(self.meta.predict, observation, generator=generators, observation_is_pad=is_pad)
            actions = await asyncio.get_running_loop().run_in_executor(self._worker, predict)
        except MenuraError as error:
            raise RequestRefused(str(error)) from error
        timing = {"infer_ms": (time.perf_counter() - start) * 1e3}
        return {"actions": actions[0], "policy_timing": timing, "server_timing": timing}

    async def drain(self, timeout_s: float) -> None:
        """Takes no further request, answers those that are there, and ends the worker."""
        self._worker.shutdown(wait=False)
