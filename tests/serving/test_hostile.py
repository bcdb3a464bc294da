"""Whatever a client sends, or does not, it harms itself at most: a good client is answered during and after."""

from __future__ import annotations

import contextlib
import io
import os
import random
import socket
import struct
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import psutil
import pytest
from PIL import Image
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from menura.meta_policy import MetaPolicy
from menura.serving import background, codec
from menura.serving.doors.access import Limits
from menura.serving.server import PolicyServer

STATE = np.array([0.1, -0.2, 0.3], np.float32)
GOOD = codec.pack({"state": STATE})
MENURA = {"Menura-Protocol": "1"}
BINARY, PING, CLOSE = 0x2, 0x9, 0x8


@contextmanager
def serving(meta: MetaPolicy, **options: Any) -> Iterator[PolicyServer]:
    with background.serving(PolicyServer(meta, port=0, **options)) as server:
        yield server


class GoodClient:
    """Asks, and must be answered rightly."""

    def __init__(self, server: PolicyServer, meta: MetaPolicy) -> None:
        self._connection = connect(server.address, compression=None)
        self._connection.recv()
        self._expected = meta.predict({"state": STATE[None]})[0]

    def ask(self) -> None:
        self._connection.send(GOOD)
        np.testing.assert_allclose(codec.unpack(self._connection.recv(30))["actions"], self._expected, atol=1e-6)

    def __enter__(self) -> GoodClient:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()


@pytest.fixture(scope="module")
def server(meta: MetaPolicy) -> Iterator[PolicyServer]:
    with serving(meta, limits=Limits(frame_bytes=2**20, handshake_s=0.3, sending_s=0.3, closing_s=0.3)) as running:
        yield running


@pytest.fixture
def good(server: PolicyServer, meta: MetaPolicy) -> Iterator[GoodClient]:
    """Connected before the test, and answered after it; so is one that comes afterwards."""
    with GoodClient(server, meta) as before:
        before.ask()
        yield before
        before.ask()
    with GoodClient(server, meta) as after:
        after.ask()


def raw(server: PolicyServer, *, shaken: bool = True, buffer: int | None = None) -> socket.socket:
    """A bare socket; as a websocket that has read its metadata."""
    bare = socket.socket()
    if buffer is not None:
        bare.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
    bare.settimeout(20)
    bare.connect(("127.0.0.1", server.port))
    if shaken:
        bare.sendall(HANDSHAKE)
        received = b""
        while b"required_cameras" not in received:
            received += bare.recv(1 << 16)
        assert received.startswith(b"HTTP/1.1 101")
    return bare


HANDSHAKE = (
    b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


def frame(payload: bytes, opcode: int = BINARY, *, final: bool = True, reserved: int = 0, masked: bool = True) -> bytes:
    """One websocket frame of a client, its mask all zeros (RFC 6455, section 5.2)."""
    size = len(payload)
    mask = 0x80 if masked else 0
    first = bytes([(0x80 if final else 0) | reserved | opcode])
    if size < 126:
        length = bytes([mask | size])
    elif size < 2**16:
        length = bytes([mask | 126]) + struct.pack(">H", size)
    else:
        length = bytes([mask | 127]) + struct.pack(">Q", size)
    return first + length + (b"\0" * 4 if masked else b"") + payload


def reset(bare: socket.socket) -> None:
    """Hangs up without a word: RST rather than FIN."""
    bare.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    bare.close()


def ended(bare: socket.socket) -> bytes:
    """What the server still says before it hangs up."""
    said = b""
    with contextlib.suppress(ConnectionError):
        while received := bare.recv(1 << 16):
            said += received
    bare.close()
    return said


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def bomb(width: int, height: int) -> bytes:
    """A small PNG that says it is large, and is."""
    rows = zlib.compressobj(9)
    data = b"".join(rows.compress(b"\0" * (1 + width * 3)) for _ in range(min(height, 200))) + rows.flush()
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)), (b"IDAT", data), (b"IEND", b"")]
    written = b"\x89PNG\r\n\x1a\n"
    for name, content in chunks:
        written += struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
    return written


# frames


def test_fragments_are_put_together_and_pings_answered_between(server: PolicyServer, good: GoodClient) -> None:
    bare = raw(server)
    bare.sendall(frame(GOOD[:10], final=False) + frame(b"ping", PING) + frame(GOOD[10:20], 0, final=False))
    assert bare.recv(100) == b"\x8a\x04ping"
    bare.sendall(frame(GOOD[20:], 0))
    assert b"actions" in bare.recv(1 << 16)
    reset(bare)


