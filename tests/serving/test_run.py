"""`menura serve` as a process: it ends when told, with what was asked answered, and at once when told twice."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from menura.checkpoint import save_checkpoint
from menura.checkpoint.golden import GOLDEN_FILE
from menura.checkpoint.manifest import MANIFEST_FILE, digest, hash_files
from menura.errors import CheckpointError, MenuraError
from menura.meta_policy import MetaPolicy
from menura.serving import codec
from menura.serving.client import Client
from menura.serving.run import serve

GOOD = codec.pack({"state": np.zeros(3, np.float32)})
SCRIPT = """
import runpy, sys
from menura.meta_policy import MetaPolicy
from menura.serving import run, server

parts = runpy.run_path(sys.argv[1])
parts["Gated"].gate.set()
meta = parts["served"](parts["Gated"])
MetaPolicy.from_pretrained = lambda *args, **options: meta
start = server.PolicyServer.start

async def started(self):
    listening = await start(self)
    if sys.argv[2] == "stuck":
        parts["Gated"].gate.clear()
    return listening

server.PolicyServer.start = started
run.serve("toy", port=int(sys.argv[3]))
"""


@contextmanager
def running(how: str, port: str = "0") -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The process and its address."""
    conftest = Path(__file__).with_name("conftest.py")
    process = subprocess.Popen([sys.executable, "-c", SCRIPT, conftest, how, port], stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    try:
        told = ""
        while not (address := re.search(r"answers on (ws://\S+)", told)):
            line = process.stderr.readline()
            assert line, told
            told += line
        yield process, address[1]
    finally:
        process.kill()
        process.wait()


@pytest.mark.slow
def test_it_ends_when_told() -> None:
    with running("free") as (process, address), connect(address) as client:
        client.recv()
        client.send(GOOD)
        assert codec.unpack(client.recv())["actions"].shape == (4, 2)
        process.send_signal(signal.SIGTERM)
        with pytest.raises(ConnectionClosed) as closed:
            client.recv(10)
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1001
        assert process.wait(10) == 0


@pytest.mark.slow
def test_it_ends_though_an_inference_does_not() -> None:
    with running("stuck") as (process, address), connect(address) as client:
        client.recv()
        client.send(GOOD)
        time.sleep(0.2)
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_told_twice_it_ends_at_once(number: int) -> None:
    with running("stuck") as (process, address), connect(address) as client:
        client.recv()
        client.send(GOOD)
        time.sleep(0.2)
        process.send_signal(number)
        time.sleep(0.2)
        start = time.monotonic()
        process.send_signal(number)
        assert process.wait(10) == 128 + number
        assert time.monotonic() - start < 5


@pytest.mark.slow
def test_a_client_finds_the_server_again_that_was_killed() -> None:
    with running("free") as (process, address), Client(address, timeout_s=120, reconnect_s=120) as client:
        client.infer({"state": np.zeros(3, np.float32)})
        process.kill()
        process.wait()
        session = client.metadata["session"]
        with running("free", address.rpartition(":")[2]):
            assert client.infer({"state": np.zeros(3, np.float32)})["actions"].shape == (4, 2)
        assert client.reconnects == 1
        assert client.metadata["session"] != session


def test_a_checkpoint_that_answers_otherwise_is_not_served(meta: MetaPolicy, tmp_path: Path) -> None:
    """Its golden answers are whole, and so are their hashes, but they are not what its weights answer."""
    parts = {"policy": meta.policy, "processor": meta.processor, "features": meta.features}
    observation = {"state": np.zeros((2, 3), np.float32), "task": ["go"] * 2}
    save_checkpoint(tmp_path / "run", **parts, task=None, datasets={"toy": "f" * 64}, seed=0, golden=observation)
    golden = tmp_path / "run" / GOLDEN_FILE
    with safe_open(golden, "pt") as file:
        said = file.metadata()
    tensors = load_file(golden)
    save_file({**tensors, "outputs": tensors["outputs"] + 0.1}, golden, said)
    manifest = json.loads((tmp_path / "run" / MANIFEST_FILE).read_text())
    manifest["files"] = hash_files(tmp_path / "run")
    manifest["digest"] = digest(manifest)
    (tmp_path / "run" / MANIFEST_FILE).write_text(json.dumps(manifest))
    with pytest.raises(CheckpointError, match=r"expected the answers it gave when it was saved, but model outputs"):
        serve(tmp_path / "run", port=0)


def test_what_is_wrong_is_said_before_the_checkpoint_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = other.getsockname()[1]
        for options, message in (
            ({"host": "0.0.0.0"}, "expected a key"),
            ({"api_key_file": tmp_path / "none"}, "No such file"),
            ({"certificate": tmp_path / "c", "private_key": tmp_path / "k"}, "expected a certificate"),
            ({"keys": "droit"}, "did you mean droid"),
            ({"port": taken}, f"listen on 127.0.0.1:{taken}, got: Address already in use. Choose another --port"),
            ({"port": 0, "zmq_port": taken}, f"127.0.0.1:{taken}, got: .* in use. Choose another --zmq_port"),
            (
                {"port": 0, "host": "192.0.2.1", "api_key_file": _key(tmp_path)},
                r"192.0.2.1:0, got: Cannot assign .*--host",
            ),
        ):
            with pytest.raises(MenuraError, match=message):
                serve(tmp_path / "no run", **options)  # type: ignore[arg-type]
    monkeypatch.setitem(sys.modules, "zmq", None)
    with pytest.raises(MenuraError, match="expected pyzmq, got none"):
        serve(tmp_path / "no run", port=0, zmq_port=0)
    with pytest.raises(CheckpointError, match="no run"):  # then it is
        serve(tmp_path / "no run", port=0)


def _key(directory: Path) -> Path:
    file = directory / "key"
    file.write_text("secret" * 3)
    return file
