"""The policy server against openpi's own, with the same policy, which answers at once: what is left is the serving.

Prints one JSON line. Each pair of client and server is asked in turns, so that both meet the same machine: `round_trip`
of two 224 x 224 pictures, quiet and while a process spins on every core (`busy`; `busy_asked_first`: by clients of a
thread that goes before others, as the one is in which `menura control` asks); `overhead_ms` of a request without
pictures over asking the policy directly; `four_clients`, how many more answers four clients get than one, of a policy
of 20 ms.
`ratio` is the median of our round trip over openpi's (wanted: at most 1.0; at most 0.5 of its p99 on a busy machine);
without openpi, the overhead over 1 ms. `server_cpu` is the time (ms) that a request costs the server's processors.

openpi's server is one file, `src/openpi/serving/websocket_policy_server.py` of its repository, which needs
`openpi-client`; `--openpi FILE`, or the environment variable OPENPI_SERVER, says where it lies.

    python benchmarks/serve.py [--openpi FILE] [--rounds 5] [--requests 200]
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np
import psutil

from menura.priority import ANSWERING, first_in_line

STATE, ACTIONS, CHUNK, SIDE = 14, 14, 50, 224
POLICY_S = 0.020

Ask = Callable[[], Any]


def observation(cameras: int) -> dict[str, Any]:
    pixels = np.random.default_rng(0).integers(0, 256, (cameras, SIDE, SIDE, 3), dtype=np.uint8)
    images = {f"camera_{number}": image for number, image in enumerate(pixels)}
    return {"state": np.zeros(STATE, np.float32), "images": images, "prompt": "pick up the cube"}


def serve_ours(port: int, cameras: int, policy_s: float) -> None:
    import asyncio

    import torch

    from menura.features import CameraFeature, Features, VectorFeature
    from menura.serving.server import PolicyServer
    from rollouts import small_policy

    torch.set_num_threads(1)
    meta = small_policy(
        Features(
            state=VectorFeature.of_width(STATE, "s"),
            action=VectorFeature.of_width(ACTIONS, "a"),
            cameras={f"camera_{number}": CameraFeature(SIDE, SIDE) for number in range(cameras)},
            fps=50,
        )
    )
    chunk = np.zeros((CHUNK, ACTIONS), np.float32)

    def predict(obs: Any, **_: Any) -> Any:
        time.sleep(policy_s)
        return np.stack([chunk] * len(obs["state"]))

    meta.predict = predict

    async def listen() -> None:
        listening = await PolicyServer(meta, port=port, goes_first=True).start()
        await listening.serve_forever()

    asyncio.run(listen())


def serve_openpi(port: int, file: Path, policy_s: float) -> None:
    spec = importlib.util.spec_from_file_location("websocket_policy_server", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    class Dummy:
        def infer(self, obs: Any) -> dict[str, Any]:
            time.sleep(policy_s)
            return {"actions": np.zeros((CHUNK, ACTIONS), np.float32)}

    module.WebsocketPolicyServer(Dummy(), "127.0.0.1", port).serve_forever()


@contextmanager
def server(
    which: str, *, cameras: int = 0, policy_s: float = 0.0, openpi: Path | None = None
) -> Iterator[tuple[int, psutil.Process]]:
    """The port of a server, and the process that it is."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = int(free.getsockname()[1])
    command = [sys.executable, __file__, "--serve", which, str(port), str(cameras), str(policy_s)]
    process = subprocess.Popen(command + ([] if openpi is None else ["--openpi", str(openpi)]), stderr=subprocess.PIPE)
    try:
        for _ in range(600):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            if process.poll() is not None:
                assert process.stderr is not None
                raise SystemExit(process.stderr.read().decode())
            time.sleep(0.1)
        yield port, psutil.Process(process.pid)
    finally:
        process.terminate()
        process.wait()


