"""A policy behind a server: the network pauses, the server goes and comes back, and the robot holds meanwhile."""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.server import ServerConnection, serve

from menura.config import load_robot
from menura.control.status import Status
from menura.data import open_dataset
from menura.features import Features
from menura.robots import make_robot
from menura.served_policy import ServedPolicy
from menura.serving.codec import pack, unpack

CHUNK = 20


class Answering:
    """A policy server that answers 0.5, at a port that it takes again when it comes back."""

    def __init__(self, features: Features) -> None:
        self._metadata = {
            "features": {**features.to_dict(), "fps": 50.0},
            "chunk_size": CHUNK,
            "n_action_steps": CHUNK,
            "n_obs_steps": 1,
            "observation_offsets": [0],
            "required_cameras": list(features.cameras),
            "checkpoint_hash": "abc",
            "accepts": [],
        }
        self._width = features.action_dim
        self.port = 0
        self.open()

    def open(self) -> None:
        self._server = serve(self._answer, "127.0.0.1", self.port, compression=None)
        self.port = self._server.socket.getsockname()[1]
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self._connections: list[ServerConnection] = []

    def close(self) -> None:
        self._server.shutdown()
        for connection in self._connections:
            connection.close()

    def _answer(self, connection: ServerConnection) -> None:
        self._connections.append(connection)
        with suppress(ConnectionClosed):
            connection.send(pack(self._metadata))
            for frame in connection:
                assert isinstance(frame, bytes)
                answer = {"actions": np.full((CHUNK, self._width), 0.5, np.float32)}
                asked = unpack(frame)
                connection.send(pack(answer | {key: asked[key] for key in ("request_id",) if key in asked}))


