"""Threads for work that leaves Python: decoding, and copying large arrays. Torch-free."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")

_pool: ThreadPoolExecutor | None = None


def available_cores() -> int:
    """The processor cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def in_threads(work: Callable[[Item], None], items: Sequence[Item], threads: int) -> None:
    """`work(item)` for every item, by this thread alone or by one thread a core, which stay for the next time.

    Raises:
        What `work` raises first, when all that was begun has ended.
    """
    global _pool
    if threads == 1 or len(items) < 2:
        for item in items:
            work(item)
        return
    if _pool is None:
        _pool = ThreadPoolExecutor(available_cores(), thread_name_prefix="menura-data")
    pending = [_pool.submit(work, item) for item in items]
    errors = [error for future in pending if (error := future.exception()) is not None]
    if errors:
        raise errors[0]


_inherited: list[ThreadPoolExecutor | None] = []


def _after_fork() -> None:
    """A forked process has none of its parent's threads."""
    global _pool
    _inherited.append(_pool)  # never freed, for it would wait for its threads
    _pool = None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
