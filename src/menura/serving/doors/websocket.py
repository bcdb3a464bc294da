"""The door of openpi's websocket protocol.

The server sends a metadata frame; then each binary frame is a message and is answered by a binary frame (openpi,
`websocket_policy_server.py`). An error is a text frame and the end of the connection (1011), as openpi's clients expect
it; to a client that said `Menura-Protocol: 1` it is a binary frame `{"error": {"code", "message"}}`, and the session
goes on.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from aiohttp import WSCloseCode, WSMsgType, web

from menura.serving import codec
from menura.serving.doors.access import Limits
from menura.serving.doors.metrics import Metrics
from menura.serving.engine.errors import RequestRefused, ServingError

if TYPE_CHECKING:
    from menura.serving.engine import Engine, ServingSession

DOOR = "websocket"
#: What a client sends in its handshake to be told of errors in frames rather than by the end of its connection.
PROTOCOL_HEADER = "Menura-Protocol"
#: A number that comes back with the answer, or with the error.
REQUEST_ID = "request_id"

_log = logging.getLogger("menura.serving")


class WebsocketDoor:
    """Every websocket is a session of its own, until it is closed."""

    def __init__(self, engine: Engine, metrics: Metrics, limits: Limits) -> None:
        self._engine = engine
        self._metrics = metrics
        self._limits = limits
        self._connections: set[_Connection] = set()

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """One connection, from its handshake to its end."""
        if len(self._connections) >= self._limits.sessions:
            self._metrics.count_error("full")
            return web.Response(status=503, text=f"expected at most {self._limits.sessions} connections, got another\n")
        socket = web.WebSocketResponse(
            compress=False,  # arrays do not shrink
            max_msg_size=self._limits.frame_bytes,
            timeout=self._limits.closing_s,
        )
        connection = _Connection(self, socket, request)
        self._connections.add(connection)
        try:
            await socket.prepare(request)
            await connection.serve()
        finally:
            self._connections.discard(connection)
        return socket

    async def drain(self, timeout_s: float) -> None:
        """Answers what was asked already, then says goodbye (1001) to every client."""
        ending = [asyncio.create_task(connection.finish(timeout_s)) for connection in self._connections]
        if ending:
            await asyncio.wait(ending)


class _Connection:
    """One client: a task that always reads, so that pings are answered and its end is noticed, and one that answers."""

    def __init__(self, door: WebsocketDoor, socket: web.WebSocketResponse, request: web.Request) -> None:
        self._engine, self._metrics, self._limits = door._engine, door._metrics, door._limits
        self._socket = socket
        self._transport = request.transport
        self._told_in_frames = request.headers.get(PROTOCOL_HEADER) == "1"
        self._frames: asyncio.Queue[tuple[float, bytes | str]] = asyncio.Queue(self._limits.waiting)  # when, what
        self._ending = False
        self._ended = asyncio.Event()
        self._previous_ms: float | None = None  # of the answer before

    async def serve(self) -> None:
        session = self._engine.open_session()
        tasks = [asyncio.create_task(self._read()), asyncio.create_task(self._answer_all(session))]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._ended.set()
            for task in tasks:
                task.cancel()
            outcomes = await asyncio.gather(*tasks, return_exceptions=True)
            self._engine.close_session(session)
        for outcome in outcomes:
            if isinstance(outcome, Exception) and not isinstance(outcome, ConnectionError):
                _log.error("A request could not be answered.", exc_info=outcome)
                await self._close(WSCloseCode.INTERNAL_ERROR, "an error of the server")

    async def finish(self, timeout_s: float) -> None:
        """Answers what waits, for at most `timeout_s`, and closes."""
        self._ending = True
        waits = [asyncio.create_task(self._frames.join()), asyncio.create_task(self._ended.wait())]
        await asyncio.wait(waits, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        for task in waits:
            task.cancel()
        if self._socket.prepared:
            await self._close(WSCloseCode.GOING_AWAY, "the server ends")

    async def _read(self) -> None:
        while True:
            message = await self._socket.receive()
            if message.type not in (WSMsgType.BINARY, WSMsgType.TEXT):
                if self._socket.close_code == WSCloseCode.MESSAGE_TOO_BIG:
                    self._metrics.count_error("too_large")
                return
            if self._ending:
                continue
            if self._frames.full():
                self._metrics.count_error("flood")
                await self._close(WSCloseCode.POLICY_VIOLATION, f"at most {self._limits.waiting} requests may wait")
                return
            self._frames.put_nowait((time.perf_counter(), message.data))

    async def _answer_all(self, session: ServingSession) -> None:
        await self._send(codec.pack(self._metadata(session)))
        while True:
            arrived, frame = await self._frames.get()
            start = time.perf_counter()
            number: dict[str, int] = {}
            try:
                with self._metrics.request(DOOR):
                    message = _message(frame)
                    number = _number(message)
                    asked = {key: value for key, value in message.items() if key != REQUEST_ID}
                    answer = await self._engine.answer(session, _since(arrived, asked))
                await self._send(codec.pack({**self._timed(answer), **number}))
            except ServingError as error:
                if not self._told_in_frames:
                    await self._send(str(error))
                    await self._close(WSCloseCode.INTERNAL_ERROR, "the request was refused")
                    return
                await self._send(codec.pack({"error": {"code": error.code, "message": str(error)}, **number}))
            finally:
                self._frames.task_done()
            self._previous_ms = (time.perf_counter() - start) * 1e3

    def _metadata(self, session: ServingSession) -> dict[str, Any]:
        """Of the engine and of this door: a request may be numbered, so that a late answer is not taken for another."""
        metadata = self._engine.metadata(session)
        limits = {"frame_bytes": self._limits.frame_bytes, "waiting": self._limits.waiting}
        return {
            **metadata,
            "accepts": [*metadata.get("accepts", ()), REQUEST_ID],
            "limits": {**metadata.get("limits", {}), **limits},
        }

    def _timed(self, answer: Mapping[str, Any]) -> dict[str, Any]:
        """With `prev_total_ms`: what the request before took, from its turn until its answer was sent."""
        timing = dict(answer.get("server_timing", {}))
        if self._previous_ms is not None:
            timing["prev_total_ms"] = self._previous_ms
        return {**answer, "server_timing": timing}

    async def _send(self, frame: bytes | str) -> None:
        with self._dropped_after(self._limits.sending_s):
            if isinstance(frame, bytes):
                await self._socket.send_bytes(frame)
            else:
                await self._socket.send_str(frame)

    async def _close(self, code: WSCloseCode, reason: str) -> None:
        with self._dropped_after(self._limits.closing_s):
            await self._socket.close(code=code, message=reason.encode())

    @contextlib.contextmanager
    def _dropped_after(self, seconds: float) -> Iterator[None]:
        """Drops a client that does not take what it is sent: whatever waits for it then ends with a ConnectionError."""
        if self._transport is None:
            raise ConnectionResetError
        dropping = asyncio.get_running_loop().call_later(seconds, self._transport.abort)
        try:
            yield
        finally:
            dropping.cancel()


def _since(arrived: float, message: Mapping[Any, Any]) -> Mapping[Any, Any]:
    """The message with what is left of its deadline, which counts from its arrival."""
    deadline = message.get("deadline_ms")
    if isinstance(deadline, bool) or not isinstance(deadline, (int, float)) or not deadline > 0:
        return message  # none, or one that the engine refuses
    return {**message, "deadline_ms": max(deadline - (time.perf_counter() - arrived) * 1e3, 1e-3)}


def _number(message: Mapping[Any, Any]) -> dict[str, int]:
    """What the answer says again of the request."""
    if REQUEST_ID not in message:
        return {}
    number = message[REQUEST_ID]
    if isinstance(number, bool) or not isinstance(number, int):
        raise RequestRefused(f"{REQUEST_ID}: expected a whole number, got {type(number).__name__}. Count requests.")
    return {REQUEST_ID: number}


def _message(frame: bytes | str) -> Mapping[Any, Any]:
    """What a frame says."""
    if isinstance(frame, str):
        raise RequestRefused("frame: expected a binary one with MessagePack, got text. Send MessagePack.")
    try:
        message = codec.unpack(frame)
    except codec.CodecError as error:
        raise RequestRefused(str(error)) from error
    if not isinstance(message, Mapping):
        raise RequestRefused(
            f"message: expected a map with state, images, task, got {type(message).__name__}. Send a map."
        )
    return message
