"""The client against servers that fail in every way a server and a network can."""

from __future__ import annotations

import contextlib
import gc
import http
import http.server
import select
import signal
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.server import Server, ServerConnection, serve

from menura.errors import ContractError
from menura.serving import client as client_module
from menura.serving import line as line_module
from menura.serving.client import Client, LateAnswer, RequestRefused, ServerError, is_address
from menura.serving.codec import CodecError, pack, unpack

ACCEPTS = ["reset", "deadline_ms", "prev_chunk", "delay", "request_id"]
METADATA = {"checkpoint_hash": "abc", "chunk_size": 2, "accepts": ACCEPTS}


def echo(message: dict[str, Any]) -> Any:
    """Answers the number it was asked; `sleep_s` tells when."""
    time.sleep(message.get("sleep_s", 0))
    return {"actions": np.full((2, 1), message["x"], np.float32)}


class Scripted:
    """A policy server that does what a test says; without `accepts` in its metadata it is as openpi's."""

    def __init__(
        self,
        metadata: Any = METADATA,
        reply: Callable[[dict[str, Any]], Any] = echo,
        *,
        port: int = 0,
        key: str | None = None,
        context: ssl.SSLContext | None = None,
        ping_interval: float | None = None,
    ) -> None:
        self.metadata, self.reply, self.key = metadata, reply, key
        self.asked: list[dict[str, Any]] = []
        self.connections: list[ServerConnection] = []
        self._server: Server = serve(
            self._session,
            "127.0.0.1",
            port,
            compression=None,
            max_size=None,
            ssl=context,
            process_request=self._check_key,
            ping_interval=ping_interval,
            ping_timeout=0.3,
            close_timeout=0.1,
        )
        self.port: int = self._server.socket.getsockname()[1]
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.port}"

    def stop(self) -> None:
        """As a process that is killed."""
        self._server.shutdown()
        self._thread.join()
        for connection in self.connections:
            with contextlib.suppress(OSError):
                connection.socket.shutdown(socket.SHUT_RDWR)

    def __enter__(self) -> Scripted:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _check_key(self, connection: ServerConnection, request: Any) -> Any:
        if self.key is not None and request.headers.get("Authorization") != f"Api-Key {self.key}":
            return connection.respond(http.HTTPStatus.UNAUTHORIZED, "no\n")
        return None

    def _session(self, connection: ServerConnection) -> None:
        self.connections.append(connection)
        with contextlib.suppress(ConnectionClosed):
            if self.metadata is not None:
                connection.send(self.metadata if isinstance(self.metadata, str) else pack(self.metadata))
            for frame in connection:
                message = unpack(frame)
                self.asked.append(message)
                answer = self.reply(message)
                if isinstance(answer, dict):
                    number = {"request_id": message["request_id"]} if "request_id" in message else {}
                    connection.send(pack({**answer, **number}))
                else:
                    connection.send(answer)
                    connection.close(1011)


