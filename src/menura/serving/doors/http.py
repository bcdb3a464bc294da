"""The door for scripts: `POST /act` with JSON.

A message is as of the websocket, written in JSON: an array is a nested list of numbers or `{"dtype", "shape", "data"}`
with the bytes in base64; a picture is an array, or a JPEG or PNG in base64 (`{"data": …}`, or plain text). The answer
is JSON: `{"actions": [[…]], …}`, or `{"error": {"code", "message"}}` with a status that fits.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
import math
from collections.abc import Container, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from aiohttp import web
from numpy.typing import NDArray

from menura.serving.doors.access import Limits
from menura.serving.doors.metrics import Metrics
from menura.serving.doors.named_sessions import NamedSessions
from menura.serving.engine.errors import Busy, Late, RequestRefused, ServingError
from menura.serving.engine.keys import DEEPEST

if TYPE_CHECKING:
    from menura.serving.engine import Engine

DOOR = "http"
#: Names the session whose history holds; the field `session` of a message does, too.
SESSION_HEADER = "Menura-Session"
#: Of one message: reading JSON costs many times its length, and nobody else is answered meanwhile.
MAX_VALUES = 2**20
_MAX_NAME = 128
_DTYPES = {
    name: np.dtype(kind)
    for kind in ("bool", "u1", "u2", "u4", "u8", "i1", "i2", "i4", "i8", "f2", "f4", "f8")
    for name in (np.dtype(kind).name, np.dtype(kind).str)
}
_STATUS = {RequestRefused.code: 400, Late.code: 504, Busy.code: 503}


class HTTPDoor:
    """Each request stands alone, unless it names a session."""

    def __init__(self, engine: Engine, metrics: Metrics, limits: Limits) -> None:
        self._engine = engine
        self._metrics = metrics
        self._limits = limits
        self._sessions = NamedSessions(engine, limits)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """One answer."""
        if request.method != "POST":
            return web.Response(status=405, text="expected POST\n", headers={"Allow": "POST"})
        try:
            with self._metrics.request(DOOR):
                message = read(await self._body(request), self._engine.keys.cameras)
                answer = await self._answer(message, request.headers.get(SESSION_HEADER))
        except ServingError as error:
            status = _STATUS.get(error.code, 500)
            return web.json_response({"error": {"code": error.code, "message": str(error)}}, status=status)
        return web.json_response(_plain(answer))

    def close(self) -> None:
        """Closes the sessions that clients named."""
        self._sessions.close()

    async def _body(self, request: web.Request) -> bytes:
        try:
            return await asyncio.wait_for(request.read(), self._limits.handshake_s)
        except asyncio.TimeoutError as error:
            raise Late(f"body: expected all of it within {self._limits.handshake_s} s, got a part.") from error

    async def _answer(self, message: dict[str, Any], named: str | None) -> Mapping[str, Any]:
        name = message.pop("session", named)
        if name is None:
            session = self._engine.open_session()
            try:
                return await self._engine.answer(session, message)
            finally:
                self._engine.close_session(session)
        if not isinstance(name, str) or len(name) > _MAX_NAME:
            raise RequestRefused(f"session: expected a text of at most {_MAX_NAME} characters, got {str(name)[:20]!r}.")
        async with self._sessions.using(name) as session:
            return await self._engine.answer(session, message)


def read(body: bytes, pictures: Container[str]) -> dict[str, Any]:
    """The message of a request's JSON: arrays for nested lists and for base64, bytes for pictures in base64.

    Args:
        pictures: the keys of those; `images/top` is that of `{"images": {"top": …}}`, too.

    Raises:
        RequestRefused: it is no JSON, or not that of a message.
    """
    if body.count(b",") + body.count(b"[") + body.count(b"{") > MAX_VALUES:
        raise RequestRefused(f"body: expected at most {MAX_VALUES} values, got more. Send arrays in base64.")
    try:
        message = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise RequestRefused(f"body: expected JSON, got: {error}.") from error
    if not isinstance(message, dict):
        raise RequestRefused(f"body: expected an object, got {type(message).__name__}.")
    return {key: _value(value, key, pictures) for key, value in message.items()}


def _value(value: Any, where: str, pictures: Container[str], depth: int = 1) -> Any:
    if isinstance(value, str) and where in pictures:
        return _bytes(value, where)
    if isinstance(value, list):
        numbers = _numbers(value, where)
        return _as_pixels(numbers) if where in pictures else numbers
    if isinstance(value, dict) and "data" in value:
        data = _bytes(value["data"], where)
        return data if value.keys() == {"data"} else _array(data, value.get("dtype"), value.get("shape"), where)
    if isinstance(value, dict) and depth < DEEPEST:
        return {key: _value(inner, f"{where}/{key}", pictures, depth + 1) for key, inner in value.items()}
    return value


def _as_pixels(numbers: NDArray[Any]) -> NDArray[Any]:
    """uint8, where they are: JSON does not tell."""
    whole = numbers.dtype.kind in "iu" and numbers.size
    return numbers.astype(np.uint8) if whole and numbers.min() >= 0 and numbers.max() <= 255 else numbers


def _numbers(value: list[Any], where: str) -> NDArray[Any]:
    try:
        array = np.array(value)
    except (ValueError, OverflowError, RecursionError) as error:  # of rows that are not of one length
        raise RequestRefused(f"{where}: expected numbers in lists of one length, got: {error}.") from error
    if array.dtype.kind not in "biuf" and array.size:
        raise RequestRefused(f"{where}: expected numbers, got {array.dtype}.")
    return array


def _bytes(data: Any, where: str) -> bytes:
    try:
        return base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError, TypeError) as error:
        raise RequestRefused(f"{where}: expected base64, got: {error}.") from error


def _array(data: bytes, name: Any, shape: Any, where: str) -> NDArray[Any]:
    dtype = _DTYPES.get(name) if isinstance(name, str) else None
    if dtype is None:
        raise RequestRefused(f"{where}.dtype: expected one of {', '.join(sorted(_DTYPES))}, got {str(name)[:20]!r}.")
    if not isinstance(shape, list) or not all(type(size) is int and size >= 0 for size in shape) or len(shape) > 32:
        raise RequestRefused(f"{where}.shape: expected a list of sizes, got {str(shape)[:20]}.")
    if len(data) != math.prod(shape) * dtype.itemsize:
        raise RequestRefused(f"{where}.data: expected {dtype.name} of shape {shape}, got {len(data)} bytes.")
    return np.frombuffer(data, dtype).reshape(shape)


def _plain(answer: Mapping[str, Any]) -> dict[str, Any]:
    """An answer without arrays, which JSON does not have."""
    return {key: value.tolist() if isinstance(value, np.ndarray) else value for key, value in answer.items()}
