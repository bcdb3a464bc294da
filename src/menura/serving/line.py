"""The line to a policy server: one connection, made anew in the background when it is lost. Torch-free."""

from __future__ import annotations

import random
import ssl
import threading
import time
import weakref
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from websockets.exceptions import InvalidHandshake, InvalidStatus, InvalidURI

from ..errors import MenuraError
from .codec import CodecError, unpack
from .connection import Connection

#: What the server that comes back must say again of its policy.
_IDENTITY = ("checkpoint_hash", "features", "chunk_size", "n_obs_steps", "observation_offsets")
#: Between attempts to reconnect (s): the first wait, doubled up to the longest, each shortened by chance.
_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.1, 3.0
#: How long one attempt may take.
_ATTEMPT_S = 10.0
#: How often an idle connection is looked after: servers hang up where pings stay unanswered for 20 s.
_TEND_S = 5.0


class ServerError(MenuraError):
    """The policy server cannot be reached, refused, or answered with an error.

    Attributes:
        code: one word of the server's, where it gave one.
    """

    code: str | None = None


class LateAnswer(ServerError):
    """The deadline passed, here or at the server. The next request may be asked at once."""


class RequestRefused(ServerError):
    """The server says what was wrong with the request. The session goes on."""


class _Unmendable(ServerError):
    """Trying again does not help."""