@contextmanager
def busy_machine() -> Iterator[None]:
    """A process that spins on every core."""
    spin = [sys.executable, "-c", "while True: pass"]
    processes = [subprocess.Popen(spin) for _ in range(os.cpu_count() or 1)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def our_client(stack: ExitStack, port: int, cameras: int) -> Ask:
    from menura.serving.client import Client

    client, asked = stack.enter_context(Client(f"ws://127.0.0.1:{port}")), observation(cameras)
    return lambda: client.infer(asked)


def openpi_client(port: int, cameras: int) -> Ask:
    from openpi_client.websocket_client_policy import WebsocketClientPolicy

    client, asked = WebsocketClientPolicy("127.0.0.1", port), observation(cameras)
    return lambda: client.infer(asked)


def in_turns(asks: dict[str, Ask], rounds: int, requests: int) -> dict[str, dict[str, float]]:
    """Median and p99 of each in ms."""
    seconds: dict[str, list[float]] = {name: [] for name in asks}
    for ask in asks.values():
        for _ in range(min(requests, 20)):
            ask()
    for _ in range(rounds):
        for name, ask in asks.items():
            for _ in range(requests):
                start = time.perf_counter()
                ask()
                seconds[name].append(time.perf_counter() - start)
    return {
        name: {"median": round(1e3 * float(np.median(s)), 3), "p99": round(1e3 * float(np.percentile(s, 99)), 3)}
        for name, s in seconds.items()
    }


def answers_per_second(asks: list[Ask], requests: int) -> float:
    """Of clients that ask at the same time, `requests` each."""

    def run(ask: Ask) -> None:
        for _ in range(requests):
            ask()

    threads = [threading.Thread(target=run, args=(ask,)) for ask in asks]
    start = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return len(asks) * requests / (time.perf_counter() - start)


def round_trips(openpi: Path | None, cameras: int, rounds: int, requests: int, busy: bool) -> dict[str, Any]:
    with ExitStack() as stack:
        port, process = stack.enter_context(server("ours", cameras=cameras))
        asks, processes = {"menura": our_client(stack, port, cameras)}, {"menura": process}
        if openpi is not None:
            port, processes["openpi"] = stack.enter_context(server("openpi", openpi=openpi))
            asks["openpi"] = openpi_client(port, cameras)
        before = {name: process.cpu_times() for name, process in processes.items()}
        result: dict[str, Any] = {"quiet": in_turns(asks, rounds, requests)}
        for name, process in processes.items():
            spent_s = sum(process.cpu_times()[:2]) - sum(before[name][:2])  # of the user and of the system
            result["quiet"][name]["server_cpu"] = round(1e3 * spent_s / (rounds * requests + min(requests, 20)), 3)
        if busy:
            with busy_machine():
                result["busy"] = in_turns(asks, rounds, requests)
                with first_in_line(ANSWERING):
                    result["busy_asked_first"] = in_turns(asks, rounds, requests)
    for told in result.values():
        if "openpi" in told:
            told["ratio"] = {key: round(told["menura"][key] / told["openpi"][key], 3) for key in ("median", "p99")}
    return result


def four_clients(requests: int) -> dict[str, float]:
    with ExitStack() as stack:
        port, _ = stack.enter_context(server("ours", policy_s=POLICY_S))
        one = answers_per_second([our_client(stack, port, 0)], requests)
    with ExitStack() as stack:
        port, _ = stack.enter_context(server("ours", policy_s=POLICY_S))
        four = answers_per_second([our_client(stack, port, 0) for _ in range(4)], requests)
    return {"one_hz": round(one, 1), "four_hz": round(four, 1), "ratio": round(four / one, 2)}


def run() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--openpi", type=Path, default=os.environ.get("OPENPI_SERVER"))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--requests", type=int, default=200)
    parser.add_argument("--quiet_only", action="store_true")
    parser.add_argument("--serve", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve is not None:
        which, port, cameras, policy_s = options.serve
        if which == "ours":
            serve_ours(int(port), int(cameras), float(policy_s))
        else:
            serve_openpi(int(port), options.openpi, float(policy_s))
        return
    openpi = None if options.openpi is None else Path(options.openpi)
    pictures = round_trips(openpi, 2, options.rounds, options.requests, not options.quiet_only)
    state_only = round_trips(openpi, 0, options.rounds, options.requests, busy=False)
    overhead_ms = state_only["quiet"]["menura"]["median"]
    line = {
        "benchmark": "serve",
        "ratio": pictures["quiet"]["ratio"]["median"] if openpi is not None else round(overhead_ms, 3),
        "round_trip": pictures,
        "state_only": state_only["quiet"],
        "overhead_ms": overhead_ms,
        "four_clients": four_clients(options.requests),
    }
    if openpi is None:
        line["not_run"] = "against openpi: needs its server's file, as --openpi or OPENPI_SERVER"
    print(json.dumps(line))


if __name__ == "__main__":
    run()