class Network:
    """The way to a server, which can be paused."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.flowing = threading.Event()
        self.flowing.set()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"ws://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self.flowing.set()
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                far = socket.create_connection(("127.0.0.1", self._port))
                threading.Thread(target=self._relay, args=(near, far), daemon=True).start()

    def _relay(self, near: socket.socket, far: socket.socket) -> None:
        with suppress(OSError), near, far:
            while True:
                for source in select.select([near, far], [], [])[0]:
                    self.flowing.wait()
                    if not (data := source.recv(1 << 16)):
                        return
                    (far if source is near else near).sendall(data)


@pytest.fixture
def cleanly() -> Iterator[Callable[..., Any]]:
    """Closes what it was given, the last first."""
    with ExitStack() as stack:

        def keep(thing: Any) -> Any:
            stack.callback(thing.close)
            return thing

        yield keep


def drive(
    arm: Any, policy: Any, make_loop: Any, make_recorder: Any, break_it: Callable[[], None]
) -> tuple[Any, list[Status]]:
    """A recorded episode in which something breaks once the robot moves, and which ends a moment after that is over."""
    seen: list[Status] = []
    loop: Any = None
    over: list[float] = []

    def look(status: Status) -> None:
        seen.append(status)
        if len([one for one in seen if one.action is not None]) == 10:
            break_it()
        if status.faults and status.faults[0].ended_s is not None and status.mode == "policy":
            over.append(status.time_s)
            if status.time_s > over[0] + 0.1:
                loop.stop("it goes on", "next")

    watchdog = {"max_inference_s": 0.2, "patience_s": 20.0, "max_observation_age_s": 5.0}
    loop = make_loop(arm, policy, observers=[look], watchdog=watchdog)
    loop.recorder = recorder = make_recorder(loop.features)
    episode = loop.run_episode(60.0)
    recorder.writer.finalize()
    return episode, seen


def check(episode: Any, seen: list[Status], arm: Any, dataset: Any) -> None:
    assert episode.ended == "next", episode.reason
    assert episode.faults[0].source == "policy"
    assert episode.timing.holds["no plan"] >= 2
    held = [status.action for status in seen if status.mode == "hold"]
    np.testing.assert_array_equal(np.stack([action for action in held if action is not None]), 0.5)
    assert np.abs(np.diff(np.stack(arm.commands[5:]), axis=0)).max() == 0.0
    (recorded,) = (dataset.episode(index) for index in range(len(dataset)))
    assert len(recorded) == episode.recorded
    assert recorded.images["front"][len(recorded) - 1].shape == (16, 16, 3)
    assert recorded.extra["control"]["faults"][0]["source"] == "policy"


def test_the_network_pauses_for_two_seconds(
    simulated: Any, make_loop: Any, make_recorder: Any, cleanly: Any, tmp_path: Path
) -> None:
    server = cleanly(Answering(simulated.features))
    network = cleanly(Network(server.port))
    policy = cleanly(ServedPolicy(network.url))

    def pause() -> None:
        network.flowing.clear()
        threading.Timer(2.0, network.flowing.set).start()

    episode, seen = drive(simulated, policy, make_loop, make_recorder, pause)
    check(episode, seen, simulated, open_dataset(tmp_path / "recorded"))
    assert episode.faults[0].message.startswith("expected an answer within 0.2 s, got none yet")
    assert episode.faults[0].ended_s - episode.faults[0].began_s > 1.0


def test_the_server_goes_and_comes_back(
    simulated: Any, make_loop: Any, make_recorder: Any, cleanly: Any, tmp_path: Path
) -> None:
    server = cleanly(Answering(simulated.features))
    policy = cleanly(ServedPolicy(f"ws://127.0.0.1:{server.port}"))

    def restart() -> None:
        threading.Thread(target=server.close).start()
        threading.Timer(1.0, server.open).start()

    episode, seen = drive(simulated, policy, make_loop, make_recorder, restart)
    check(episode, seen, simulated, open_dataset(tmp_path / "recorded"))
    assert policy.reconnects == 1


def test_a_server_that_does_not_come_back(make_arm: Any, make_loop: Any, cleanly: Any) -> None:
    arm = make_arm()
    server = Answering(arm.features)
    policy = cleanly(ServedPolicy(f"ws://127.0.0.1:{server.port}", reconnect_s=0.2))
    went: list[bool] = []

    def look(status: Status) -> None:
        if status.action is not None and not went:
            went.append(True)
            threading.Thread(target=server.close).start()

    loop = make_loop(arm, policy, observers=[look], watchdog={"patience_s": 1.0})
    episode = loop.run_episode(60.0)
    assert episode.ended == "fault"
    assert episode.reason.startswith("policy: ")
    assert f"127.0.0.1:{server.port}" in episode.reason
    np.testing.assert_array_equal(arm.commands[-1], arm.commands[-2])


@pytest.mark.slow
def test_menura_serve_is_restarted(make_arm: Any, make_loop: Any, save_run: Any, cleanly: Any, tmp_path: Path) -> None:
    arm = make_arm()
    rows = np.random.default_rng(0).normal(size=(50, 3)) * 0.1
    run = save_run(tmp_path / "run", replace(arm.features, cameras={}, fps=50.0), rows, CHUNK)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "menura", "serve", "-m", str(run), "--port", str(port)]
    processes: list[subprocess.Popen[bytes]] = []

    def start() -> None:
        processes.append(subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1"}))

    def restart() -> None:
        processes[-1].send_signal(signal.SIGKILL)
        threading.Timer(0.5, start).start()

    start()
    try:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                break
            time.sleep(0.2)
        policy = cleanly(ServedPolicy(f"ws://127.0.0.1:{port}", reconnect_s=60.0))
        loop: Any = None
        seen: list[Status] = []

        def look(status: Status) -> None:
            seen.append(status)
            if len([one for one in seen if one.action is not None]) == 20:
                restart()
            if policy.reconnects and status.mode == "policy":
                loop.stop("it goes on", "next")

        watchdog = {"max_inference_s": 0.2, "patience_s": 60.0, "max_observation_age_s": 5.0}
        loop = make_loop(arm, policy, observers=[look], watchdog=watchdog)
        episode = loop.run_episode(120.0)
    finally:
        for process in processes:
            process.terminate()
            process.wait()
    assert episode.ended == "next", episode.reason
    assert [fault.source for fault in episode.faults] == ["policy"]
    assert episode.timing.holds["no plan"] >= 2
    held = [status.action for status in seen if status.mode == "hold" and status.action is not None]
    assert all(np.array_equal(action, held[0]) for action in held)


def test_a_served_policy_drives_without_torch(make_arm: Any, cleanly: Any, tmp_path: Path) -> None:
    """A robot's computer needs none."""
    server = cleanly(Answering(make_robot(load_robot("dummy")).features))
    program = tmp_path / "drive.py"
    program.write_text(
        "import sys\n"
        "for name in ('torch', 'transformers'):\n"
        "    sys.modules[name] = None\n"
        "from menura.cli.main import main\n"
        "main(sys.argv[1:])\n"
    )
    words = ["control", "-m", f"ws://127.0.0.1:{server.port}", "--robot", "dummy", "--max_seconds", "0.2"]
    done = subprocess.run([sys.executable, str(program), *words], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "Episode 0: time: 0.2 s are over" in done.stderr
