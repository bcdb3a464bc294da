"""The policy server: one port with all doors of HTTP around an engine, and GR00T's ZMQ beside it."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from menura.errors import MenuraError
from menura.meta_policy import MetaPolicy
from menura.priority import ANSWERING, first_in_line
from menura.serving.doors.access import EXPECTED_KEY, Access, Limits, check_bind, is_loopback, tls_context
from menura.serving.doors.http import HTTPDoor
from menura.serving.doors.metrics import CONTENT_TYPE, Metrics
from menura.serving.doors.websocket import WebsocketDoor
from menura.serving.doors.zmq import ZMQDoor
from menura.serving.engine import Engine
from menura.serving.engine.keys import KeyMap

DEFAULT_PORT = 8000
#: How long what was asked before the end may take to be answered.
DRAIN_S = 10.0


class PolicyServer:
    """Serves one policy: websocket on any path, `POST /act`, `/healthz`, `/readyz`, `/metrics`; ZMQ where asked for.

    Args:
        meta: the policy; it is asked once before the server listens, so that the first client does not wait.
        host: the address to bind; anything but loopback needs a key.
        port: 0 takes a free one.
        api_key: what clients must send as `Authorization: Api-Key …`.
        certificate, private_key: PEM files; with them, the port speaks TLS.
        zmq_port: where GR00T's protocol is spoken; nowhere, when None. 0 takes a free one.
        keys: how messages name the parts of an observation: a `KeyMap`, the name or the path of a YAML; as the
            checkpoint, when None.
        max_batch, max_wait_ms, max_queue: as of `Engine`.
        limits: how much a client may ask for.
        goes_first: whether the server goes before other programs, where the system permits it; for a process that does
            nothing but serve (`menura.priority`).

    Raises:
        AccessError: others could ask it without a key, or the key or the certificate cannot be used.
    """

    def __init__(
        self,
        meta: MetaPolicy,
        *,
        host: str = "127.0.0.1",
        port: int = DEFAULT_PORT,
        api_key: str | None = None,
        certificate: str | Path | None = None,
        private_key: str | Path | None = None,
        zmq_port: int | None = None,
        keys: KeyMap | str | Path | None = None,
        max_batch: int = 8,
        max_wait_ms: float = 2.0,
        max_queue: int = 64,
        limits: Limits | None = None,
        goes_first: bool = False,
    ) -> None:
        check_bind(host, api_key)
        self.host = host
        self.port = port
        self.zmq_port = zmq_port
        self.metrics = Metrics()
        self._tls = tls_context(certificate, private_key)
        self._access = Access(api_key)
        self._limits = limits or Limits()
        self._own_names = keys is None
        self._goes_first = goes_first
        self._engine = Engine(
            meta,
            keys=keys,
            max_batch=max_batch,
            max_wait_ms=max_wait_ms,
            max_queue=max_queue,
            metrics=self.metrics,
            goes_first=goes_first,
        )

    @property
    def address(self) -> str:
        """Where websockets are answered."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'ws' if self._tls is None else 'wss'}://{host}:{self.port}"

    @property
    def action_names(self) -> tuple[str, ...]:
        """What GR00T's clients find actions under."""
        return self._engine.keys.action_names

    @property
    def exposure(self) -> str | None:
        """How the key could be read on its way by whoever sees the network; None where it could not."""
        if self._access.open or is_loopback(self.host):
            return None
        if self._tls is None:
            return "The key travels in the clear: whoever sees the network can read it. Give --cert and --key."
        if self.zmq_port is not None:
            return "The key travels in the clear by ZMQ, which has no TLS here: use a network of your own, or a tunnel."
        return None

    async def start(self) -> Listening:
        """Warms the policy up and listens.

        Raises:
            MenuraError: the address cannot be listened on.
        """
        await self._engine.start()
        doors = _Doors(self._engine, self._access, self.metrics, self._limits)
        app = web.Application(client_max_size=self._limits.body_bytes)
        app.router.add_route("*", "/{path:.*}", doors.handle)
        runner = web.AppRunner(
            app,
            access_log=None,
            handler_cancellation=True,  # a client that leaves takes its request with it
            keepalive_timeout=self._limits.handshake_s,
            lingering_time=self._limits.closing_s,
            auto_decompress=False,
            logger=_http_log,
            shutdown_timeout=self._limits.closing_s,
        )
        await runner.setup()
        try:
            await web.TCPSite(runner, self.host, self.port, ssl_context=self._tls).start()
        except OSError as error:
            await runner.cleanup()
            await self._engine.drain(0)
            raise _cannot_listen(self.host, self.port, error, "--port") from error
        self.port = runner.addresses[0][1]
        listening = Listening(self._engine, doors, runner, self.port)
        if self._goes_first:
            listening.go_first()
        if self.zmq_port is not None:
            try:
                self.zmq_port = listening.add_zmq(self._zmq_door(listening.stop), self.host, self.zmq_port)
            except MenuraError:
                await listening.close()
                raise
        return listening

    def _zmq_door(self, end: Callable[[], None]) -> ZMQDoor:
        return ZMQDoor(self._engine, self._access, self.metrics, self._limits, own_names=self._own_names, end=end)


