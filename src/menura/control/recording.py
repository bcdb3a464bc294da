"""Episodes that are recorded while a robot is controlled, by a thread that never makes the loop wait. Torch-free."""

from __future__ import annotations

import queue
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from menura.control.sensing import Seen
from menura.control.watchdog import attempt
from menura.data import LeRobotWriter
from menura.data.recorder import Recorder
from menura.errors import DataError

Float32 = NDArray[np.float32]

#: Frames that may wait for the encoders, beyond those that they buffer themselves.
_MOST_WAITING = 300
#: In frames: far above the rounding of times.
_TOLERANCE = 1e-6


@dataclass(frozen=True)
class _Frame:
    seen: Seen
    action: Float32


class ControlRecorder:
    """Records what a control loop sees and sends, a frame every 1 / fps of the dataset.

    A frame is the newest observation at its time and the action that was sent then. Frames are regular, as the format
    asks: when the loop was late, a frame is repeated, and counted. Whatever fails (a full disk, an encoder) is told by
    `problem`; the episode under way is then lost, those saved before are untouched.

    Args:
        writer: of the dataset; its features are the robot's, its fps the policy's. It belongs to the recorder's thread
            while an episode is under way.

    Attributes:
        problem: why the episode under way cannot be recorded, in words; None when it can.
    """

    def __init__(self, writer: LeRobotWriter) -> None:
        self.writer = writer
        self.problem: str | None = None
        self._frames: queue.SimpleQueue[_Frame | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def begin(self, *, task: str, seed: int | None) -> None:
        """An episode begins; its first frame is that of the first `add`."""
        self.problem = None
        self._frames = queue.SimpleQueue()
        self._begun_s: float | None = None
        self._taken = self._repeated = 0
        self._interventions: list[list[int]] = []
        self._recorder = self.writer.begin(task=task, seed=seed)
        self._thread = threading.Thread(target=self._run, args=(self._recorder,), name="recording", daemon=True)
        self._thread.start()

    def add(self, time_s: float, seen: Seen, action: Float32, *, intervened: bool) -> None:
        """What was seen and sent at a tick: becomes a frame, or several, when one is due. Never waits."""
        if self._begun_s is None:
            self._begun_s = time_s
        fps = self.writer.features.fps
        due = int((time_s - self._begun_s) * fps + _TOLERANCE) + 1 - self._taken
        if due <= 0 or self.problem is not None:
            return
        if self._frames.qsize() + due > _MOST_WAITING:
            self.problem = f"expected the encoders to keep up, got {_MOST_WAITING} frames waiting. Use a faster codec."
            return
        for _ in range(due):
            self._frames.put(_Frame(seen, action))
        if intervened:
            self._mark(self._taken, self._taken + due)
        self._taken += due
        self._repeated += due - 1

    def save(self, *, success: bool | None, facts: Mapping[str, Any]) -> None:
        """Makes the episode part of the dataset: it is on disk when this returns.

        Stretches of frames that a teleoperator drove are its fact `interventions`: [[first, one past the last], …].

        Raises:
            DataError: it could not be recorded, for the reason of `problem`; nothing of it is left.
        """
        self._stop()
        if self.problem is None:
            extra = {**facts, "interventions": self._interventions, "repeated_frames": self._repeated}
            _, self.problem = attempt(lambda: self._recorder.save(success=success, extra=extra))
        if self.problem is not None:
            self._recorder.discard()
            raise DataError(f"recording: {self.problem}")

    def discard(self) -> None:
        """Leaves nothing of the episode."""
        self._stop()
        self._recorder.discard()

    def __len__(self) -> int:
        """Frames of the episode under way."""
        return self._taken

    def _mark(self, first: int, stop: int) -> None:
        if self._interventions and self._interventions[-1][1] == first:
            self._interventions[-1][1] = stop
        else:
            self._interventions.append([first, stop])

    def _stop(self) -> None:
        self._frames.put(None)
        if self._thread is not None:
            self._thread.join()

    def _run(self, recorder: Recorder) -> None:
        """The thread: frames arrive in order; after the first that fails none is kept."""
        while (frame := self._frames.get()) is not None:
            if self.problem is None:
                _, problem = attempt(partial(_append, recorder, frame))
                self.problem = self.problem or problem  # `add` may have found one meanwhile


def _append(recorder: Recorder, frame: _Frame) -> None:
    observation = frame.seen.observation
    recorder.append(state=observation["state"], images=observation["images"], action=frame.action)
