"""The door of GR00T's ZMQ protocol: request and reply.

Its endpoints are `ping`, `get_action`, `get_modality_config`, `reset` and `kill`. Both of its dialects are answered
(Isaac-GR00T): N1.6 asks with `{"observation": {"video": {…}, "state": {…}, "language": {…}}, "options"}`, arrays with
axes (batch, time, …), and is answered `[actions, info]`; N1.5 asks with flat keys (`video.front`, `state.arm`), arrays
with axes (time, …), and is answered `actions`. Actions are `{"action": …}`, (1, T, A) to the one, (T, A) to the other.
N1.6's simulations ask as the one, with flat keys as the other.

Pictures are `video/<camera>`; one array below `state` is the state; the instruction is the one text. Where a client
names more than that, a `--keys` YAML says what is what: `state: {state/arm: 6, state/gripper: 1}`,
`cameras: {video/front: [front]}`, `task: language/annotation.human.task_description`. Its `actions: {arm: 6,
gripper: 1}` splits the actions, too: who asks with flat keys is answered `action.arm`, who asks with nested ones `arm`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from menura.errors import MenuraError
from menura.serving.codec import CodecError
from menura.serving.doors import groot_codec
from menura.serving.doors.access import Access, Limits
from menura.serving.doors.metrics import Metrics
from menura.serving.doors.named_sessions import NamedSessions
from menura.serving.engine.errors import Busy, RequestRefused, ServingError

if TYPE_CHECKING:
    from menura.serving.engine import Engine

DOOR = "zmq"
_ENDPOINTS = ("ping", "get_action", "get_modality_config", "reset", "kill")
#: Axes of one array of N1.5 without a batch: (time, height, width, colour) and (time, number).
_AXES = {"video": 4, "state": 2}

_log = logging.getLogger("menura.serving")


@dataclass(frozen=True)
class _Asked:
    """An observation of either dialect.

    Attributes:
        observation: {"video", "state", "language": {name: one row's value}}.
        batched: as of N1.6, arrays have a batch.
        flat: keys are `state.arm` rather than nested.
    """

    observation: dict[str, dict[str, Any]]
    batched: bool
    flat: bool

    @classmethod
    def of(cls, data: Any) -> _Asked:
        if not isinstance(data, Mapping):
            raise RequestRefused(f"data: expected a map with the observation, got {type(data).__name__}.")
        batched = isinstance(data.get("observation"), Mapping)
        found: dict[str, dict[str, Any]] = {"video": {}, "state": {}, "language": {}}
        flat = False
        for key, value in (data["observation"] if batched else data).items():
            modality, _, name = str(key).partition(".")
            if modality in found and isinstance(value, Mapping):
                found[modality] |= {str(inner): _row(modality, inner, each, batched) for inner, each in value.items()}
            elif modality in _AXES and name:
                found[modality][name] = _row(modality, name, value, batched)
                flat = True
            elif modality in ("annotation", "language", "task"):
                found["language"][str(key)] = _text(key, value)
            else:
                raise RequestRefused(f"{str(key)[:40]!r}: expected video, state, language or annotation.")
        return cls(found, batched, flat)


class ZMQDoor:
    """Every ZMQ identity, which is a client's socket, is a session of its own; it is forgotten when it is idle.

    Args:
        engine: answers.
        access: whose key `api_token` must be, where there is one.
        metrics: told what happens.
        limits: of a client.
        own_names: whether messages are to have the checkpoint's own names; else those of the protocol, for a `--keys`.
        end: ends the server; asked for by `kill`.
    """

    def __init__(
        self,
        engine: Engine,
        access: Access,
        metrics: Metrics,
        limits: Limits,
        *,
        own_names: bool,
        end: Callable[[], None],
    ) -> None:
        self._engine = engine
        self._access = access
        self._metrics = metrics
        self._limits = limits
        self._own_names = own_names
        self._end = end
        self._sessions = NamedSessions(engine, limits)
        self._answering: set[asyncio.Task[None]] = set()

    def listen(self, host: str, port: int) -> int:
        """Binds and begins to answer; the port.

        Raises:
            MenuraError: pyzmq is not installed, or the address cannot be listened on.
        """
        check_installed()
        import zmq
        import zmq.asyncio

        self._context = zmq.asyncio.Context()
        self._socket = socket = self._context.socket(zmq.ROUTER)
        socket.setsockopt(zmq.MAXMSGSIZE, self._limits.frame_bytes)
        socket.setsockopt(zmq.HANDSHAKE_IVL, int(self._limits.handshake_s * 1000))
        socket.setsockopt(zmq.LINGER, int(self._limits.closing_s * 1000))
        socket.setsockopt(zmq.RCVHWM, self._limits.waiting)  # messages of one client that wait to be read,
        socket.setsockopt(zmq.SNDHWM, self._limits.waiting)  # and answers that it does not take: further are dropped
        socket.setsockopt(zmq.IPV6, ":" in host)
        address = "127.0.0.1" if host == "localhost" else f"[{host}]" if ":" in host else host
        try:
            socket.bind(f"tcp://{address}:{port or '*'}")
        except zmq.ZMQError as error:
            self._context.destroy(linger=0)
            raise MenuraError(
                f"menura serve: expected to listen on tcp://{host}:{port}, got: {zmq.strerror(error.errno or 0)}. "
                "Choose another --zmq_port or --host."
            ) from error
        self._receiving = asyncio.create_task(self._receive())
        self._receiving.add_done_callback(self._answered)
        return int(socket.getsockopt_string(zmq.LAST_ENDPOINT).rpartition(":")[2])

    async def drain(self, timeout_s: float) -> None:
        """Reads no more, answers what was read, for at most `timeout_s`, and closes."""
        self._receiving.cancel()
        if self._answering:
            await asyncio.wait(self._answering, timeout=timeout_s)
        for task in self._answering:
            task.cancel()
        await asyncio.gather(self._receiving, *self._answering, return_exceptions=True)
        self._sessions.close()
        self._context.destroy(linger=int(self._limits.closing_s * 1000))

    async def _receive(self) -> None:
        while True:
            identity, *parts = await self._socket.recv_multipart()
            if len(parts) != 2 or parts[0]:  # of a REQ socket: an empty part, then the request
                self._metrics.count_error("malformed")
                continue
            if len(self._answering) >= self._limits.sessions + self._limits.waiting:
                self._metrics.count_error(Busy.code)
                await self._reply(identity, {"error": "expected fewer requests at a time. Ask again later."})
                continue
            task = asyncio.create_task(self._answer(identity, parts[1]))
            self._answering.add(task)
            task.add_done_callback(self._answered)
            await asyncio.sleep(0)  # a flood has its turns like everyone: receiving what is there already does not wait

    def _answered(self, task: asyncio.Task[None]) -> None:
        self._answering.discard(task)
        if not task.cancelled() and (problem := task.exception()) is not None:
            _log.error("A request could not be answered.", exc_info=problem)

    async def _answer(self, identity: bytes, message: bytes) -> None:
        answer: Any = {"error": "an error of the server"}
        try:
            with self._metrics.request(DOOR):
                answer = await self._endpoint(identity, message)
        except ServingError as error:
            answer = {"error": str(error)}
        finally:
            await self._reply(identity, answer)

    async def _reply(self, identity: bytes, answer: Any) -> None:
        await self._socket.send_multipart([identity, b"", groot_codec.pack(answer)])

    async def _endpoint(self, identity: bytes, message: bytes) -> Any:
        request = _unpacked(message)
        if not self._access.allows(request.get("api_token")):
            self._metrics.count_error("unauthorized")
            raise RequestRefused("api_token: expected the server's key, got another or none.")
        endpoint = request.get("endpoint", "get_action")
        if endpoint == "ping":
            return {"status": "ok", "message": "Server is running"}
        if endpoint == "get_modality_config":
            return self._modalities()
        if endpoint == "kill":
            return self._kill()
        if endpoint not in ("get_action", "reset"):
            raise RequestRefused(f"endpoint: expected one of {', '.join(_ENDPOINTS)}, got {str(endpoint)[:40]!r}.")
        if endpoint == "reset":
            async with self._sessions.using(identity) as session:
                await self._engine.answer(session, {"reset": True})
            return {}
        asked = _Asked.of(request.get("data"))
        named = self._in_own_names(asked.observation) if self._own_names else asked.observation
        async with self._sessions.using(identity) as session:
            answer = await self._engine.answer(session, named)
        actions = self._split(answer.pop("actions"), flat=asked.flat)
        if asked.batched:
            return [{name: part[None] for name, part in actions.items()}, answer]
        return actions

    def _split(self, actions: NDArray[np.float32], *, flat: bool) -> dict[str, NDArray[np.float32]]:
        """(T, A) as the client reads it: whole, or in the parts of a `--keys` YAML."""
        keys = self._engine.keys
        if not keys.actions:
            return {"action": actions}
        ends = np.cumsum(list(keys.actions.values()))[:-1]
        names = [f"action.{name}" if flat else name for name in keys.actions]
        return dict(zip(names, np.split(actions, ends, axis=1), strict=True))

    def _kill(self) -> dict[str, Any]:
        if self._access.open:
            raise RequestRefused("kill: expected a server with a key, whose holders may end it, got one without.")
        self._end()
        return {"status": "ok", "message": "The server ends"}

    def _modalities(self) -> dict[str, Any]:
        """What this server is asked with and answers, by the names that its clients have for it."""
        meta, keys = self._engine.meta, self._engine.keys
        now = list(meta.observation_offsets)
        video = [_last_part(keys.camera_keys[camera]) for camera in meta.required_cameras]
        state = [_last_part(part.keys[0]) for part in keys.state]
        return {
            "video": groot_codec.modality(video, now),
            "state": groot_codec.modality(state, now),
            "action": groot_codec.modality(keys.action_names, range(meta.chunk_size or 1)),
            "language": groot_codec.modality([_last_part(keys.task[0])], [0]),
        }

    def _in_own_names(self, observation: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
        message: dict[str, Any] = {"images": observation["video"]}
        for modality, name in (("state", "state"), ("language", "task")):
            values = observation[modality]
            if len(values) > 1:
                raise RequestRefused(
                    f"{modality}: expected one, got {', '.join(values)}. Say which is which in a --keys YAML."
                )
            if values:
                message[name] = next(iter(values.values()))
        return message


def check_installed() -> None:
    """Raises MenuraError where pyzmq, an extra, is not there."""
    if find_spec("zmq") is None:
        raise MenuraError('--zmq_port: expected pyzmq, got none. pip install "menura[zmq]".')


def _unpacked(message: bytes) -> Mapping[Any, Any]:
    try:
        request = groot_codec.unpack(message)
    except CodecError as error:
        raise RequestRefused(str(error)) from error
    if not isinstance(request, Mapping):
        raise RequestRefused(f"request: expected a map with endpoint and data, got {type(request).__name__}.")
    return request


def _last_part(key: str) -> str:
    """`arm` of the key `state/arm`."""
    return key.rpartition("/")[2]


def _row(modality: str, name: Any, value: Any, batched: bool) -> Any:
    """One row's value, without the batch; without the time, where that is one step, which a session may complete."""
    if modality == "language":
        return _text(name, value)
    if not isinstance(value, np.ndarray):
        raise RequestRefused(f"{modality}.{name}: expected an array, got {type(value).__name__}.")
    axes = _AXES[modality]
    if value.ndim == axes + 1:
        if len(value) != 1:
            raise RequestRefused(f"{modality}.{name}: expected a batch of 1, got {len(value)}. Ask for one robot.")
        value = value[0]
    elif batched or value.ndim != axes:
        raise RequestRefused(f"{modality}.{name}: expected {axes + batched} axes, got shape {value.shape}.")
    return value[0] if len(value) == 1 else value


def _text(name: Any, value: Any) -> str:
    """The one text of a text, or of nested lists of one."""
    given = value
    while isinstance(given, list) and len(given) == 1:
        given = given[0]
    if not isinstance(given, str):
        raise RequestRefused(f"{str(name)[:40]}: expected one text, got {type(given).__name__}.")
    return given
