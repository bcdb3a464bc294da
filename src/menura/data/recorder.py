"""One episode that is recorded frame by frame."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from menura.data.background import BackgroundEncoder
from menura.data.copying import CopiedCamera
from menura.data.episode import Float32, UInt8
from menura.errors import DataError, FeatureMismatch
from menura.features import Features, VectorFeature

#: In frames: far above the rounding of float32 times, and far below a jitter worth keeping.
TIME_TOLERANCE = 0.1


@dataclass(frozen=True)
class Recorded:
    """An episode whose frames are encoded; the fields are those of `Episode`.

    Attributes:
        cameras: name -> its encoder, finished, or what was copied.
        timestamps: None where they are `frame / fps`.
    """

    state: Float32
    action: Float32
    cameras: Mapping[str, BackgroundEncoder | CopiedCamera]
    task: str
    seed: int | None
    success: bool | None
    extra: Mapping[str, Any]
    timestamps: NDArray[np.float64] | None = None


class Recorder:
    """An episode under way, from a writer's `begin`. It ends by `save` or `discard`.

    As a context manager it is saved at the end of the block (unless it was saved or discarded before), and discarded
    when an error leaves the block:

        with writer.begin(task="lift the cube", seed=3) as recorder:
            while not done:
                recorder.append(state=state, action=action, images={"top": frame})
            recorder.save(success=True)

    Cameras are encoded in the background, each by a thread. `append` copies the frames into a bounded buffer (64 MiB a
    camera) and returns; when an encoder falls behind by a whole buffer, `append` waits for it. No frame is dropped.
    It belongs to one thread.

    Args:
        features: what a frame must be.
        what: names the episode in messages.
        cameras: name -> encoder.
        keep: makes the finished episode part of the dataset, or raises.
        ended: called once, when the episode was saved or discarded.
        keeps_times: whether the format has room for times other than `frame / fps`.
    """

    def __init__(
        self,
        features: Features,
        what: str,
        task: str,
        seed: int | None,
        *,
        cameras: Mapping[str, BackgroundEncoder],
        keep: Callable[[Recorded], None],
        ended: Callable[[], None],
        keeps_times: bool = False,
    ) -> None:
        self._features = features
        self._what = what
        self._task = task
        self._seed = seed
        self._cameras = cameras
        self._keep = keep
        self._ended = ended
        self._keeps_times = keeps_times
        self._states: list[Float32] = []
        self._actions: list[Float32] = []
        self._times: list[float] = []
        self._open = True

    def __len__(self) -> int:
        """Frames so far."""
        return len(self._actions)

    @property
    def waited_s(self) -> float:
        """Seconds that `append` has waited for encoders: 0 when they keep up."""
        return sum(camera.waited_s for camera in self._cameras.values())

    def append(
        self,
        *,
        action: ArrayLike,
        state: ArrayLike | None = None,
        images: Mapping[str, UInt8] | None = None,
        timestamp: float | None = None,
    ) -> None:
        """Adds a frame. What it holds is copied and may be used again at once. A frame that is refused is not added.

        Args:
            action: (A,) numbers.
            state: (D,) numbers; left out where the features have none.
            images: camera -> (H, W, 3) uint8 RGB, every camera of the features.
            timestamp: seconds from the episode's start, of all of its frames or of none: then they are `frame / fps`.

        Raises:
            FeatureMismatch: another shape or type than the features say, or other cameras.
            DataError: a value that is not finite, a time that is not after the one before or that the format cannot
                keep, or an encoder that failed.
            OSError: the disk is full.
        """
        self._require_open()
        where = f"{self._what}, frame {len(self)}"
        states = _vector(where, "state", state, self._features.state or VectorFeature(()))
        actions = _vector(where, "action", action, self._features.action)
        frames = self._frames(where, images or {})
        self._require_time(where, timestamp)
        for name, frame in frames.items():
            self._cameras[name].take(frame)
        for camera in self._cameras.values():
            camera.encode()
        self._states.append(states)
        self._actions.append(actions)
        if timestamp is not None:
            self._times.append(float(timestamp))

    def save(self, *, success: bool | None = None, extra: Mapping[str, Any] | None = None) -> None:
        """Makes the episode part of the dataset; it is on disk when this returns. When this raises, it is discarded.

        Args:
            success: whether the task was solved; None where unknown.
            extra: further facts on the episode, JSON-able.

        Raises:
            DataError: no frame, facts that are no JSON, or an encoder that failed.
            OSError: the disk is full.
        """
        self._require_open()
        saved = False
        try:
            if not self._actions:
                raise DataError(f"{self._what}: expected at least 1 frame, got none. Append one, or discard it.")
            facts = _jsonable(self._what, extra or {})
            for camera in self._cameras.values():
                camera.finish()
            state, action = np.stack(self._states), np.stack(self._actions)
            times = np.array(self._times, np.float64) if self._times else None
            self._keep(Recorded(state, action, self._cameras, self._task, self._seed, success, facts, times))
            saved = True
        finally:
            if saved:
                self._end()
            else:
                self.discard()

    def discard(self) -> None:
        """Leaves nothing of the episode; a second call does nothing."""
        if not self._open:
            return
        try:
            for camera in self._cameras.values():
                camera.abandon()
        finally:
            self._end()

    def __enter__(self) -> Recorder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is not None:
            self.discard()
        elif self._open:
            self.save()

    def _end(self) -> None:
        self._open = False
        self._ended()

    def _require_open(self) -> None:
        if not self._open:
            raise DataError(f"{self._what}: expected an episode under way, got one that ended. Begin another.")

    def _require_time(self, where: str, time: float | None) -> None:
        if len(self) and (time is None) == bool(self._times):
            raise DataError(f"{where}: timestamp: expected one of every frame or of none. Give it always, or never.")
        if time is None:
            return
        if not np.isfinite(time) or (self._times and time <= self._times[-1]):
            after = f" after {self._times[-1]}" if self._times else ""
            raise DataError(f"{where}: timestamp: expected seconds{after}, got {time}. Mend the clock.")
        if not self._keeps_times and abs(time * self._features.fps - len(self)) > TIME_TOLERANCE:
            raise DataError(
                f"{where}: timestamp: expected frame / fps = {len(self) / self._features.fps:.4f}, which is all that "
                f"the format can keep, got {time:.4f}. Record with Hdf5Writer, or leave it out."
            )

    def _frames(self, where: str, images: Mapping[str, UInt8]) -> dict[str, UInt8]:
        expected = self._features.cameras
        if images.keys() != expected.keys():
            raise FeatureMismatch(f"{where}: cameras: expected {list(expected)}, got {list(images)}.")
        frames = {name: np.asarray(images[name]) for name in expected}
        for name, frame in frames.items():
            shape = (expected[name].height, expected[name].width, 3)
            if frame.dtype != np.uint8 or frame.shape != shape:
                raise FeatureMismatch(
                    f"{where}: camera {name!r}: expected uint8 of shape {shape}, got {frame.dtype} of {frame.shape}."
                )
        return frames


def _vector(where: str, what: str, values: ArrayLike | None, feature: VectorFeature) -> Float32:
    """(feature.dim,) float32, a copy; refused when it has another shape or holds a value that is not finite."""
    expected = f"{where}: {what}: expected {feature.dim} numbers"
    try:
        vector = np.array([] if values is None else values, np.float32)
    except (TypeError, ValueError) as error:
        raise FeatureMismatch(f"{expected}, got {type(values).__name__}.") from error
    if vector.shape != (feature.dim,):
        raise FeatureMismatch(f"{expected}, got {'none' if values is None else f'shape {vector.shape}'}.")
    if not np.isfinite(vector).all():
        wrong = int(np.flatnonzero(~np.isfinite(vector))[0])
        raise DataError(
            f"{where}: {what}: dimension {wrong} ({feature.names[wrong]}): expected a finite number, "
            f"got {vector[wrong]}. Mend what measures it, or discard the episode."
        )
    return vector


def _jsonable(what: str, extra: Mapping[str, Any]) -> dict[str, Any]:
    try:
        json.dumps(dict(extra), allow_nan=False)
    except (TypeError, ValueError) as error:
        raise DataError(f"{what}: extra: expected facts that JSON can hold, got {error}.") from error
    return dict(extra)
