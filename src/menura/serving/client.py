"""The client of a policy server: numpy, msgpack and websockets, nothing heavier."""

from __future__ import annotations

from types import TracebackType
from typing import Any

from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidURI
from websockets.sync.client import ClientConnection, connect

from menura.errors import MenuraError
from menura.serving import codec


class ServerError(MenuraError):
    """The policy server cannot be reached, refused, or answered with an error."""


def is_address(model: object) -> bool:
    """Whether this names a policy server rather than a directory: `ws://…` or `wss://…`."""
    return isinstance(model, str) and model.startswith(("ws://", "wss://"))


class Client:
    """One connection to a policy server, which is one session there.

    Args:
        url: `ws://host:port` or `wss://host:port`.
        api_key: sent as `Authorization: Api-Key …`, as openpi's clients do.
        timeout_s: how long to wait for the connection and for each answer.

    Attributes:
        metadata: what the server says of itself in its first frame.
    """

    def __init__(self, url: str, *, api_key: str | None = None, timeout_s: float = 60.0) -> None:
        self.url = url
        self.timeout_s = timeout_s
        headers = {"Authorization": f"Api-Key {api_key}"} if api_key else None
        try:
            # No size limit here: the server is the one asked for its answers. No compression: arrays do not shrink.
            self._connection: ClientConnection = connect(
                url, additional_headers=headers, compression=None, max_size=None, open_timeout=timeout_s
            )
        except (OSError, InvalidHandshake, InvalidURI, TimeoutError) as error:
            raise ServerError(
                f"connecting to {url}: expected a policy server, got {error}. Start one: menura serve -m RUN."
            ) from error
        self.metadata: dict[str, Any] = self._receive()

    def infer(self, observation: dict[str, Any]) -> dict[str, Any]:
        """The server's answer to one observation (a dict of arrays and text): `actions` (T, A) and its timings."""
        try:
            self._connection.send(codec.pack(observation))
        except ConnectionClosed as error:
            raise ServerError(f"asking {self.url}: the connection is closed ({error}). Connect again.") from error
        return self._receive()

    def close(self) -> None:
        self._connection.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _receive(self) -> dict[str, Any]:
        try:
            frame = self._connection.recv(timeout=self.timeout_s)
        except TimeoutError as error:
            self.close()
            raise ServerError(f"waiting for {self.url}: no answer within {self.timeout_s} s.") from error
        except ConnectionClosed as error:
            raise ServerError(f"waiting for {self.url}: the server closed the connection ({error}).") from error
        if isinstance(frame, str):  # openpi's servers send an error as text
            raise ServerError(f"{self.url} answered with an error:\n{frame}")
        answer: dict[str, Any] = codec.unpack(frame)
        return answer
