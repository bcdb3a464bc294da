"""Random and mutated messages, through every door: each is answered or refused, and a good one always answered."""

from __future__ import annotations

import base64
import io
import json
import os
import random
import socket
import time
from collections.abc import Iterator
from typing import Any

import msgpack
import numpy as np
import psutil
import pytest
import zmq
from PIL import Image
from websockets.sync.client import ClientConnection, connect

from menura.meta_policy import MetaPolicy
from menura.serving import background, codec
from menura.serving.server import PolicyServer

STATE = np.array([0.1, -0.2, 0.3], np.float32)
PICTURE = np.full((16, 20, 3), 90, np.uint8)
CODES = {"refused", "late", "failed"}


def npy(array: np.ndarray) -> dict[str, Any]:
    output = io.BytesIO()
    np.save(output, array, allow_pickle=False)
    return {"__ndarray_class__": True, "as_npy": output.getvalue()}


def written(kind: str) -> bytes:
    output = io.BytesIO()
    Image.fromarray(PICTURE).save(output, kind)
    return output.getvalue()


GOOD = {"state": STATE, "images": {"top": PICTURE}, "task": "go"}
MESSAGES = [
    codec.pack(message)
    for message in (
        GOOD,
        {"observation/state": STATE, "observation/images/top": PICTURE, "prompt": "go"},
        {**GOOD, "images": {"top": written("jpeg")}},
        {**GOOD, "images": {"top": written("png")}},
        {**GOOD, "reset": True, "seed": 3, "timestep": 4},
        {**GOOD, "prev_chunk": np.zeros((3, 2), np.float32), "delay": 1, "deadline_ms": 1000.0},
        {**GOOD, "observe": True},
        {"reset": True},
        {"state": np.float64(3.0), "images": {"top": PICTURE.transpose(2, 0, 1)}},
    )
]
BODIES = [
    json.dumps(body).encode()
    for body in (
        {"state": STATE.tolist(), "images": {"top": base64.b64encode(written("jpeg")).decode()}, "task": "go"},
        {
            "state": {"dtype": "float32", "shape": [3], "data": base64.b64encode(STATE.tobytes()).decode()},
            "images": {
                "top": {"dtype": "uint8", "shape": [16, 20, 3], "data": base64.b64encode(PICTURE.tobytes()).decode()}
            },
        },
        {"state": STATE.tolist(), "images": {"top": PICTURE[:2, :2].tolist()}, "deadline_ms": 100},
    )
]
REQUESTS = [
    msgpack.packb(request)
    for request in (
        {"endpoint": "get_action", "data": {"state.state": npy(STATE[None]), "video.top": npy(PICTURE[None])}},
        {
            "endpoint": "get_action",
            "data": {
                "observation": {
                    "video": {"top": npy(PICTURE[None, None])},
                    "state": {"state": npy(STATE[None, None])},
                    "language": {"task": [["go"]]},
                },
                "options": None,
            },
        },
        {"endpoint": "ping"},
        {"endpoint": "get_modality_config"},
        {"endpoint": "reset", "data": {"options": None}},
        {"endpoint": "kill"},
    )
]
_LENGTHS = [
    b"\xc4\xff",
    b"\xc6\xff\xff\xff\xff",
    b"\xdd\xff\xff\xff\xff",
    b"\xdf\x7f\xff\xff\xff",
    b"\xdb\xff\xff\xff\xff",
]
_NUMBERS = [
    b"\xcb\x7f\xf8" + b"\0" * 6,
    b"\xcb\x7f\xf0" + b"\0" * 6,
    b"\xcf" + b"\xff" * 8,
    b"\xff",
    b"\xc0",
    b"NaN",
    b"1e999",
]


def mutated(message: bytes, rng: random.Random, others: list[bytes]) -> bytes:
    """A message with a few of its bytes changed, lost, doubled, or replaced by others that mean much."""
    data = bytearray(message)
    for _ in range(rng.randrange(1, 5)):
        # Half of the changes are near the beginning, where the structure of most messages is.
        end = len(data) if rng.random() < 0.5 else min(len(data), 120)
        at = rng.randrange(end + 1)
        match rng.randrange(8):
            case 0:
                data[at : at + 1] = bytes([rng.randrange(256)])
            case 1:
                data = data[:at]
            case 2:
                data[at:at] = rng.randbytes(rng.randrange(1, 9))
            case 3:
                del data[at : at + rng.randrange(1, 20)]
            case 4:
                data[at:at] = data[at : at + rng.randrange(1, 60)]
            case 5:
                other = rng.choice(others)
                start = rng.randrange(len(other))
                data[at : at + rng.randrange(30)] = other[start : start + rng.randrange(60)]
            case 6:
                data[at : at + 1] = rng.choice(_LENGTHS + _NUMBERS)
            case 7 if at < len(data):
                data[at] ^= 1 << rng.randrange(8)
    return bytes(data)