def test_bytes_one_by_one(server: PolicyServer, good: GoodClient) -> None:
    bare = raw(server)
    for byte in frame(GOOD):
        bare.sendall(bytes([byte]))
    assert b"actions" in bare.recv(1 << 16)
    reset(bare)


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        (frame(b"x" * 2**20), 1009),
        (b"\x82\xff" + struct.pack(">Q", 2**40) + b"\0" * 4, 1009),  # only says so
        (b"\x82\xff" + struct.pack(">Q", 2**63) + b"\0" * 4, 1009),
        (frame(b"x" * 2**19, final=False) + frame(b"x" * 2**19, 0, final=False) + frame(b"x", 0), 1009),
        (frame(b"x", 0x3), 1002),
        (frame(b"x", 0), 1002),  # goes on with nothing
        (frame(b"x", reserved=0x40), 1002),  # compressed, which nobody agreed to
        (frame(b"x" * 126, PING), 1002),
        (frame(b"x", PING, final=False), 1002),
        (frame(b"\xff\xfe", 0x1), 1007),
        (frame(b"\x03", CLOSE), 1002),
    ],
)
def test_frames_that_are_none(server: PolicyServer, good: GoodClient, sent: bytes, code: int) -> None:
    bare = raw(server)
    with contextlib.suppress(ConnectionError):
        bare.sendall(sent)
    said = ended(bare)
    assert said == b"" or said[0] == 0x88
    assert said == b"" or int.from_bytes(said[2:4], "big") == code


# messages

MAPS = b"\xdd" + (2**19).to_bytes(4, "big") + b"\x80" * 2**19
DEEP = b"\x91" * 100_000
MESSAGES = [
    MAPS,
    MAPS.replace(b"\x80", b"\x90"),
    DEEP,
    b"\x81" * 100_000,
    b"\xdf\xff\xff\xff\xff",
    codec.pack({"state": STATE})[:-1],
    codec.pack({"state": np.zeros(10**5)}),
    codec.pack({"state": np.array(["a", "b", "c"])}),
    codec.pack({"state": [[[[]]]]}),
    codec.pack({"state": b"\x80\x04\x95 a pickle"}),
    codec.pack({"state": {"__ndarray__": True, "dtype": "O", "shape": [3], "data": b"x" * 24}}),
    codec.pack({"state": {"__ndarray__": True, "dtype": "<f4", "shape": [2**62, 2**62], "data": b""}}),
    codec.pack({"state": {"__ndarray__": True, "dtype": "<f4,<f4", "shape": [3], "data": b"x" * 24}}),
    codec.pack({"state": STATE, "task": "x" * 10**6}),
    codec.pack({"state": STATE, "prev_chunk": np.zeros((10**4, 2), np.float32), "delay": -1}),
    codec.pack({"state": STATE, "seed": 2**63}),
    codec.pack({"state": STATE, "x" * 10**5: 1}),
    codec.pack({f"key {n}": n for n in range(5000)}),
    codec.pack({"images": {"top": bomb(60_000, 60_000)}}),
]


def test_messages_that_are_none(server: PolicyServer, good: GoodClient) -> None:
    with connect(server.address, additional_headers=MENURA, compression=None) as client:
        client.recv()
        for message in MESSAGES:
            client.send(message)
            told = codec.unpack(client.recv(30))["error"]
            assert told["code"] == "refused"
            assert "expected" in told["message"]
            assert len(told["message"]) < 2000
        client.send(GOOD)
        assert codec.unpack(client.recv())["actions"].shape == (4, 2)


def test_pictures_that_are_bombs(seeing: MetaPolicy) -> None:
    jpeg = io.BytesIO()
    Image.fromarray(np.zeros((16, 20, 3), np.uint8)).save(jpeg, "jpeg")
    pictures = [
        bomb(60_000, 60_000),
        bomb(8000, 8000),
        jpeg.getvalue()[:200],
        jpeg.getvalue()[:-20].replace(b"\x00\x10\x00\x14", b"\xff\xff\xff\xff"),
        b"GIF89a" + b"\xff" * 100,
        b"\xff\xd8\xff",
        b"",
        np.zeros((16, 20, 4), np.uint8),
        np.zeros((16, 20, 3), np.float64) * np.nan,
        "text",
    ]
    before = psutil.Process().memory_info().rss
    with serving(seeing) as server, connect(server.address, additional_headers=MENURA, compression=None) as client:
        client.recv()
        for picture in pictures:
            client.send(codec.pack({"state": STATE, "images": {"top": picture}}))
            assert codec.unpack(client.recv(30))["error"]["code"] == "refused"
        client.send(codec.pack({"state": STATE, "images": {"top": jpeg.getvalue()}}))
        assert codec.unpack(client.recv())["actions"].shape == (4, 2)
    assert psutil.Process().memory_info().rss - before < 300 * 2**20


# connections


@pytest.mark.parametrize(
    "said",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\xff" * 100,  # TLS
        b"\0" * 1000,
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET /" + b"x" * 100_000 + b" HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 1000 + b"\r\n",
        b"POST /act HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"POST /act HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"POST /act HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        HANDSHAKE.replace(b"MDEyMzQ1Njc4OWFiY2RlZg==", b"short"),
        HANDSHAKE.replace(b": 13", b": 99"),
        b"",
        b"GET / HT",
        b"POST /act HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{",
    ],
)
def test_strangers(server: PolicyServer, good: GoodClient, said: bytes, caplog: pytest.LogCaptureFixture) -> None:
    bare = raw(server, shaken=False)
    with contextlib.suppress(ConnectionError):
        bare.sendall(said)
    answer = ended(bare)
    assert answer == b"" or answer.startswith((b"HTTP/1.1 4", b"HTTP/1.0 4", b"HTTP/1.1 504"))
    assert not caplog.records