class Proxy:
    """A network that can be paused and cut."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._flowing = threading.Event()
        self._flowing.set()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._sockets: list[socket.socket] = []
        self.url = f"ws://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def pause(self) -> None:
        self._flowing.clear()

    def resume(self) -> None:
        self._flowing.set()

    def cut(self) -> None:
        for open_socket in self._sockets:
            with contextlib.suppress(OSError):
                open_socket.shutdown(socket.SHUT_RDWR)
        self._sockets.clear()

    def close(self) -> None:
        self._listener.close()
        self.cut()
        self.resume()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            far = socket.create_connection(("127.0.0.1", self._target))
            self._sockets += [near, far]
            threading.Thread(target=self._relay, args=(near, far), daemon=True).start()

    def _relay(self, near: socket.socket, far: socket.socket) -> None:
        with contextlib.suppress(OSError), near, far:
            while True:
                for source in select.select([near, far], [], [])[0]:
                    self._flowing.wait()
                    data = source.recv(1 << 16)
                    if not data:
                        return
                    (far if source is near else near).sendall(data)


@contextmanager
def proxied(server: Scripted) -> Iterator[Proxy]:
    proxy = Proxy(server.port)
    try:
        yield proxy
    finally:
        proxy.close()


def value(answer: dict[str, Any]) -> float:
    return float(answer["actions"][0, 0])


# Asking


def test_a_stock_server_is_asked_nothing_it_does_not_know() -> None:
    with Scripted({"name": "stock"}) as server, Client(server.url) as client:
        assert client.metadata == {"name": "stock"}
        assert value(client.infer({"x": 3}, reset=True, deadline_ms=5000)) == 3
        assert server.asked == [{"x": 3}]
        with pytest.raises(ContractError, match="takes prev_chunk"):
            client.infer({"x": 3}, prev_chunk=np.zeros((2, 1)))


def test_what_the_server_accepts_is_sent() -> None:
    with Scripted() as server, Client(server.url) as client:
        client.infer({"x": 1})
        chunk = np.ones((2, 1), np.float32)
        client.infer({"x": 1, "seed": 7}, reset=True, deadline_ms=5000, prev_chunk=chunk, delay=1)
        first, second = server.asked
        assert (first["request_id"], second["request_id"]) == (1, 2)
        assert not {"deadline_ms", "reset"} & set(first)
        assert 4000 < second["deadline_ms"] <= 5000
        assert second["reset"] is True
        assert (second["seed"], second["delay"]) == (7, 1)
        np.testing.assert_array_equal(second["prev_chunk"], chunk)


def test_a_stock_server_s_error_is_told_and_the_next_request_comes_to_a_new_session() -> None:
    def fails(message: dict[str, Any]) -> Any:
        return "Traceback: no such key" if message["x"] < 0 else echo(message)

    with Scripted({}, fails) as server, Client(server.url) as client:
        with pytest.raises(ServerError, match="answered with an error:\nTraceback: no such key"):
            client.infer({"x": -1})
        assert value(client.infer({"x": 2})) == 2
        assert client.reconnects == 1


@pytest.mark.parametrize(
    ("code", "kind"), [("refused", RequestRefused), ("late", LateAnswer), ("busy", ServerError), ("new", ServerError)]
)
def test_an_error_of_a_request_leaves_the_session(code: str, kind: type[ServerError]) -> None:
    def fails(message: dict[str, Any]) -> Any:
        return {"error": {"code": code, "message": "state: expected 3"}} if message["x"] < 0 else echo(message)

    with Scripted(reply=fails) as server, Client(server.url) as client:
        with pytest.raises(ServerError, match="state: expected 3") as raised:
            client.infer({"x": -1})
        assert type(raised.value) is kind
        assert raised.value.code == code
        assert value(client.infer({"x": 2})) == 2
        assert client.reconnects == 0


def test_what_cannot_be_sent_is_not_asked() -> None:
    with Scripted() as server, Client(server.url) as client:
        with pytest.raises(CodecError, match="packing a frame"):
            client.infer({"x": object()})
        assert value(client.infer({"x": 2})) == 2


@pytest.mark.parametrize("answer", [b"\xc1", pack([1])])
def test_an_answer_that_is_none(answer: bytes) -> None:
    with (
        Scripted({}, lambda _: answer) as server,
        Client(server.url) as client,
        pytest.raises(ServerError, match="got"),
    ):
        client.infer({"x": 1})


def test_latency() -> None:
    with Scripted() as server, Client(server.url) as client:
        assert client.latency().count == 0
        for _ in range(4):
            client.infer({"x": 1})
        client.infer({"x": 1, "sleep_s": 0.05})
        latency = client.latency()
        assert latency.count == 5
        assert 0 < latency.p50 <= latency.p90 <= latency.p99 <= latency.max
        assert latency.max >= 50


# Deadlines


@pytest.mark.parametrize(("metadata", "reconnects"), [(METADATA, 0), ({}, 1)])
def test_a_late_answer_is_never_that_of_the_next_request(metadata: dict[str, Any], reconnects: int) -> None:
    with Scripted(metadata) as server, Client(server.url) as client:
        started = time.monotonic()
        with pytest.raises(LateAnswer, match="the deadline passed"):
            client.infer({"x": 1, "sleep_s": 0.3}, deadline_ms=50)
        assert time.monotonic() - started < 0.25
        assert value(client.infer({"x": 2})) == 2
        assert value(client.infer({"x": 3})) == 3
        assert client.reconnects == reconnects


def test_a_server_that_computes_for_long_is_not_flooded() -> None:
    with Scripted() as server, Client(server.url) as client:
        for number in range(8):
            with pytest.raises(LateAnswer):
                client.infer({"x": number, "sleep_s": 0.5}, deadline_ms=20)
        assert value(client.infer({"x": 9})) == 9
        assert client.reconnects == 0
        assert len(server.asked) == client_module._MOST_OWED + 1


def test_the_default_deadline_is_the_timeout() -> None:
    with Scripted() as server, Client(server.url, timeout_s=0.2) as client, pytest.raises(LateAnswer):
        client.infer({"x": 1, "sleep_s": 0.4})


def test_a_network_that_pauses_for_two_seconds() -> None:
    """Every request meanwhile is late at its deadline, though its message does not fit into the network's buffers."""
    image = np.zeros((720, 1280, 3), np.uint8)
    with Scripted() as server, proxied(server) as proxy, Client(proxy.url) as client:
        client.infer({"x": 0, "image": image})
        proxy.pause()
        threading.Timer(2.0, proxy.resume).start()
        late = 0
        with contextlib.suppress(StopIteration):
            while True:
                started = time.monotonic()
                try:
                    answer = client.infer({"x": late + 1, "image": image}, deadline_ms=200)
                except LateAnswer:
                    late += 1
                    assert time.monotonic() - started < 0.5
                else:
                    assert value(answer) == late + 1
                    break
        assert 5 <= late <= 12
        assert value(client.infer({"x": -1})) == -1


