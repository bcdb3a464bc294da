"""Going before other programs: what Python and the system can do for threads with deadlines. Torch-free."""

from __future__ import annotations

import contextlib
import gc
import os
import sys
from collections.abc import Iterator

#: Of SCHED_FIFO, 1 to 99: the loop that moves a robot goes before what answers it, and both before what is ordinary.
CONTROLLING, ANSWERING = 2, 1
#: How long a thread may keep the interpreter to itself when another wants it (s); Python's own choice is 5 ms.
_SWITCH_INTERVAL_S = 0.0005


@contextlib.contextmanager
def real_time() -> Iterator[None]:
    """Inside, this thread is kept waiting as little as can be: first in line, in this process as well.

    Its other threads hand the interpreter over after half a millisecond.

    What remains: a thread that holds the interpreter may be set aside by the system for another program. A computer
    that drives a robot should do nothing else.
    """
    interval_s = sys.getswitchinterval()
    sys.setswitchinterval(_SWITCH_INTERVAL_S)
    try:
        with first_in_line(CONTROLLING):
            yield
    finally:
        sys.setswitchinterval(interval_s)


@contextlib.contextmanager
def first_in_line(priority: int) -> Iterator[None]:
    """Inside, this thread goes first, as of `go_first`.

    And the garbage collector no longer walks through what was there before: with torch loaded a tenth of a second.
    """
    gc.collect()
    gc.freeze()
    try:
        with _gone_first(priority):
            yield
    finally:
        gc.unfreeze()


def go_first(priority: int) -> bool:
    """This thread goes before all that have no deadline: SCHED_FIFO. Those that it starts are ordinary ones.

    Where the system permits it: on Linux, as root, or with CAP_SYS_NICE or an rtprio limit. Elsewhere nothing changes,
    and the answer is False.
    """
    if sys.platform != "linux":
        return False
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO | os.SCHED_RESET_ON_FORK, os.sched_param(priority))
    except OSError:  # no permission; a sandbox may not even have the call
        return False
    return True


@contextlib.contextmanager
def _gone_first(priority: int) -> Iterator[None]:
    if sys.platform != "linux":
        yield
        return
    before, parameter = os.sched_getscheduler(0), os.sched_getparam(0)
    gone = go_first(priority)
    try:
        yield
    finally:
        if gone:
            # Who may go first by an rtprio limit alone may not take this mark away; it changes nothing by itself.
            os.sched_setscheduler(0, before | os.SCHED_RESET_ON_FORK, parameter)