def messages(of: list[bytes], count: int, seed: int) -> Iterator[bytes]:
    rng = random.Random(seed)
    for _ in range(count):
        yield rng.randbytes(rng.randrange(200)) if rng.random() < 0.1 else mutated(rng.choice(of), rng, of)


@pytest.fixture(scope="module")
def server(seeing: MetaPolicy) -> Iterator[PolicyServer]:
    with background.serving(PolicyServer(seeing, port=0, zmq_port=0, max_wait_ms=0.0)) as running:
        yield running


class Good:
    """A client that asks as it should, and must be answered rightly."""

    def __init__(self, server: PolicyServer, meta: MetaPolicy) -> None:
        self.connection = connect(server.address, compression=None)
        self.connection.recv()
        self.expected = meta.predict({"state": STATE[None], "images": {"top": PICTURE[None]}, "task": ["go"]})[0]

    def ask(self) -> None:
        self.connection.send(MESSAGES[0])
        np.testing.assert_allclose(codec.unpack(self.connection.recv(30))["actions"], self.expected, atol=1e-6)


@pytest.fixture
def good(server: PolicyServer, seeing: MetaPolicy) -> Iterator[Good]:
    client = Good(server, seeing)
    client.ask()
    yield client
    client.ask()
    client.connection.close()


def by_websocket(server: PolicyServer, good: Good, count: int, seed: int = 0) -> int:
    """How many of so many messages were answered with actions; the others were refused."""
    answered = 0
    with connect(server.address, additional_headers={"Menura-Protocol": "1"}, compression=None) as client:
        client.recv()
        for number, message in enumerate(messages(MESSAGES, count, seed)):
            client.send(message)
            answered += right(client)
            if number % 500 == 0:
                good.ask()
    return answered


def right(client: ClientConnection) -> bool:
    answer = codec.unpack(client.recv(30))
    if "error" in answer:
        assert answer["error"]["code"] in CODES, answer
        assert len(answer["error"]["message"]) < 2000
        return False
    assert "server_timing" in answer
    assert "actions" not in answer or np.isfinite(answer["actions"]).all()
    return True


def by_http(server: PolicyServer, good: Good, count: int, seed: int = 0) -> int:
    answered = 0
    bare = socket.create_connection(("127.0.0.1", server.port), timeout=30)
    for number, body in enumerate(messages(BODIES, count, seed)):
        bare.sendall(b"POST /act HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
        received = b""
        while (end := received.find(b"\r\n\r\n")) < 0:
            received += bare.recv(1 << 16)
        head = received[:end].lower()
        size = int(head.split(b"content-length: ")[1].split(b"\r\n")[0])
        while len(received) < end + 4 + size:
            received += bare.recv(1 << 16)
        answer = json.loads(received[end + 4 :])
        assert b" 200 " in head or answer["error"]["code"] in CODES, answer
        answered += "error" not in answer
        if number % 500 == 0:
            good.ask()
    bare.close()
    return answered


def by_zmq(server: PolicyServer, good: Good, count: int, seed: int = 0) -> int:
    answered = 0
    with zmq.Context.instance().socket(zmq.REQ) as client:
        client.setsockopt(zmq.LINGER, 0)
        client.setsockopt(zmq.RCVTIMEO, 30_000)
        client.connect(f"tcp://127.0.0.1:{server.zmq_port}")
        for number, message in enumerate(messages(REQUESTS, count, seed)):
            client.send(message)
            answer = msgpack.unpackb(client.recv())
            assert answer != {"error": "an error of the server"}, message
            answered += "error" not in answer
            if number % 500 == 0:
                good.ask()
    return answered


DOORS = {"websocket": by_websocket, "http": by_http, "zmq": by_zmq}


@pytest.mark.parametrize("door", DOORS)
def test_a_few_hundred(door: str, server: PolicyServer, good: Good, caplog: pytest.LogCaptureFixture) -> None:
    assert 0 < DOORS[door](server, good, 300) < 300
    assert not caplog.records


@pytest.mark.slow
@pytest.mark.parametrize(("door", "count"), [("websocket", 100_000), ("http", 20_000), ("zmq", 20_000)])
def test_a_hundred_thousand(
    door: str, count: int, server: PolicyServer, good: Good, caplog: pytest.LogCaptureFixture
) -> None:
    DOORS[door](server, good, count // 10, seed=1)
    before, start = psutil.Process(os.getpid()).memory_info().rss, time.perf_counter()
    answered = DOORS[door](server, good, count, seed=2)
    grown = (psutil.Process(os.getpid()).memory_info().rss - before) / 2**20
    took = time.perf_counter() - start
    print(f"{door}: {count} messages, {answered} answered, {took:.0f} s, memory grew by {grown:.1f} MiB")
    assert not caplog.records
    assert grown < 64