def test_a_server_that_is_gone_without_a_word(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither answers nor pongs: after a while another connection is tried, though this one never broke."""
    monkeypatch.setattr(client_module, "_SILENCE_S", 0.2)
    with Scripted() as server, proxied(server) as proxy, Client(proxy.url) as client:
        proxy.pause()
        for _ in range(6):
            with pytest.raises(LateAnswer):
                client.infer({"x": 1}, deadline_ms=100)
        proxy.resume()
        assert value(client.infer({"x": 2})) == 2
        assert client.reconnects == 1


# Coming back


def test_a_server_that_restarts_is_asked_again() -> None:
    with Scripted() as server, Client(server.url) as client:
        client.infer({"x": 1})
        server.stop()
        started: list[Scripted] = []
        again = {**METADATA, "session": "second"}
        threading.Timer(0.3, lambda: started.append(Scripted(again, port=server.port))).start()
        assert value(client.infer({"x": 2})) == 2
        assert value(client.infer({"x": 3})) == 3
        assert client.reconnects == 1
        assert client.metadata == again
        with started[0] as second:
            assert [message.get("reset") for message in second.asked] == [True, None]


def test_a_connection_cut_while_the_answer_is_computed() -> None:
    with Scripted() as server, proxied(server) as proxy, Client(proxy.url) as client:
        threading.Timer(0.1, proxy.cut).start()
        assert value(client.infer({"x": 1, "sleep_s": 0.2})) == 1
        assert [message.get("reset") for message in server.asked] == [None, True]


def test_a_request_that_ends_every_connection_is_not_asked_for_ever() -> None:
    def dies(message: dict[str, Any]) -> Any:
        server.connections[-1].socket.shutdown(socket.SHUT_RDWR)
        return b""

    with Scripted(reply=dies) as server, Client(server.url) as client:
        with pytest.raises(ServerError, match="lost twice"):
            client.infer({"x": 1})
        assert len(server.asked) == 2


@pytest.mark.parametrize("key", ["checkpoint_hash", "features"])
def test_another_policy_is_not_taken_for_the_one_before(key: str) -> None:
    with Scripted() as server, Client(server.url) as client:
        client.infer({"x": 1})
        server.stop()
        with Scripted({**METADATA, key: "other"}, port=server.port) as second:
            with pytest.raises(ServerError, match=f"expected the policy that was there before, got .* another {key}"):
                client.infer({"x": 2})
            assert second.asked == []
        with Scripted(port=server.port):
            assert value(client.infer({"x": 3})) == 3


def test_a_server_that_does_not_come_back_and_then_does() -> None:
    with Scripted() as server, Client(server.url, reconnect_s=0.3) as client:
        server.stop()
        with pytest.raises(ServerError, match=r"connecting to .*: expected a policy server.*menura serve"):
            client.infer({"x": 1})
        with pytest.raises(LateAnswer):
            client.infer({"x": 1}, deadline_ms=50)
        with Scripted(port=server.port):
            assert value(client.infer({"x": 3})) == 3


def test_an_idle_connection_answers_pings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(line_module, "_TEND_S", 0.05)
    with Scripted(ping_interval=0.1) as server, Client(server.url) as client:
        time.sleep(0.8)
        assert value(client.infer({"x": 3})) == 3
        assert client.reconnects == 0


# Asking ahead


def test_prefetch() -> None:
    with Scripted() as server, Client(server.url) as client:
        pending = client.prefetch({"x": 1, "sleep_s": 0.2})
        assert not pending.done
        with pytest.raises(ContractError, match="one at a time"):
            client.prefetch({"x": 2})
        with pytest.raises(LateAnswer, match=r"within 0\.01 s"):
            pending.result(0.01)
        assert value(pending.result()) == 1
        assert pending.done
        late = client.prefetch({"x": 3, "sleep_s": 0.2}, deadline_ms=20)
        with pytest.raises(LateAnswer):
            late.result()
        assert value(client.infer({"x": 4})) == 4


def test_who_asks_meanwhile_waits_until_the_deadline() -> None:
    with Scripted() as server, Client(server.url) as client:
        pending = client.prefetch({"x": 1, "sleep_s": 0.3})
        time.sleep(0.05)
        with pytest.raises(LateAnswer, match="while another request was under way"):
            client.infer({"x": 2}, deadline_ms=50)
        assert value(client.infer({"x": 3})) == 3
        assert value(pending.result()) == 1


# The end


def test_close_wakes_who_waits() -> None:
    with Scripted() as server:
        client = Client(server.url)
        pending = client.prefetch({"x": 1, "sleep_s": 1.0})
        time.sleep(0.05)
        client.close()
        client.close()
        with pytest.raises(ServerError, match="was closed"):
            pending.result(1.0)
        with pytest.raises(ServerError, match="was closed"):
            client.infer({"x": 1})


def test_close_wakes_who_waits_for_a_server_that_is_gone() -> None:
    with Scripted() as server:
        client = Client(server.url)
    pending = client.prefetch({"x": 1})
    time.sleep(0.05)
    client.close()
    with pytest.raises(ServerError, match="was closed"):
        pending.result(1.0)


def test_ctrl_c_leaves_a_client_that_can_be_asked() -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        with Scripted() as server, Client(server.url) as client:
            signal.setitimer(signal.ITIMER_REAL, 0.1)
            with pytest.raises(KeyboardInterrupt):
                client.infer({"x": 1, "sleep_s": 0.3})
            assert value(client.infer({"x": 2})) == 2
    finally:
        signal.signal(signal.SIGALRM, before)


def test_a_forgotten_client_leaves_no_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(line_module, "_TEND_S", 0.02)
    threads = {thread.ident for thread in threading.enumerate()}
    with Scripted() as server:
        client = Client(server.url)
        del client
        gc.collect()
        deadline = time.monotonic() + 2
        while time.monotonic() < deadline:
            new = [t for t in threading.enumerate() if t.ident not in threads and t.name == "menura client"]
            if not new:
                return
            time.sleep(0.01)
    pytest.fail("the thread behind the client lives on")


# Who is no policy server


def test_nobody_there() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(ServerError, match=r"expected a policy server, got .*refused.*menura serve"):
        Client(f"ws://127.0.0.1:{port}")


@pytest.mark.parametrize("key", [None, "Secret"])
def test_a_key_that_is_not_the_server_s(key: str | None) -> None:
    with Scripted(key="secret") as server:
        with pytest.raises(ServerError, match=r"expected the server's key, got HTTP 401\. Give api_key="):
            Client(server.url, api_key=key)
        with Client(server.url, api_key="secret") as client:
            assert value(client.infer({"x": 1})) == 1


@pytest.mark.parametrize("address", ["ws://", "ws://host:port", "http://127.0.0.1:1"])
def test_no_address(address: str) -> None:
    with pytest.raises(ServerError, match="expected an address such as ws://"):
        Client(address, timeout_s=1)


class WebPage(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.send_error(404)

    def log_message(self, *_: object) -> None:
        pass


def test_a_web_server() -> None:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), WebPage) as web:
        threading.Thread(target=web.serve_forever, daemon=True).start()
        with pytest.raises(ServerError, match=r"expected a policy server, got HTTP 404"):
            Client(f"ws://127.0.0.1:{web.server_port}")
        web.shutdown()


def test_who_says_nothing() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        with pytest.raises(ServerError, match="expected a policy server, got no answer"):
            Client(f"ws://127.0.0.1:{port}", timeout_s=0.2)


@pytest.mark.parametrize("metadata", [None, "hello", [1]])
def test_a_websocket_that_does_not_describe_itself(metadata: Any) -> None:
    with Scripted(metadata) as server, pytest.raises(ServerError, match="expected a first frame in which the server"):
        Client(server.url, timeout_s=0.3)


# TLS


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ssl.SSLContext]:
    """A certificate of 127.0.0.1, and what serves with it."""
    directory: Path = tmp_path_factory.mktemp("tls")
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-days", "2"]
    command += ["-nodes", "-subj", "/CN=server", "-addext", "subjectAltName=IP:127.0.0.1"]
    files = ["-keyout", str(directory / "key.pem"), "-out", str(directory / "cert.pem")]
    subprocess.run([*command, *files], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(directory / "cert.pem", directory / "key.pem")
    return str(directory / "cert.pem"), context


def test_tls(certificate: tuple[str, ssl.SSLContext], tmp_path: Path) -> None:
    path, context = certificate
    with Scripted(context=context) as server:
        secure = server.url.replace("ws:", "wss:")
        with Client(secure, certificate=path) as client:
            assert value(client.infer({"x": 1, "image": np.zeros((500, 500, 3), np.uint8)})) == 1
            with pytest.raises(LateAnswer):
                client.infer({"x": 1, "sleep_s": 0.2}, deadline_ms=50)
            client._line.look_after()  # reads what is there, without waiting
            assert value(client.infer({"x": 2})) == 2
            assert client.reconnects == 0
        with pytest.raises(ServerError, match=r"expected a certificate that is vouched for.*Give certificate="):
            Client(secure)
        with pytest.raises(ServerError, match="wss://"):
            Client(server.url, timeout_s=2)
        with pytest.raises(ServerError, match="expected a certificate in PEM"):
            Client(secure, certificate=str(tmp_path / "missing.pem"))
    with Scripted() as plain, pytest.raises(ServerError, match="expected TLS"):
        Client(plain.url.replace("ws:", "wss:"), certificate=path, timeout_s=2)


def test_is_address() -> None:
    assert is_address("ws://robot:8000")
    assert is_address("wss://robot")
    assert not is_address("outputs/run")
    assert not is_address(Path("ws:"))