class Listening:
    """A server that listens. Ends as the context it is, or by `close`.

    Attributes:
        port: of HTTP and websockets.
        zmq_port: of ZMQ; None where it is not spoken.
    """

    def __init__(self, engine: Engine, doors: _Doors, runner: web.AppRunner, port: int) -> None:
        self._engine = engine
        self._doors = doors
        self._runner = runner
        self._zmq: ZMQDoor | None = None
        self._stopped = asyncio.Event()
        self._closed = False
        self._going_first = ExitStack()
        self.port = port
        self.zmq_port: int | None = None

    def add_zmq(self, door: ZMQDoor, host: str, port: int) -> int:
        """Opens a further door; its port."""
        self.zmq_port = door.listen(host, port)
        self._zmq = door
        return self.zmq_port

    def go_first(self) -> None:
        """Until it is closed, the event loop's thread goes before other programs."""
        self._going_first.enter_context(first_in_line(ANSWERING))

    def stop(self) -> None:
        """Ends `serve_forever`."""
        self._stopped.set()

    async def serve_forever(self) -> None:
        """Until it is stopped or closed."""
        await self._stopped.wait()

    async def close(self, drain_s: float = DRAIN_S) -> None:
        """Takes nobody new, answers what was asked already (for at most `drain_s`), says goodbye and ends."""
        if self._closed:
            return
        self._closed = True
        self._stopped.set()
        self._doors.draining = True
        for site in list(self._runner.sites):
            await site.stop()
        end_s = asyncio.get_running_loop().time() + drain_s
        doors = [self._doors.drain(drain_s)] + ([] if self._zmq is None else [self._zmq.drain(drain_s)])
        await asyncio.gather(*doors)
        await self._engine.drain(max(end_s - asyncio.get_running_loop().time(), 0.0))
        await self._runner.cleanup()
        self._doors.close()
        self._going_first.close()

    async def __aenter__(self) -> Listening:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()


class _Doors:
    """Sends each request to its door, once it may pass."""

    def __init__(self, engine: Engine, access: Access, metrics: Metrics, limits: Limits) -> None:
        self._access = access
        self._metrics = metrics
        self._websocket = WebsocketDoor(engine, metrics, limits)
        self._http = HTTPDoor(engine, metrics, limits)
        self.draining = False

    async def handle(self, request: web.Request) -> web.StreamResponse:
        upgrade = request.headers.get("Upgrade", "").lower() == "websocket"
        if not upgrade and request.path == "/healthz":
            return web.Response(text="OK\n")
        if not upgrade and request.path == "/readyz":
            return web.Response(status=503, text="ending\n") if self.draining else web.Response(text="OK\n")
        if (refusal := self._refusal(request)) is not None:
            return refusal
        if upgrade:
            return await self._websocket.handle(request)
        if request.path == "/act":
            return await self._http.handle(request)
        if request.path == "/metrics":
            return web.Response(body=self._metrics.exposition(), headers={"Content-Type": CONTENT_TYPE})
        return web.Response(status=404, text="expected a websocket, /act, /metrics, /healthz or /readyz\n")

    async def drain(self, timeout_s: float) -> None:
        await self._websocket.drain(timeout_s)

    def close(self) -> None:
        self._http.close()

    def _refusal(self, request: web.Request) -> web.Response | None:
        """Why this request goes no further."""
        if not self._access.allows_header(request.headers.get("Authorization", "")):
            self._metrics.count_error("unauthorized")
            return web.Response(status=401, text=EXPECTED_KEY + "\n", headers={"WWW-Authenticate": "Api-Key"})
        origin = request.headers.get("Origin")
        if self._access.open and origin is not None and origin.partition("://")[2] != request.host:
            # A page of any site could ask what listens on its reader's loopback.
            self._metrics.count_error("foreign_page")
            return web.Response(status=403, text="expected no request of another site's page without a key\n")
        if self.draining:
            return web.Response(status=503, text="the server ends\n")
        return None


def check_free(host: str, port: int, option: str = "--port") -> None:
    """Refuse an address that cannot be listened on, at once: a large checkpoint takes minutes to load.

    It is bound for a moment and let go. Nobody can connect before the server is ready.

    Args:
        option: of the command, which chooses the port.

    Raises:
        MenuraError: it is taken, or none of this machine's.
    """

    async def bind() -> None:
        (await asyncio.get_running_loop().create_server(asyncio.Protocol, host, port, start_serving=False)).close()

    try:
        asyncio.run(bind())
    except OSError as error:
        raise _cannot_listen(host, port, error, option) from error


def _cannot_listen(host: str, port: int, error: OSError, option: str) -> MenuraError:
    # In the words of the system, where it has some: of others asyncio repeats the address.
    reason = os.strerror(error.errno) if error.errno and error.errno > 0 else error.strerror or str(error)
    return MenuraError(
        f"menura serve: expected to listen on {host}:{port}, got: {reason}. Choose another {option} or --host."
    )


def _is_ours(record: logging.LogRecord) -> bool:
    """Whether this was not merely a stranger who spoke no HTTP, or a client that left."""
    return not (record.exc_info and isinstance(record.exc_info[1], (HttpProcessingError, ConnectionError)))


_http_log = logging.getLogger("menura.serving.http")
_http_log.addFilter(_is_ours)
