"""The client of a policy server: numpy, msgpack and websockets, nothing heavier."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import numpy as np

from ..errors import ContractError
from .codec import CodecError, Packer, unpack
from .connection import Connection
from .line import LateAnswer, Line, RequestRefused, ServerError

__all__ = ["Client", "LateAnswer", "Pending", "Percentiles", "RequestRefused", "ServerError", "is_address"]

_HEADERS = {"Menura-Protocol": "1"}  # errors are then answered in frames of their own, and the session goes on
_ERRORS: Mapping[str, type[ServerError]] = {"refused": RequestRefused, "late": LateAnswer}
#: A server that answers neither a request nor a ping for so long is gone, whatever the network says.
_SILENCE_S = 10.0
#: How many requests may be unanswered, late ones all: a server that computes for a minute is not sent a thousand more.
_MOST_OWED = 4
#: How many answers the percentiles are of.
_LATENCIES = 1000


@dataclass(frozen=True)
class Percentiles:
    """Of the time from asking to having the answer, in ms, over the last thousand answers; 0 where there were none."""

    count: int
    p50: float
    p90: float
    p99: float
    max: float


class Pending:
    """An answer that is on its way."""

    def __init__(self) -> None:
        self._finished = threading.Event()
        self._answer: dict[str, Any] | None = None
        self._error: BaseException | None = None

    @property
    def done(self) -> bool:
        """Whether `result` returns or raises at once."""
        return self._finished.is_set()

    def result(self, timeout_s: float | None = None) -> dict[str, Any]:
        """The answer, as of `Client.infer`, whose errors it raises too.

        Raises:
            LateAnswer: it is not there within `timeout_s`; it may still come.
        """
        if not self._finished.wait(timeout_s):
            raise LateAnswer(f"waiting for an answer: expected one within {timeout_s} s, got none yet.")
        if self._error is not None:
            raise self._error
        assert self._answer is not None, "finished with an answer or an error"
        return self._answer

    def _finish(self, answer: dict[str, Any] | None, error: BaseException | None = None) -> None:
        self._answer, self._error = answer, error
        self._finished.set()


class Client:
    """One session at a policy server. Asked by one thread at a time; any other may `close` it.

    A lost connection is made anew in the background. The session is then a new one, of which the first request says
    `reset`, and `reconnects` counts it. A request that was under way is asked once more.

    Args:
        url: `ws://host:port` or `wss://host:port`.
        api_key: sent as `Authorization: Api-Key …`, as openpi's clients do.
        timeout_s: how long to wait for the connection, and for an answer that has no deadline of its own.
        reconnect_s: for how long a lost connection is tried anew before a request fails; 0: once.
        certificate: PEM file that vouches for a `wss://` server; the system's authorities do, when None.

    Raises:
        ServerError: nobody answers there, or what does is no policy server; the key or the certificate is refused.
    """

    def __init__(
        self,
        url: str,
        *,
        api_key: str | None = None,
        timeout_s: float = 60.0,
        reconnect_s: float = 30.0,
        certificate: str | None = None,
    ) -> None:
        self.url = url
        self.timeout_s = timeout_s
        headers = {**_HEADERS, "Authorization": f"Api-Key {api_key}"} if api_key else _HEADERS
        self._line = Line(url, headers=headers, certificate=certificate, timeout_s=timeout_s, reconnect_s=reconnect_s)
        self._session = self._line.connection(time.monotonic() + timeout_s)  # a session is a connection
        self._begins = False  # whether the next request is the first of a session that was made anew
        self._owed = 0  # how many requests of this session were not answered yet
        self._number = 0
        self._packer = Packer()
        self._prefetched: Pending | None = None
        self._seconds: deque[float] = deque(maxlen=_LATENCIES)

    @property
    def metadata(self) -> dict[str, Any]:
        """What the server says of itself in its first frame."""
        return self._line.metadata

    @property
    def reconnects(self) -> int:
        """How often the connection was made anew."""
        return self._line.reconnects

    def infer(
        self,
        observation: Mapping[str, Any],
        *,
        reset: bool = False,
        deadline_ms: float | None = None,
        prev_chunk: np.ndarray[Any, Any] | None = None,
        delay: int | None = None,
    ) -> dict[str, Any]:
        """The server's answer to one observation: `actions` (T, A) float32 in physical units, and its timings.

        Args:
            observation: one row: `{"state": (D,), "images": {camera: (H, W, 3) uint8}, "task": text}`, or what else the
                server's key map reads.
            reset: a new episode begins with it.
            deadline_ms: from now; `timeout_s` when None.
            prev_chunk: (T', A), of the chunk under way, from this observation on.
            delay: how many of those will have been executed before the answer is there; 0 when None.

        Raises:
            LateAnswer, RequestRefused: which see.
            ServerError: the server failed or is busy (`code`), or is gone and did not come back.
            ContractError: this server takes no `prev_chunk`.
            CodecError: the observation holds what cannot be sent.
        """
        asked_s = time.monotonic()
        deadline_s = asked_s + (self.timeout_s if deadline_ms is None else deadline_ms / 1e3)
        message = dict(observation)
        if deadline_ms is not None and self._accepts("deadline_ms"):
            message["deadline_ms"] = deadline_ms
        if prev_chunk is not None:
            if not self._accepts("prev_chunk"):
                raise ContractError(
                    f"{self.url}: expected a server that takes prev_chunk, got one that does not. Leave it out."
                )
            message.update(prev_chunk=np.asarray(prev_chunk), delay=delay or 0)
        with self._line.turn(deadline_s):
            answer = self._ask_persistently(message, reset, deadline_s)
        self._seconds.append(time.monotonic() - asked_s)
        return answer

    def prefetch(self, observation: Mapping[str, Any], **how: Any) -> Pending:
        """Ask as `infer` does, in the background. The arrays given must not change until the answer is there.

        Raises:
            ContractError: the answer asked for before is not there yet.
        """
        if self._prefetched is not None and not self._prefetched.done:
            raise ContractError(
                f"prefetch from {self.url}: expected one at a time, got a second. Take the first one's result."
            )
        self._prefetched = pending = Pending()

        def ask() -> None:
            try:
                pending._finish(self.infer(observation, **how))
            except BaseException as error:  # noqa: BLE001  (raised where the result is asked for)
                pending._finish(None, error)

        threading.Thread(target=ask, name="menura prefetch", daemon=True).start()
        return pending

    def latency(self) -> Percentiles:
        """How long answers took."""
        ms = 1e3 * np.array(self._seconds or [0.0])
        p50, p90, p99, longest = (float(value) for value in np.percentile(ms, [50, 90, 99, 100]))
        return Percentiles(len(self._seconds), p50, p90, p99, longest)

    def close(self) -> None:
        """Hang up; a request under way fails. May be called again."""
        self._line.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _accepts(self, key: str) -> bool:
        accepted = self.metadata.get("accepts")
        return isinstance(accepted, (list, tuple)) and key in accepted

    def _ask_persistently(self, message: Mapping[str, Any], reset: bool, deadline_s: float) -> dict[str, Any]:
        """Ask; once more where the connection was lost meanwhile."""
        lost: OSError | None = None
        for _ in range(2):
            connection = self._connection(deadline_s)
            try:
                return self._ask(connection, message, reset, deadline_s)
            except TimeoutError as error:
                self._look_for_life(connection)
                raise LateAnswer(f"asking {self.url}: the deadline passed before the answer was there.") from error
            except OSError as error:
                self._line.lose(connection)
                lost = error
        self._line.check_open()
        raise ServerError(f"asking {self.url}: the connection was lost twice ({lost}). Look at the server's log.")

    def _connection(self, deadline_s: float) -> Connection:
        """The connection to ask on: one on which the next answer can be told from those to earlier requests."""
        if self._owed and not self._accepts("request_id"):
            self._line.lose(self._session)
        connection = self._line.connection(deadline_s)
        if connection is not self._session:
            self._session, self._begins, self._owed = connection, True, 0
        return connection

    def _ask(
        self, connection: Connection, message: Mapping[str, Any], reset: bool, deadline_s: float
    ) -> dict[str, Any]:
        """Raises OSError when the connection is lost, TimeoutError at the deadline."""
        if self._owed:  # nothing more is sent to who may be gone
            connection.await_life(deadline_s)
        while self._owed >= _MOST_OWED:
            self._receive(connection, deadline_s)
        self._number += 1
        extra: dict[str, Any] = {
            "reset": True if reset or self._begins else None,
            # What is left of it: the server counts from the request's arrival.
            "deadline_ms": (deadline_s - time.monotonic()) * 1e3 if "deadline_ms" in message else None,
            "request_id": self._number,
        }
        extra = {key: value for key, value in extra.items() if value and self._accepts(key)}
        with self._packer.packed({**message, **extra}) as frame:
            self._owed += 1
            connection.send(frame, deadline_s)
        self._begins = False
        while True:
            answer = self._receive(connection, deadline_s)
            if answer.pop("request_id", self._number) == self._number:
                break
        self._owed = 0
        problem = answer.get("error")
        if isinstance(problem, Mapping):
            code = str(problem.get("code"))
            error = _ERRORS.get(code, ServerError)(f"{self.url} answered: {problem.get('message')}")
            error.code = code
            raise error
        return answer

    def _receive(self, connection: Connection, deadline_s: float) -> dict[str, Any]:
        """The next answer, to whichever request."""
        frame = connection.receive(deadline_s)
        self._owed -= 1
        try:
            if isinstance(frame, str):  # openpi's servers send an error as text, and hang up
                raise ServerError(f"{self.url} answered with an error:\n{frame}")
            answer = unpack(frame)
            if not isinstance(answer, dict):
                raise ServerError(f"{self.url}: expected a map as the answer, got {type(answer).__name__}.")
        except CodecError as error:
            self._line.lose(connection)
            raise ServerError(f"{self.url}: expected an answer, got: {error}") from error
        except ServerError:
            self._line.lose(connection)
            raise
        return answer

    def _look_for_life(self, connection: Connection) -> None:
        """After a late answer: is anybody there?"""
        try:
            if connection.silent_s > _SILENCE_S:
                self._line.lose(connection)
            else:
                connection.ping()
        except OSError:
            self._line.lose(connection)


def is_address(model: object) -> bool:
    """Whether this names a policy server rather than a directory: `ws://…` or `wss://…`."""
    return isinstance(model, str) and model.startswith(("ws://", "wss://"))