def test_too_many_clients(meta: MetaPolicy) -> None:
    with (
        serving(meta, limits=Limits(sessions=2)) as server,
        GoodClient(server, meta) as first,
        GoodClient(server, meta),
    ):
        with pytest.raises(InvalidStatus) as refused:
            connect(server.address)
        assert refused.value.response.status_code == 503
        first.ask()


def hang_up(server: PolicyServer, how: random.Random) -> None:
    """Connects, goes on for a while, and is gone."""
    stage = how.randrange(6)
    bare = raw(server, shaken=stage > 1)
    with contextlib.suppress(ConnectionError):
        if stage == 1:
            bare.sendall(HANDSHAKE[: how.randrange(len(HANDSHAKE))])
        elif stage == 3:
            bare.sendall(frame(GOOD)[: how.randrange(len(GOOD))])
        elif stage == 4:
            bare.sendall(frame(GOOD) * how.randrange(1, 8))
        elif stage == 5:
            bare.sendall(frame(GOOD))
            bare.recv(how.randrange(1, 100))
    reset(bare)


def test_clients_that_hang_up(server: PolicyServer, good: GoodClient, caplog: pytest.LogCaptureFixture) -> None:
    how = random.Random(0)
    for _ in range(60):
        hang_up(server, how)
    good.ask()
    until(lambda: b"menura_sessions 1.0" in server.metrics.exposition())
    assert not caplog.records


def read_nothing(server: PolicyServer) -> None:
    """Asks until it is dropped, and takes no answer."""
    bare = raw(server, buffer=4096)
    with contextlib.suppress(ConnectionError, TimeoutError):
        bare.settimeout(5)
        while True:
            bare.sendall(frame(GOOD))
            time.sleep(0.002)
    bare.close()


def test_clients_that_do_not_read_are_dropped(build_served: Any) -> None:
    long = build_served(chunk_size=20_000)
    with serving(long, limits=Limits(sending_s=0.2, waiting=1000)) as server:
        with connect(server.address, compression=None) as other:
            other.recv()
            read_nothing(server)
            other.send(GOOD)
            assert codec.unpack(other.recv(30))["actions"].shape == (20_000, 2)
        until(lambda: b"menura_sessions 0.0" in server.metrics.exposition())


# many


def rss() -> float:
    """MiB."""
    return psutil.Process(os.getpid()).memory_info().rss / 2**20


@pytest.mark.slow
def test_a_thousand_clients_that_hang_up(server: PolicyServer, good: GoodClient) -> None:
    how, before = random.Random(1), 0.0
    for number in range(1000):
        hang_up(server, how)
        if number % 50 == 0:
            good.ask()
        if number == 200:
            before = rss()
    until(lambda: b"menura_sessions 1.0" in server.metrics.exposition())
    grown = rss() - before
    print(f"memory grew by {grown:.1f} MiB over 800 disconnects")
    assert grown < 32


@pytest.mark.slow
def test_fifty_slow_clients(build_served: Any) -> None:
    long = build_served(chunk_size=20_000)
    with serving(long, limits=Limits(sending_s=1.0, waiting=1000, handshake_s=2.0)) as server:
        expected = long.predict({"state": STATE[None]})[0]
        slow = [threading.Thread(target=read_nothing, args=(server,)) for _ in range(40)]
        slow += [threading.Thread(target=trickle, args=(server,)) for _ in range(10)]
        before, answered, times = rss(), 0, []
        for thread in slow:
            thread.start()
        with connect(server.address, compression=None, max_size=None) as client:
            client.recv()
            while any(thread.is_alive() for thread in slow) or answered < 20:
                start = time.perf_counter()
                client.send(GOOD)
                np.testing.assert_allclose(codec.unpack(client.recv(60))["actions"], expected, atol=1e-6)
                times.append(time.perf_counter() - start)
                answered += 1
        until(lambda: b"menura_sessions 0.0" in server.metrics.exposition())
        p50, worst = np.percentile(times, [50, 100]) * 1e3
        print(f"{answered} right answers beside 50 slow clients, p50 {p50:.0f} ms, worst {worst:.0f} ms;", end=" ")
        print(f"memory grew by {rss() - before:.1f} MiB")
        assert rss() - before < 256


def trickle(server: PolicyServer) -> None:
    """Never comes to the end of its first sentence."""
    bare = raw(server, shaken=False)
    with contextlib.suppress(ConnectionError):
        for byte in HANDSHAKE[:-1]:
            bare.sendall(bytes([byte]))
            time.sleep(0.02)
        ended(bare)
    bare.close()


def test_the_good_client_notices(server: PolicyServer) -> None:
    """That these tests can fail: what is asked wrongly ends a stock client's connection."""
    with connect(server.address) as client:
        client.recv()
        client.send(GOOD[:-1])
        assert isinstance(client.recv(), str)
        with pytest.raises(ConnectionClosed):
            client.recv()
