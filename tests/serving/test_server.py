"""The server answers what the policy answers, to each client its own, and nobody waits for another's computation."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import os
import re
import signal
import socket
import ssl
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from openpi_client.action_chunk_broker import ActionChunkBroker
from openpi_client.websocket_client_policy import WebsocketClientPolicy
from PIL import Image
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from menura.errors import ContractError, MenuraError
from menura.features import Features
from menura.meta_policy import MetaPolicy
from menura.served_policy import ServedPolicy
from menura.serving import background, codec
from menura.serving.client import Client, ServerError
from menura.serving.doors.access import Limits
from menura.serving.run import _listen, serve
from menura.serving.server import PolicyServer

STATE = np.array([0.1, -0.2, 0.3], np.float32)
MENURA = {"Menura-Protocol": "1"}


@contextmanager
def serving(meta: MetaPolicy, **options: Any) -> Iterator[PolicyServer]:
    """A server on a free port of the loopback."""
    with background.serving(PolicyServer(meta, **{"port": 0, **options})) as server:
        yield server


@contextmanager
def connected(server: PolicyServer, **options: Any) -> Iterator[ClientConnection]:
    """A bare websocket that has read the metadata."""
    with connect(server.address, compression=None, **options) as client:
        assert codec.unpack(client.recv())["protocol_version"] == 1
        yield client


def fetch(server: PolicyServer, path: str, body: Any = None, **headers: str) -> tuple[int, str]:
    """(status, text) of a GET; of a POST, where there is a body: JSON, or bytes as they are."""
    data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
    request = urllib.request.Request(f"http://127.0.0.1:{server.port}{path}", data, headers)
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def expected(meta: MetaPolicy, state: np.ndarray = STATE) -> np.ndarray:
    return meta.predict({"state": state[None], "task": ["go"]})[0]


def until(condition: Callable[[], bool]) -> None:
    """Waits for what is bound to happen."""
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


def count(server: PolicyServer, line: str) -> float:
    """The value of one line of `/metrics`."""
    told = server.metrics.exposition().decode().splitlines()
    return next((float(each.split()[-1]) for each in told if each.startswith(line)), 0.0)


# openpi's protocol


def test_the_stock_client_of_openpi(meta: MetaPolicy) -> None:
    with serving(meta) as server:
        client = WebsocketClientPolicy("127.0.0.1", server.port)
        said = client.get_server_metadata()
        assert said["chunk_size"] == 4
        assert said["protocol_version"] == 1
        first, second = client.infer({"state": STATE, "prompt": "go"}), client.infer({"state": STATE, "prompt": "go"})
        np.testing.assert_array_equal(first["actions"], expected(meta))
        assert first["actions"].dtype == np.float32
        assert first["policy_timing"]["infer_ms"] > 0
        assert first["server_timing"]["infer_ms"] > 0
        assert "prev_total_ms" not in first["server_timing"]
        assert second["server_timing"]["prev_total_ms"] > 0
        broker = ActionChunkBroker(client, action_horizon=4)
        steps = [broker.infer({"state": STATE, "prompt": "go"})["actions"] for _ in range(4)]
        np.testing.assert_array_equal(steps, expected(meta))
        with pytest.raises(RuntimeError, match="Error in inference server:\nstate: expected"):
            client.infer({"state": np.zeros(5, np.float32)})
        with pytest.raises(ConnectionClosed) as closed:
            client.infer({"state": STATE})
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1011


def test_the_stock_client_presents_its_key(meta: MetaPolicy) -> None:
    with serving(meta, api_key="secret") as server:
        client = WebsocketClientPolicy("127.0.0.1", server.port, api_key="secret")
        assert client.infer({"state": STATE})["actions"].shape == (4, 2)
        for wrong in (None, "Secret", "secret2"):
            with pytest.raises(InvalidStatus) as refused:
                WebsocketClientPolicy("127.0.0.1", server.port, api_key=wrong)
            assert refused.value.response.status_code == 401
            assert (
                refused.value.response.body
                == b"expected the header Authorization: Api-Key <key>, got another or none\n"
            )


def test_frames_are_openpi_s_byte_by_byte(meta: MetaPolicy) -> None:
    with serving(meta) as server, connected(server) as client:
        client.send(codec.pack({"state": STATE}))
        answer = client.recv()
        assert isinstance(answer, bytes)
        assert b"\xa7actions\x84\xc4\x0b__ndarray__\xc3\xc4\x04data\xc4\x20" in answer
        assert b"\xc4\x05dtype\xa3<f4\xc4\x05shape\x92\x04\x02" in answer
        assert client.response is not None
        assert "Sec-WebSocket-Extensions" not in client.response.headers


def test_any_path_is_a_websocket_s(meta: MetaPolicy) -> None:
    with serving(meta) as server:
        for path in ("/", "/ws", "/healthz", "/act?x=1"):
            with connect(server.address + path) as client:
                assert codec.unpack(client.recv())["chunk_size"] == 4


def test_every_connection_is_a_session(meta: MetaPolicy) -> None:
    with serving(meta) as server, Client(server.address) as one, Client(server.address) as other:
        assert one.metadata["session"] != other.metadata["session"]
        assert count(server, "menura_sessions ") == 2
    assert Features.from_dict(one.metadata["features"]) == meta.features


WRONG = [
    {"state": np.zeros(5, np.float32)},
    {"state": np.full(3, np.nan, np.float32)},
    {},
    {"images": 3},
    {"state": STATE, "nonsense": 1},
    {"state": STATE, "deadline_ms": "soon"},
]


def test_errors_go_in_frames_to_those_who_ask_for_it(meta: MetaPolicy) -> None:
    with serving(meta) as server, connected(server, additional_headers=MENURA) as client:
        for wrong in [*map(codec.pack, WRONG), b"\xc1 not msgpack", b"", "text", codec.pack([1, 2])]:
            client.send(wrong)
            error = codec.unpack(client.recv())["error"]
            assert error["code"] == "refused"
            assert "expected" in error["message"]
        client.send(codec.pack({"state": STATE}))
        np.testing.assert_array_equal(codec.unpack(client.recv())["actions"], expected(meta))
        assert count(server, 'menura_errors_total{code="refused"}') == len(WRONG) + 4


def test_a_wrong_observation_is_an_error_to_its_sender_alone(meta: MetaPolicy) -> None:
    with serving(meta) as server, connected(server) as other:
        for wrong in [*map(codec.pack, WRONG), b"\xc1 not msgpack", "text"]:
            with connected(server) as client:
                client.send(wrong)
                message = client.recv()
                assert isinstance(message, str)
                assert "expected" in message
                with pytest.raises(ConnectionClosed) as closed:
                    client.recv()
                assert closed.value.rcvd is not None
                assert closed.value.rcvd.code == 1011
        other.send(codec.pack({"state": STATE}))
        np.testing.assert_array_equal(codec.unpack(other.recv())["actions"], expected(meta))


def test_nobody_is_let_in_before_the_policy_is_warm(gated: Any) -> None:
    meta, policy = gated
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]

    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        policy.close_gate()
        starting = asyncio.create_task(PolicyServer(meta, port=port).start())
        await loop.run_in_executor(None, policy.asked.acquire)
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port))
        policy.gate.set()
        async with await starting:
            socket.create_connection(("127.0.0.1", port)).close()

    asyncio.run(scenario())


# while the policy computes


def test_pings_and_newcomers_do_not_wait_for_an_inference(gated: Any) -> None:
    meta, policy = gated
    with serving(meta) as server, connected(server) as client:
        policy.close_gate()
        client.send(codec.pack({"state": STATE}))
        policy.asked.acquire()
        assert client.ping().wait(10)
        with connected(server) as other:
            assert other.ping().wait(10)
        assert fetch(server, "/healthz") == (200, "OK\n")
        assert not policy.gate.is_set()
        policy.gate.set()
        assert codec.unpack(client.recv())["actions"].shape == (4, 2)


def test_who_leaves_takes_its_requests_with_it(gated: Any) -> None:
    meta, policy = gated
    with serving(meta, max_batch=1) as server, connected(server) as client:
        policy.close_gate()
        client.send(codec.pack({"state": STATE}))
        until(lambda: policy.calls == 1)
        with connected(server) as leaving:
            for _ in range(3):
                leaving.send(codec.pack({"state": STATE}))
            assert leaving.ping().wait(10)
        until(lambda: count(server, "menura_sessions ") == 1)
        http = socket.create_connection(("127.0.0.1", server.port))
        body = json.dumps({"state": STATE.tolist()}).encode()
        http.sendall(b"POST /act HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
        until(lambda: count(server, "menura_sessions ") == 2)
        http.close()
        until(lambda: count(server, "menura_sessions ") == 1)
        policy.gate.set()
        assert codec.unpack(client.recv())["actions"].shape == (4, 2)
        client.send(codec.pack({"state": STATE}))
        client.recv()
        assert policy.calls == 2
        assert count(server, 'menura_errors_total{code="abandoned"}') == 2


def test_a_flood_ends_its_connection(gated: Any) -> None:
    meta, policy = gated
    with serving(meta, limits=Limits(waiting=2)) as server, connected(server) as client:
        policy.close_gate()

        def flood() -> None:
            for _ in range(5):
                client.send(codec.pack({"state": STATE}))  # the last may find it closed
            client.recv()

        with pytest.raises(ConnectionClosed) as closed:
            flood()
        assert closed.value.rcvd is not None
        assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (1008, "at most 2 requests may wait")


def test_a_deadline_counts_from_arrival(gated: Any) -> None:
    meta, policy = gated
    with serving(meta) as server, connected(server, additional_headers=MENURA) as client:
        policy.close_gate()
        client.send(codec.pack({"state": STATE}))
        policy.asked.acquire()
        client.send(codec.pack({"state": STATE, "deadline_ms": 60.0}))
        client.send(codec.pack({"state": STATE, "deadline_ms": 1e7}))
        time.sleep(0.1)
        policy.gate.set()
        assert "actions" in codec.unpack(client.recv())
        assert codec.unpack(client.recv())["error"]["code"] == "late"
        assert "actions" in codec.unpack(client.recv())


# HTTP


def test_health_and_readiness_need_no_key(meta: MetaPolicy) -> None:
    with serving(meta, api_key="secret") as server:
        assert fetch(server, "/healthz") == (200, "OK\n")
        assert fetch(server, "/readyz") == (200, "OK\n")
        for path, body in (("/metrics", None), ("/act", {"state": [0, 0, 0]}), ("/", None)):
            assert fetch(server, path, body)[0] == 401
            assert fetch(server, path, body, Authorization="Bearer other")[0] == 401
        status, told = fetch(server, "/metrics", Authorization="Bearer secret")
        assert status == 200
        assert 'menura_errors_total{code="unauthorized"} 6.0' in told
        assert fetch(server, "/nowhere", Authorization="Api-Key secret")[0] == 404


def encoded(array: np.ndarray) -> dict[str, Any]:
    return {"dtype": array.dtype.name, "shape": array.shape, "data": base64.b64encode(array.tobytes()).decode()}


def test_act(meta: MetaPolicy) -> None:
    with serving(meta) as server:
        for state in (STATE.tolist(), encoded(STATE)):
            status, answer = fetch(server, "/act", {"state": state, "task": "go"})
            assert status == 200
            np.testing.assert_array_equal(np.float32(json.loads(answer)["actions"]), expected(meta))
            assert json.loads(answer)["server_timing"]["infer_ms"] > 0
        assert count(server, "menura_sessions ") == 0
        assert fetch(server, "/act")[0] == 405


def test_the_status_of_act_says_what_was_wrong(gated: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    meta, policy = gated
    body = {"state": STATE.tolist()}

    def code(answer: tuple[int, str]) -> tuple[int, str]:
        return answer[0], json.loads(answer[1])["error"]["code"]

    with serving(meta, max_batch=1, max_queue=1) as server, ThreadPoolExecutor(2) as others:
        policy.close_gate()
        computing = others.submit(fetch, server, "/act", body)
        policy.asked.acquire()
        waiting = others.submit(fetch, server, "/act", body)
        until(lambda: count(server, "menura_queue_length ") == 1)
        assert code(fetch(server, "/act", body)) == (503, "busy")
        policy.gate.set()
        assert (computing.result()[0], waiting.result()[0]) == (200, 200)
        policy.close_gate()
        assert code(fetch(server, "/act", {**body, "deadline_ms": 20})) == (504, "late")
        policy.gate.set()
        monkeypatch.setattr(policy, "select_action", lambda *_: 1 / 0)
        assert code(fetch(server, "/act", body)) == (500, "failed")


def test_act_with_pictures(seeing: MetaPolicy) -> None:
    picture = np.full((16, 20, 3), 200, np.uint8)
    bright = seeing.predict({"state": STATE[None], "images": {"top": picture[None]}})[0]
    written = io.BytesIO()
    Image.fromarray(picture).save(written, "png")
    png = base64.b64encode(written.getvalue()).decode()
    with serving(seeing) as server:
        for given in (encoded(picture), picture.tolist(), png, {"data": png}):
            status, answer = fetch(server, "/act", {"state": STATE.tolist(), "images": {"top": given}})
            assert status == 200, answer
            np.testing.assert_allclose(json.loads(answer)["actions"], bright, rtol=1e-6)
            flat = {"observation/state": STATE.tolist(), "observation/top": given}
            nested = {"observation": {"state": encoded(STATE), "images": {"top": given}}}
            for message in (flat, nested):
                assert json.loads(fetch(server, "/act", message)[1])["actions"] == json.loads(answer)["actions"]
        status, answer = fetch(server, "/act", {"state": STATE.tolist(), "images": {"top": "AAAA"}})
        assert (status, json.loads(answer)["error"]["code"]) == (400, "refused")


def test_act_with_a_session_keeps_its_history(build_served: Any) -> None:
    meta = build_served(n_obs_steps=2)
    both = np.stack([STATE, STATE + 1])
    with serving(meta) as server:
        for named in ({"Menura-Session": "robot"}, {}):
            fields = {} if named else {"session": "other"}
            fetch(server, "/act", {"state": both[0].tolist(), **fields}, **named)
            answer = json.loads(fetch(server, "/act", {"state": both[1].tolist(), **fields}, **named)[1])
            np.testing.assert_array_equal(np.float32(answer["actions"]), meta.predict({"state": both[None]})[0])
        assert count(server, "menura_sessions ") == 2
        status, answer = fetch(server, "/act", {"state": both[1].tolist(), "session": 3})
        assert (status, json.loads(answer)["error"]["code"]) == (400, "refused")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"state":' * 5_000,
        b"3",
        b'{"state": [[1, 2], [3]]}',
        b'{"state": ["a"]}',
        b'{"state": [{}]}',
        b'{"state": [NaN, 0, 0]}',
        b'{"state": [1e999, 0, 0]}',
        b'{"state": [' + b"9" * 5000 + b"]}",
        b'{"state": {"dtype": "O", "shape": [3], "data": "AAAA"}}',
        b'{"state": {"dtype": "float32", "shape": [1000000000000], "data": "AAAA"}}',
        b'{"state": {"dtype": "float32", "shape": [-1], "data": "AAAA"}}',
        b'{"state": {"dtype": ["f4"], "shape": 3, "data": "AAAA"}}',
        b'{"state": {"dtype": "float32", "shape": [3], "data": "?"}}',
        b'{"state": {"dtype": "float32", "shape": [3], "data": 3}}',
        b'{"state": [' + b"0," * 2**20 + b"0]}",
        b'{"images": {"top": "?"}}',
        b'{"state": ' + b'{"a": ' * 900 + b"1" + b"}" * 901,
    ],
)
def test_act_refuses(meta_server: PolicyServer, body: bytes) -> None:
    status, answer = fetch(meta_server, "/act", body)
    assert status == 400
    assert json.loads(answer)["error"]["code"] == "refused"
    assert "expected" in json.loads(answer)["error"]["message"]


@pytest.fixture(scope="module")
def meta_server(meta: MetaPolicy) -> Iterator[PolicyServer]:
    with serving(meta, limits=Limits(body_bytes=4 * 2**20)) as server:
        yield server


def test_a_body_that_is_too_large(meta_server: PolicyServer) -> None:
    assert fetch(meta_server, "/act", b" " * (4 * 2**20 + 1))[0] == 413


def test_pages_of_other_sites_are_refused_without_a_key(meta: MetaPolicy) -> None:
    with serving(meta) as server:
        for origin in ("https://example.org", "null", "http://["):
            assert fetch(server, "/act", {"state": STATE.tolist()}, Origin=origin)[0] == 403
            with pytest.raises(InvalidStatus):
                connect(server.address, origin=origin)  # type: ignore[arg-type]
        assert fetch(server, "/act", {"state": STATE.tolist()}, Origin=f"http://127.0.0.1:{server.port}")[0] == 200


# TLS, addresses, keys


def test_tls(meta: MetaPolicy, tmp_path: Path) -> None:
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    names = ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1", "-days", "2"]
    subprocess.run([*command, *names, "-keyout", key, "-out", certificate], check=True, capture_output=True)
    pair = {"certificate": certificate, "private_key": key}
    assert PolicyServer(meta, host="0.0.0.0", api_key="secret" * 3, **pair).exposure is None
    assert "by ZMQ" in str(PolicyServer(meta, host="0.0.0.0", api_key="secret" * 3, zmq_port=0, **pair).exposure)
    with serving(meta, **pair) as server:
        assert server.address == f"wss://127.0.0.1:{server.port}"
        with connect(server.address, ssl=ssl.create_default_context(cafile=certificate)) as client:
            client.recv()
            client.send(codec.pack({"state": STATE}))
            assert codec.unpack(client.recv())["actions"].shape == (4, 2)
        with pytest.raises(ssl.SSLError):
            connect(server.address)
        with pytest.raises((ConnectionError, urllib.error.URLError)):
            fetch(server, "/healthz")  # in the clear


def test_a_key_in_the_clear_is_warned_of(meta: MetaPolicy) -> None:
    assert PolicyServer(meta, api_key="secret").exposure is None
    assert "Give --cert and --key" in str(PolicyServer(meta, host="0.0.0.0", api_key="secret" * 3).exposure)


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.1.5", "example"])
def test_no_key_no_other_address(meta: MetaPolicy, host: str) -> None:
    with pytest.raises(MenuraError, match="expected a key to listen on"):
        PolicyServer(meta, host=host)


def test_a_port_in_use(meta: MetaPolicy) -> None:
    with (
        serving(meta) as server,
        pytest.raises(
            MenuraError,
            match=f"listen on 127.0.0.1:{server.port}, got: Address already in use. Choose another --port",
        ),
        serving(meta, port=server.port),
    ):
        pass


def test_ipv6(meta: MetaPolicy) -> None:
    with serving(meta, host="::1") as server, Client(server.address) as client:
        assert client.infer({"state": STATE})["actions"].shape == (4, 2)


# the end


def test_what_was_asked_is_answered_before_the_end(gated: Any) -> None:
    meta, policy = gated

    async def scenario(server: PolicyServer) -> list[Any]:
        listening = await server.start()
        loop = asyncio.get_running_loop()
        client = await loop.run_in_executor(None, connect, server.address)
        policy.close_gate()
        await loop.run_in_executor(None, client.recv)
        for _ in range(3):
            client.send(codec.pack({"state": STATE}))
        await loop.run_in_executor(None, client.ping().wait)
        kept = socket.create_connection(("127.0.0.1", server.port))
        reader, writer = await asyncio.open_connection(sock=kept)
        writer.write(b"GET /readyz HTTP/1.1\r\nHost: x\r\n\r\n")
        ready = await reader.readuntil(b"OK\n")
        closing_server = asyncio.create_task(listening.close())
        await asyncio.sleep(0.05)
        writer.write(b"GET /readyz HTTP/1.1\r\nHost: x\r\n\r\n")
        ending = await reader.readuntil(b"ending\n")
        with pytest.raises(OSError, match=r"refused|reset"):
            socket.create_connection(("127.0.0.1", server.port))
        policy.gate.set()
        answers = [codec.unpack(await loop.run_in_executor(None, client.recv)) for _ in range(3)]
        with pytest.raises(ConnectionClosed) as closed:
            await loop.run_in_executor(None, client.recv)
        await closing_server
        await listening.serve_forever()
        assert closed.value.rcvd is not None
        return [ready, ending, answers, closed.value.rcvd.code]

    ready, ending, answers, code = asyncio.run(scenario(PolicyServer(meta, port=0)))
    assert b"200 OK" in ready
    assert b"503" in ending
    assert all(answer["actions"].shape == (4, 2) for answer in answers)
    assert code == 1001


def test_what_was_asked_by_http_is_answered_before_the_end(gated: Any) -> None:
    meta, policy = gated

    async def scenario(server: PolicyServer) -> tuple[int, str]:
        listening = await server.start()
        policy.close_gate()
        loop = asyncio.get_running_loop()
        body = {"state": STATE.tolist(), "session": "robot"}
        asking = loop.run_in_executor(None, fetch, server, "/act", body)
        await loop.run_in_executor(None, policy.asked.acquire)
        closing_server = asyncio.create_task(listening.close())
        await asyncio.sleep(0.02)
        policy.gate.set()
        await closing_server
        return await asking

    status, answer = asyncio.run(scenario(PolicyServer(meta, port=0)))
    assert status == 200
    assert np.shape(json.loads(answer)["actions"]) == (4, 2)


def test_an_end_does_not_wait_forever(gated: Any) -> None:
    meta, policy = gated

    async def scenario(server: PolicyServer) -> None:
        listening = await server.start()
        loop = asyncio.get_running_loop()
        client = await loop.run_in_executor(None, connect, server.address)
        policy.close_gate()
        client.send(codec.pack({"state": STATE}))
        await loop.run_in_executor(None, policy.asked.acquire)
        await listening.close(drain_s=0.1)
        policy.gate.set()
        await loop.run_in_executor(None, client.close)

    asyncio.run(scenario(PolicyServer(meta, port=0)))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it(meta: MetaPolicy, number: int, capsys: pytest.CaptureFixture[str]) -> None:
    async def scenario() -> None:
        before = signal.getsignal(number)
        server = PolicyServer(meta, port=0, zmq_port=0)
        listening = asyncio.create_task(_listen(server, "runs/toy"))
        while signal.getsignal(number) == before:
            await asyncio.sleep(0.005)
        os.kill(os.getpid(), number)
        await listening
        assert signal.getsignal(number) == before

    asyncio.run(scenario())
    told = capsys.readouterr().err
    assert "runs/toy answers on ws://127.0.0.1:" in told
    assert re.search(r"and GR00T's clients on tcp://127.0.0.1:\d+, with actions as action\n", told)
    assert "in the clear" not in told
    assert "A second signal ends at once" in told


def test_a_server_is_not_served_again() -> None:
    with pytest.raises(ContractError, match="got a server's address ws"):
        serve("ws://127.0.0.1:1")


# our own client


def test_from_pretrained_asks_a_server(meta: MetaPolicy, monkeypatch: pytest.MonkeyPatch) -> None:
    obs = {"state": np.array([[0.1, -0.2, 0.3], [1, 2, 3]], np.float32), "task": "go"}
    with serving(meta, api_key="secret") as server:
        with pytest.raises(ServerError, match="401"):
            MetaPolicy.from_pretrained(server.address)
        with closing(MetaPolicy.from_pretrained(server.address, api_key="secret")) as given:
            one_by_one = [meta.predict({"state": obs["state"][i : i + 1], "task": "go"})[0] for i in range(2)]
            np.testing.assert_allclose(given.predict(obs), one_by_one, atol=1e-6)
            with pytest.raises(ContractError, match="which the server draws"):
                given.predict(obs, noise=torch.zeros(2))
        monkeypatch.setenv("MENURA_API_KEY", "secret")
        with closing(MetaPolicy.from_pretrained(server.address)) as served:
            assert isinstance(served, ServedPolicy)
            assert served.features == meta.features
            for name in ("chunk_size", "n_action_steps", "n_obs_steps", "observation_offsets", "required_cameras"):
                assert getattr(served, name) == getattr(meta, name)
            assert served.session(2).select_action(obs).shape == (2, 2)


def test_nobody_there() -> None:
    with pytest.raises(ServerError, match=r"expected a policy server.*menura serve"):
        Client("ws://127.0.0.1:1", timeout_s=2)