class Line:
    """Arguments and errors as of `Client`.

    Attributes:
        metadata: what the server said of itself in the first frame of the newest connection.
        reconnects: how often the connection was made anew.
    """

    def __init__(
        self, url: str, *, headers: Mapping[str, str], certificate: str | None, timeout_s: float, reconnect_s: float
    ) -> None:
        self.url = url
        self.reconnects = 0
        self._headers = headers
        self._tls = _tls(certificate) if url.startswith("wss://") else None
        self._attempt_s = min(_ATTEMPT_S, timeout_s)
        self._reconnect_s = reconnect_s
        self._in_use = threading.Lock()  # held by whoever reads or writes
        self._closed = threading.Event()
        self._wake = threading.Event()
        self._changed = threading.Condition()  # of what follows
        self._failure: ServerError | None = None  # why the last attempts to reconnect were given up
        self._connection: Connection | None
        self.metadata: dict[str, Any]
        self._connection, self.metadata = self._open(time.monotonic() + timeout_s)
        threading.Thread(target=_tend, args=(weakref.ref(self), self._wake), name="menura client", daemon=True).start()

    @property
    def closed(self) -> bool:
        return self._closed.is_set()

    @contextmanager
    def turn(self, deadline_s: float) -> Iterator[None]:
        """Be the only one who reads and writes. Raises LateAnswer where another did so until the deadline."""
        if not self._in_use.acquire(timeout=max(0.0, deadline_s - time.monotonic())):
            raise LateAnswer(f"asking {self.url}: the deadline passed while another request was under way.")
        try:
            yield
        finally:
            self._in_use.release()

    def connection(self, deadline_s: float) -> Connection:
        """The connection, as soon as there is one.

        Raises:
            ServerError: it cannot be made anew.
            LateAnswer: it was not until the deadline.
        """
        with self._changed:
            if self._failure is not None:  # of an earlier request: tried again for this one
                self._failure = None
                self._wake.set()
            self._changed.wait_for(
                lambda: self._connection is not None or self._failure is not None or self.closed,
                timeout=max(0.0, deadline_s - time.monotonic()),
            )
            self.check_open()
            if self._failure is not None:
                raise self._failure
            if self._connection is None:
                raise LateAnswer(f"asking {self.url}: the deadline passed before the connection was made anew.")
            return self._connection

    def check_open(self) -> None:
        """Raises ServerError when this was closed."""
        if self.closed:
            raise ServerError(f"asking {self.url}: expected an open client, got one that was closed. Make a new one.")

    def lose(self, connection: Connection) -> None:
        """Hang up; the thread behind makes another. Called in one's turn."""
        with self._changed:
            if self._connection is connection:
                self._connection = None
                self._wake.set()
        connection.abort()  # no goodbye to who may not hear it
        connection.close()

    def close(self) -> None:
        """Hang up for good: a request under way fails."""
        self._closed.set()
        self._wake.set()
        with self._changed:
            connection, self._connection = self._connection, None
            self._changed.notify_all()
        if connection is None:
            return
        if self._in_use.acquire(blocking=False):
            try:
                connection.close()
            finally:
                self._in_use.release()
        else:
            connection.abort()  # whose turn it is closes it

    def look_after(self) -> None:
        """Answer an idle connection's pings, or make a lost one anew."""
        with self._changed:
            connection, given_up = self._connection, self._failure is not None
        if connection is None:
            if not given_up:
                self._reconnect()
        elif self._in_use.acquire(blocking=False):  # whose turn it is answers pings too
            try:
                connection.tend()
            except OSError:
                self.lose(connection)
            finally:
                self._in_use.release()

    def _reconnect(self) -> None:
        end_s = time.monotonic() + self._reconnect_s
        wait_s = _FIRST_WAIT_S
        while not self.closed:
            failure = self._attempt()
            if failure is None:
                return
            if isinstance(failure, _Unmendable) or time.monotonic() + wait_s > end_s:
                with self._changed:
                    self._failure = failure
                    self._changed.notify_all()
                return
            self._closed.wait(wait_s * random.uniform(0.5, 1.0))
            wait_s = min(2 * wait_s, _LONGEST_WAIT_S)

    def _attempt(self) -> ServerError | None:
        """Make the connection anew; or why not."""
        try:
            connection, metadata = self._open(time.monotonic() + self._attempt_s)
            self._check_identity(connection, metadata)
        except ServerError as error:
            return error
        with self._changed:
            if not self.closed:
                self._connection, self.metadata = connection, metadata
                self.reconnects += 1
                self._changed.notify_all()
                return None
        connection.close()
        return None

    def _check_identity(self, connection: Connection, metadata: Mapping[str, Any]) -> None:
        for key in _IDENTITY:
            if metadata.get(key) != self.metadata.get(key):
                connection.close()
                raise _Unmendable(
                    f"reconnecting to {self.url}: expected the policy that was there before, got one with another "
                    f"{key} ({self.metadata.get(key)} before, {metadata.get(key)} now). Make a new client."
                )

    def _open(self, deadline_s: float) -> tuple[Connection, dict[str, Any]]:
        """A connection, and what the server says of itself. Raises ServerError, one clear message each."""
        where = f"connecting to {self.url}"
        try:
            connection = Connection(self.url, headers=self._headers, context=self._tls, deadline_s=deadline_s)
        except InvalidURI as error:
            raise _Unmendable(f"{where}: expected an address such as ws://host:8000, got: {error}.") from error
        except InvalidStatus as error:
            status = error.response.status_code
            if status in (401, 403):
                raise _Unmendable(
                    f"{where}: expected the server's key, got HTTP {status}. Give api_key=; commands take it "
                    "from MENURA_API_KEY."
                ) from error
            raise ServerError(f"{where}: expected a policy server, got HTTP {status}. Look at the port.") from error
        except (InvalidHandshake, ConnectionResetError) as error:
            raise ServerError(
                f"{where}: expected a policy server, got what speaks no websocket ({error}). Look at the port; "
                "a server with a certificate is at wss://."
            ) from error
        except ssl.SSLCertVerificationError as error:
            raise _Unmendable(
                f"{where}: expected a certificate that is vouched for, got: {error.verify_message}. "
                "Give certificate=, the server's PEM file; commands take it from SSL_CERT_FILE."
            ) from error
        except ssl.SSLError as error:
            raise ServerError(
                f"{where}: expected TLS, got: {error.reason}. A server without a certificate is at ws://."
            ) from error
        except OSError as error:
            raise ServerError(
                f"{where}: expected a policy server, got {error}. Start one: menura serve -m RUN."
            ) from error
        try:
            return connection, _metadata(connection, deadline_s)
        except (OSError, CodecError) as error:
            connection.close()
            raise ServerError(
                f"{where}: expected a first frame in which the server describes itself, got: {error}. "
                "Is it a policy server of openpi's protocol?"
            ) from error


def _metadata(connection: Connection, deadline_s: float) -> dict[str, Any]:
    frame = connection.receive(deadline_s)
    metadata = unpack(frame) if isinstance(frame, bytes) else frame
    if not isinstance(metadata, dict):
        raise CodecError(f"a {type(metadata).__name__}, not a map")
    return metadata


def _tls(certificate: str | None) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=certificate)
    except OSError as error:
        raise ServerError(f"{certificate}: expected a certificate in PEM, got: {error}. Give the server's.") from error


def _tend(line: weakref.ref[Line], wake: threading.Event) -> None:
    """What the thread behind a line does, until that is closed or forgotten."""
    while True:
        wake.wait(_TEND_S)
        wake.clear()
        there = line()
        if there is None or there.closed:
            return
        there.look_after()
        del there
