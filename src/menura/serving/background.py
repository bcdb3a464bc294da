"""A policy server beside the program that wants it: for checks, notebooks and tests."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from menura.serving.server import PolicyServer


@contextmanager
def serving(server: PolicyServer) -> Iterator[PolicyServer]:
    """Lets a server answer within the block, in an event loop and a thread of its own; its `port` is then known."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="policy server", daemon=True)
    thread.start()
    try:
        listening = asyncio.run_coroutine_threadsafe(server.start(), loop).result()
        try:
            yield server
        finally:
            asyncio.run_coroutine_threadsafe(listening.close(), loop).result()
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
