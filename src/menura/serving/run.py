"""`menura serve`: a checkpoint behind the policy server, until it is told to stop."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from rich.console import Console

from menura.errors import ContractError
from menura.meta_policy import MetaPolicy
from menura.policies.threads import suitable_threads
from menura.serving.client import is_address
from menura.serving.doors.access import check_bind, read_key, tls_context
from menura.serving.doors.zmq import check_installed
from menura.serving.engine.keys import KeyMap
from menura.serving.server import DEFAULT_PORT, PolicyServer, check_free


def serve(
    model: str | Path,
    *,
    host: str = "127.0.0.1",
    port: int = DEFAULT_PORT,
    zmq_port: int | None = None,
    api_key_file: str | Path | None = None,
    certificate: Path | None = None,
    private_key: Path | None = None,
    keys: str | None = None,
    max_batch: int = 8,
    max_wait_ms: float = 2.0,
    max_queue: int = 64,
    dataset: str | None = None,
    trust_remote_code: bool = False,
) -> None:
    """Load, verify and warm up a checkpoint, then listen until told to end (SIGTERM or Ctrl-C; twice: at once).

    Args:
        model: a run or a checkpoint.
        api_key_file: holds the key that clients must present.
        host, port, zmq_port, certificate, private_key, keys, max_batch, max_wait_ms, max_queue: as of
            `PolicyServer`.
        dataset: whose statistics hold, of a policy trained on several datasets.
        trust_remote_code: allow code stored in the checkpoint to run when it is not in the project.

    Raises:
        ContractError: `model` is itself a server's address.
        AccessError: others could ask it without a key, or the key or the certificate cannot be used.
        ConfigError: there are no such keys, or they do not fit the checkpoint.
        MenuraError: an address cannot be listened on.
    """
    if is_address(model):
        raise ContractError(
            f"serve: expected a run or a checkpoint, got a server's address {model}. It serves already."
        )
    api_key = None if api_key_file is None else read_key(api_key_file)
    # What is wrong is said before the weights are read.
    check_bind(host, api_key)
    tls_context(certificate, private_key)
    layout = None if keys is None else KeyMap.read(keys)
    check_free(host, port)
    if zmq_port is not None:
        check_installed()
        check_free(host, zmq_port, "--zmq_port")
    meta = MetaPolicy.from_pretrained(Path(model), dataset=dataset, trust_remote_code=trust_remote_code)
    with suitable_threads(meta.policy):
        server = PolicyServer(
            meta,
            host=host,
            port=port,
            zmq_port=zmq_port,
            api_key=api_key,
            certificate=certificate,
            private_key=private_key,
            keys=layout,
            max_batch=max_batch,
            max_wait_ms=max_wait_ms,
            max_queue=max_queue,
            goes_first=True,
        )
        asyncio.run(_listen(server, str(model)))
    _leave_what_still_computes()


async def _listen(server: PolicyServer, model: str) -> None:
    said = Console(stderr=True, highlight=False, markup=False, soft_wrap=True)
    async with await server.start() as listening:
        with _ended_by_signals(listening.stop):
            said.print(f"{model} answers on {server.address} (Ctrl-C ends it)")
            if listening.zmq_port is not None:
                names = ", ".join(server.action_names)
                said.print(f"and GR00T's clients on tcp://{server.host}:{listening.zmq_port}, with actions as {names}")
            if server.exposure:
                said.print(server.exposure)
            await listening.serve_forever()
            said.print("Ending: what was asked is answered first. A second signal ends at once.")
            await listening.close()


@contextmanager
def _ended_by_signals(stop: Callable[[], None]) -> Iterator[None]:
    """The first SIGTERM or SIGINT stops; the second ends the process, whatever it is doing."""
    loop = asyncio.get_running_loop()
    told = False

    def tell(number: int, _frame: FrameType | None) -> None:
        nonlocal told
        if told:
            os._exit(128 + number)
        told = True
        loop.call_soon_threadsafe(stop)

    before = {number: signal.signal(number, tell) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _leave_what_still_computes() -> None:
    """Ends the process where an inference goes on that nobody waits for any more: Python would wait for it."""
    for thread in threading.enumerate():
        if thread.name.startswith("inference"):
            thread.join(timeout=1.0)
            if thread.is_alive():
                sys.stderr.flush()
                os._exit(0)
