"""A policy behind a server, asked as one that is here. Torch-free."""

from __future__ import annotations

import functools
import os
import weakref
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from menura.chunks import PreviousChunk
from menura.errors import ContractError
from menura.features import Features
from menura.serving.client import Client
from menura.session import Execution, Float32, Observation, Session

API_KEY = "MENURA_API_KEY"
_FACTS = (
    *("features", "chunk_size", "n_action_steps", "n_obs_steps"),
    *("observation_offsets", "required_cameras", "accepts"),
)


class ServedEpisode:
    """One episode at the server, in the place of a random generator.

    Attributes:
        seed: what it draws belongs to this; None: to chance.
        client: a session at the server, for itself.
        begun: whether its first request was answered.
    """

    def __init__(self, seed: int | None, client: Client) -> None:
        self.seed = seed
        self.client = client
        self.begun = False

    def infer(self, request: dict[str, Any], **chunk: Any) -> dict[str, Any]:
        """The answer to its next request."""
        beginning = {} if self.begun or self.seed is None else {"seed": self.seed}
        answer = self.client.infer({**request, **beginning}, reset=not self.begun, **chunk)
        self.begun = True
        return answer


class ServedPolicy:
    """What answers at `ws://host:port`: `predict` and `session` as of `MetaPolicy`, which see.

    Rows of a batch are asked for at the same time, each over a connection of its own, so that the server computes them
    together. A server that restarts is asked again; what an episode of a policy that samples draws from then on does
    not belong to its seed any more, and `reconnects` says so.

    Args:
        url: of the server (`menura serve`).
        api_key: which it asks for; that of the environment variable MENURA_API_KEY, when None.
        certificate, timeout_s, reconnect_s: as of `Client`.

    Raises:
        ServerError: nobody answers there, or the key is refused.
        ContractError: the server does not say what is needed of its policy.
    """

    def __init__(
        self,
        url: str,
        api_key: str | None = None,
        *,
        certificate: str | None = None,
        timeout_s: float = 60.0,
        reconnect_s: float = 30.0,
    ) -> None:
        self._url = url
        self._settings: dict[str, Any] = {
            "api_key": os.environ.get(API_KEY) if api_key is None else api_key,
            "certificate": certificate,
            "timeout_s": timeout_s,
            "reconnect_s": reconnect_s,
        }
        self._clients: list[Client] = []
        self._idle: deque[Client] = deque()  # without a lock: episodes are forgotten at any time, and in any thread
        first = self._take()
        self._idle.append(first)
        said = first.metadata
        missing = [key for key in _FACTS if key not in said]
        if missing:
            self.close()
            raise ContractError(
                f"{url}: expected of the server to say {', '.join(missing)} of its policy, got {sorted(said)}. "
                "Serve it with `menura serve`."
            )
        self.name = f"policy at {url}"
        self.features = Features.from_dict(said["features"])
        self.chunk_size: int | None = said["chunk_size"]
        self.n_action_steps: int = said["n_action_steps"]
        self.n_obs_steps: int = said["n_obs_steps"]
        self.observation_offsets: tuple[int, ...] = tuple(said["observation_offsets"])
        self.required_cameras: tuple[str, ...] = tuple(said["required_cameras"])
        self.checkpoint_hash: str | None = said.get("checkpoint_hash")

    @property
    def reconnects(self) -> int:
        """How often a connection was lost and made anew."""
        return sum(client.reconnects for client in self._clients)

    def session(
        self,
        batch_size: int = 1,
        seeds: Sequence[int] | None = None,
        execution: Execution | None = None,
        exact: bool = False,
    ) -> Session:
        """Begin `batch_size` episodes."""
        return Session(self, batch_size, seeds, execution, exact)

    def predict(
        self,
        obs: Observation,
        noise: None = None,
        generator: Sequence[ServedEpisode] | None = None,
        *,
        observation_is_pad: NDArray[np.bool_] | None = None,
        previous: Sequence[PreviousChunk | None] | None = None,
    ) -> Float32:
        """(B, T, A) float32, physical units.

        Args:
            obs, observation_is_pad, previous: as of `MetaPolicy.predict`.
            generator: one a row, as `generator` makes them: the episodes that go on. None: of no episode.

        Raises:
            ContractError: noise is given, or another generator: the server draws.
            ServerError: the server refused a row, failed, or is gone and did not come back.
        """
        rows = _rows(obs)
        if noise is not None or (generator is not None and not all(isinstance(g, ServedEpisode) for g in generator)):
            raise ContractError(f"{self.name}: expected no noise and no generator, which the server draws, got some.")
        for name, given in (("generator", generator), ("previous", previous)):
            if given is not None and len(given) != rows:
                raise ContractError(f"{self.name}: expected one {name} a row, {rows}, got {len(given)}.")
        if observation_is_pad is None and self.observation_offsets != (0,):  # the history is here, not at the server
            observation_is_pad = np.zeros((rows, self.n_obs_steps), np.bool_)
        parts = dict(obs) if observation_is_pad is None else {**obs, "observation_is_pad": observation_is_pad}
        chunks = [{}] * rows if previous is None else [self._agreeing(chunk) for chunk in previous]
        borrowed = [self._take() for _ in range(rows)] if generator is None else []
        askers: Sequence[ServedEpisode | Client] = borrowed if generator is None else generator
        try:
            answers = _at_once(
                [
                    functools.partial(asker.infer, _row(parts, row), **chunk)
                    for row, (asker, chunk) in enumerate(zip(askers, chunks, strict=True))
                ]
            )
        finally:
            self._idle.extend(borrowed)
        return np.stack([answer["actions"] for answer in answers])

    def generator(self, seed: int | None) -> ServedEpisode:
        """A new episode at the server; its connection is another's when it is forgotten."""
        client = self._take()
        episode = ServedEpisode(seed, client)
        weakref.finalize(episode, self._idle.append, client).atexit = False
        return episode

    def reset(self) -> None:
        """Nothing: an episode begins with its `generator`."""

    def close(self) -> None:
        """Hang up."""
        for client in list(self._clients):
            client.close()

    def _agreeing(self, previous: PreviousChunk | None) -> dict[str, Any]:
        """What a request says of the chunk under way."""
        if previous is None:
            return {}
        return {"prev_chunk": previous.actions, "delay": previous.delay}

    def _take(self) -> Client:
        """A connection that nobody uses."""
        try:
            return self._idle.pop()
        except IndexError:
            client = Client(self._url, **self._settings)
            self._clients.append(client)
            return client


def _at_once(questions: Sequence[Callable[[], dict[str, Any]]]) -> list[dict[str, Any]]:
    """The answers to questions that are asked at the same time; the first error, when all are done."""
    with ThreadPoolExecutor(max_workers=max(1, len(questions) - 1), thread_name_prefix="asking") as others:
        futures = [others.submit(question) for question in questions[:-1]]
        answers = [question() for question in questions[-1:]]
        return [future.result() for future in futures] + answers


def _rows(obs: Observation) -> int:
    values = [*obs.get("images", {}).values(), *(value for key, value in obs.items() if key != "images")]
    return next((len(value) for value in values if not isinstance(value, str)), 1)


def _row(obs: Mapping[str, Any], row: int) -> dict[str, Any]:
    """One row of an observation, without the batch axis; a text is every row's."""
    picked = {key: value if isinstance(value, str) else value[row] for key, value in obs.items() if key != "images"}
    return picked | {"images": {camera: images[row] for camera, images in obs.get("images", {}).items()}}
