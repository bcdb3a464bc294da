"""A websocket that is written and read in the thread that asks. Torch-free.

Deadlines hold for writing too, and an answer reaches who asked without waiting until another thread is woken: on a busy
computer that is what makes most of the slowest answers slow.
"""

from __future__ import annotations

import os
import socket
import ssl
import struct
import time
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from websockets.client import ClientProtocol
from websockets.exceptions import InvalidURI
from websockets.frames import Frame, Opcode, apply_mask  # type: ignore[attr-defined]  # compiled, where it can be
from websockets.protocol import State
from websockets.uri import parse_uri

_RECEIVE_BYTES = 1 << 18
#: How long a farewell, or the answer to a ping, may take to leave.
_POLITE_S = 0.5


class Connection:
    """An open websocket. Not safe for several threads, but for `abort`.

    Args:
        url: `ws://host:port` or `wss://host:port`.
        headers: further ones of the handshake.
        context: of TLS, for `wss://`.
        deadline_s: of `time.monotonic`, until when the handshake is done.

    Raises:
        TimeoutError: it was not done.
        OSError: nobody is there, or TLS failed.
        InvalidURI, InvalidHandshake: of websockets; the address is none, the server refused or speaks something else.
    """

    def __init__(
        self, url: str, *, headers: Mapping[str, str], context: ssl.SSLContext | None, deadline_s: float
    ) -> None:
        try:
            uri = parse_uri(url)
        except ValueError as error:  # of the standard library, for a port that is none
            raise InvalidURI(url, str(error)) from error
        self._protocol = ClientProtocol(uri, max_size=None)  # the server is the one asked for its answers
        self._messages: deque[bytes | str] = deque()
        self._parts: list[bytes] = []
        self._is_text = False
        self._unheard_since_s: float | None = None
        try:
            self._socket = socket.create_connection((uri.host, uri.port), timeout=_left_s(deadline_s))
        except socket.timeout as error:  # noqa: UP041  (before Python 3.10 it is another class)
            raise TimeoutError("timed out") from error
        try:
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if uri.secure and context is not None:
                self._socket = context.wrap_socket(self._socket, server_hostname=uri.host)
            self._shake_hands(headers, deadline_s)
        except BaseException:
            self._socket.close()
            raise

    @property
    def silent_s(self) -> float:
        """For how long nothing came although something was sent."""
        return 0.0 if self._unheard_since_s is None else time.monotonic() - self._unheard_since_s

    def send(self, frame: bytes | memoryview, deadline_s: float) -> None:
        """Write a binary message, which may be changed afterwards.

        Raises:
            OSError: the connection is lost; TimeoutError, when half a message was written at the deadline.
        """
        self._check_open()
        with self._writing(deadline_s):
            self._write(*_binary_frame(frame), deadline_s)
        self._expect_something()

    def await_life(self, deadline_s: float) -> None:
        """Return once anything came after what was sent. Raises as `receive` does."""
        while self._unheard_since_s is not None:
            self._check_open()
            self._receive_some(deadline_s)

    def receive(self, deadline_s: float) -> bytes | str:
        """The next message, binary or text.

        Raises:
            TimeoutError: there is none at the deadline; the connection stays.
            OSError: the connection is lost.
        """
        while not self._messages:
            self._check_open()
            self._receive_some(deadline_s)
        return self._messages.popleft()

    def ping(self) -> None:
        """Ask for a sign of life, which `silent_s` tells of. Raises OSError as `send` does."""
        self._check_open()
        self._protocol.send_ping(b"")
        self._flush(time.monotonic() + _POLITE_S)
        self._expect_something()

    def tend(self) -> None:
        """Read what has come meanwhile, and answer pings. Raises OSError when the connection is lost."""
        self._check_open()
        try:
            while True:
                self._receive_some(None)
                self._check_open()
        except (BlockingIOError, ssl.SSLWantReadError):
            return

    def abort(self) -> None:
        """Wake whoever reads or writes here in another thread: the connection is lost to them."""
        try:
            self._socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            return  # it was lost before

    def close(self) -> None:
        """Say goodbye where that is possible at once, and hang up."""
        try:
            if self._protocol.state is State.OPEN:
                self._protocol.send_close()
                self._flush(time.monotonic() + _POLITE_S)
        except OSError:
            return  # it was lost before
        finally:
            self._socket.close()

    def _shake_hands(self, headers: Mapping[str, str], deadline_s: float) -> None:
        request = self._protocol.connect()
        request.headers.update(headers)
        self._protocol.send_request(request)
        self._flush(deadline_s)
        while self._protocol.state is State.CONNECTING and self._protocol.handshake_exc is None:
            self._receive_some(deadline_s)
        if self._protocol.handshake_exc is not None:
            raise self._protocol.handshake_exc

    def _check_open(self) -> None:
        if self._protocol.state is not State.OPEN:
            close = self._protocol.close_rcvd
            reason = f"the server closed it: {close.code} {close.reason}".rstrip() if close else "it broke off"
            raise ConnectionAbortedError(reason)

    def _receive_some(self, deadline_s: float | None) -> None:
        """Read once: until the deadline, or what is there already (else BlockingIOError or SSLWantReadError)."""
        self._socket.settimeout(0.0 if deadline_s is None else _left_s(deadline_s))
        try:
            data = self._socket.recv(_RECEIVE_BYTES)
            self._unheard_since_s = None
            if data:
                self._protocol.receive_data(data)
            else:
                self._protocol.receive_eof()
        except socket.timeout as error:  # noqa: UP041  (before Python 3.10 it is another class)
            raise TimeoutError("no answer") from error
        except (BlockingIOError, ssl.SSLWantReadError):
            raise
        except BaseException:  # Ctrl-C too: what was read might be lost
            self._break()
            raise
        self._flush(time.monotonic() + _POLITE_S)
        for event in self._protocol.events_received():
            if isinstance(event, Frame):
                self._take(event)

    def _take(self, frame: Frame) -> None:
        if frame.opcode in (Opcode.TEXT, Opcode.BINARY):
            self._is_text = frame.opcode is Opcode.TEXT
            self._parts = [bytes(frame.data)]
        elif frame.opcode is Opcode.CONT:
            self._parts.append(bytes(frame.data))
        else:
            return
        if frame.fin:
            message = self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
            self._messages.append(message.decode(errors="replace") if self._is_text else message)

    def _flush(self, deadline_s: float) -> None:
        """Write what the protocol wants written."""
        writes = self._protocol.data_to_send()
        if not writes:
            return
        with self._writing(deadline_s):
            for data in writes:
                if data:
                    self._socket.sendall(data)
                else:  # the protocol's sign that nothing more will be written
                    self._socket.shutdown(socket.SHUT_WR)

    def _write(self, head: bytes, payload: bytes, deadline_s: float) -> None:
        """Both at once, without copying a large payload once more."""
        if isinstance(self._socket, ssl.SSLSocket):
            self._socket.sendall(head + payload)
            return
        sent = self._socket.sendmsg([head, payload])
        self._socket.settimeout(_left_s(deadline_s))
        if sent < len(head):
            self._socket.sendall(head[sent:] + payload)
        elif sent < len(head) + len(payload):
            self._socket.sendall(memoryview(payload)[sent - len(head) :])

    @contextmanager
    def _writing(self, deadline_s: float) -> Iterator[None]:
        """Half a frame cannot be taken back: what goes wrong in this block breaks the connection."""
        self._socket.settimeout(_left_s(deadline_s))
        try:
            yield
        except socket.timeout as error:  # noqa: UP041  (before Python 3.10 it is another class)
            self._break()
            raise TimeoutError("the message could not be written") from error
        except BaseException:
            self._break()
            raise

    def _expect_something(self) -> None:
        if self._unheard_since_s is None:
            self._unheard_since_s = time.monotonic()

    def _break(self) -> None:
        self.abort()
        self._protocol.receive_eof()


def _binary_frame(payload: bytes | memoryview) -> tuple[bytes, bytes]:
    """The head and the masked payload of a whole binary message from a client (RFC 6455, section 5.2).

    As the protocol of websockets would write it, which copies the payload twice more.
    """
    mask = os.urandom(4)
    size = len(payload)
    if size < 126:
        head = struct.pack("!BB", 0x82, 0x80 | size)
    elif size < 1 << 16:
        head = struct.pack("!BBH", 0x82, 0x80 | 126, size)
    else:
        head = struct.pack("!BBQ", 0x82, 0x80 | 127, size)
    return head + mask, apply_mask(payload, mask)


def _left_s(deadline_s: float) -> float:
    """Seconds left, > 0. Raises TimeoutError when none is."""
    left_s = deadline_s - time.monotonic()
    if left_s <= 0:
        raise TimeoutError("the deadline passed")
    return left_s
