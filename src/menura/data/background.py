"""The frames of one camera, encoded by a thread while more arrive. Torch-free."""

from __future__ import annotations

import contextlib
import os
import queue
import sys
import threading
import time

import numpy as np

from menura.data.episode import UInt8
from menura.data.lerobot_stats import ChannelHistogram
from menura.data.sinks import FrameSink
from menura.errors import DataError

# Frames may wait for the encoder in this much memory a camera: 2.4 s of 480 x 640 pixels at 30 frames a second.
_BUFFER_BYTES = 64 * 2**20
_FEWEST, _MOST = 4, 256
_LOOK_AGAIN_S = 0.1
_NICER = 5


class BackgroundEncoder:
    """Gives frames to a sink in a thread of its own. Every frame arrives there, or `take` or `finish` raises.

    FFmpeg works without Python's lock, so the threads of several cameras use several cores. Frames wait in buffers
    that are made once; when all are taken, `take` blocks until the encoder has caught up.

    Args:
        sink: closed or abandoned by this.
        height, width: of the frames.
        what: names it in messages.
    """

    def __init__(self, sink: FrameSink, height: int, width: int, what: str) -> None:
        self.sink = sink
        self.histogram = ChannelHistogram()  # of all frames, once finished
        self.waited_s = 0.0
        self._what = what
        count = min(max(_BUFFER_BYTES // (height * width * 3), _FEWEST), _MOST)
        self._buffers = np.empty((count, height, width, 3), np.uint8)
        self._room = threading.Semaphore(count)
        self._free = list(range(count))  # the last one used goes first: those never used take no memory
        self._filled: queue.SimpleQueue[int | None] = queue.SimpleQueue()
        self._taken = 0
        self._abandoned = False
        self._finished = False
        self._error: DataError | OSError | None = None
        # A daemon, so that a program that forgets an open recording can still end.
        self._thread = threading.Thread(target=self._run, name=f"encoder of {what}", daemon=True)
        self._thread.start()

    def take(self, frame: UInt8) -> None:
        """Takes a copy of a (H, W, 3) uint8 frame, which `encode` then passes on.

        Raises:
            DataError, OSError: the encoder failed.
        """
        self._require_sound(self._thread.is_alive())
        if not self._room.acquire(blocking=False):
            self._wait_for_room()
        self._taken = self._free.pop()
        np.copyto(self._buffers[self._taken], frame)

    def encode(self) -> None:
        """Passes on what was taken. Apart from `take`, so that no camera's encoder runs while others are copied."""
        self._filled.put(self._taken)

    def finish(self) -> None:
        """Returns when every frame is in the sink and the sink is closed; raises as `take`."""
        self._end()
        self._require_sound(self._finished)

    def abandon(self) -> None:
        """Stops as soon as possible."""
        self._abandoned = True
        self._end()
        self.sink.abandon()

    def _end(self) -> None:
        self._filled.put(None)
        self._thread.join()
        self._buffers = self._buffers[:0].copy()  # lets go of the memory

    def _wait_for_room(self) -> None:
        began = time.perf_counter()
        while not self._room.acquire(timeout=_LOOK_AGAIN_S):
            self._require_sound(self._thread.is_alive())
        self.waited_s += time.perf_counter() - began

    def _require_sound(self, sound: bool) -> None:
        if self._error is not None:
            raise self._error
        if not sound:
            raise DataError(f"{self._what}: expected its encoder to take every frame, but it ended. Record it again.")

    def _run(self) -> None:
        _yield_to_others()
        try:
            while (slot := self._filled.get()) is not None and not self._abandoned:
                frame = self._buffers[slot]
                self.sink.add(frame)
                self.histogram.add(frame)
                self._free.append(slot)
                self._room.release()
            if not self._abandoned:
                self.sink.close()
                self._finished = True
        except (DataError, OSError) as error:
            self._error = error


def _yield_to_others() -> None:
    """Lets the control loop, and whatever else has a deadline, go before this thread, where the system can (Linux)."""
    if sys.platform == "linux":
        with contextlib.suppress(PermissionError):  # a sandbox that forbids it costs some latency, and no frame
            os.setpriority(os.PRIO_PROCESS, 0, min(os.getpriority(os.PRIO_PROCESS, 0) + _NICER, 19))
            os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))  # does not interrupt whoever wakes it
