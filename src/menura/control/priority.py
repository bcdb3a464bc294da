"""What Python and the system can do for a loop with deadlines. Torch-free."""

from __future__ import annotations

import contextlib
import gc
import os
import sys
from collections.abc import Iterator

#: How long a thread may keep the interpreter to itself when another wants it (s); Python's own choice is 5 ms.
_SWITCH_INTERVAL_S = 0.0005


@contextlib.contextmanager
def real_time() -> Iterator[None]:
    """Inside, this thread is kept waiting as little as can be.

    Other threads hand the interpreter over after half a millisecond; the garbage collector no longer walks through what
    was there before (with torch loaded that is a tenth of a second); and where the system permits it (as root, or with
    CAP_SYS_NICE or an rtprio limit) the thread goes before all that have no deadline.

    What remains: a thread that holds the interpreter may be set aside by the system for another program. A computer
    that drives a robot should do nothing else.
    """
    interval_s = sys.getswitchinterval()
    sys.setswitchinterval(_SWITCH_INTERVAL_S)
    gc.collect()
    gc.freeze()
    try:
        with _first_in_line():
            yield
    finally:
        gc.unfreeze()
        sys.setswitchinterval(interval_s)


@contextlib.contextmanager
def _first_in_line() -> Iterator[None]:
    """SCHED_FIFO for this thread alone: those that it starts are ordinary ones."""
    if sys.platform != "linux":
        yield
        return
    before, parameter = os.sched_getscheduler(0), os.sched_getparam(0)
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO | os.SCHED_RESET_ON_FORK, os.sched_param(1))
    except PermissionError:
        yield
        return
    try:
        yield
    finally:
        os.sched_setscheduler(0, before, parameter)
