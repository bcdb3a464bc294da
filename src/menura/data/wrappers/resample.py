"""The same motions at another rate."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from menura.data.episode import Episode, Float32
from menura.data.frames import PickedFrames
from menura.data.readers.base import Reader
from menura.data.wrappers.base import Wrapper
from menura.errors import DataError
from menura.features import VectorFeature
from menura.processing.rotations import compose, convert, difference

Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]

# A new frame this little (in frames) past the last one is still there: rates such as 30 / 10 are not exact in floats.
_ROUNDING = 1e-6


class Resample(Wrapper):
    """Episodes at another rate: state and action interpolated linearly, orientations along the shortest turn (slerp).

    Grippers and images take the nearest frame: half a grasp, or a blend of two pictures, was never there. Time is
    counted in frames of the source's rate; its own timestamps are not looked at.

    Args:
        reader: what is wrapped.
        fps: steps a second wanted, > 0.

    Raises:
        DataError: the rate is no such number, or the actions are differences, which cannot be interpolated.
    """

    def __init__(self, reader: Reader, fps: float) -> None:
        super().__init__(reader)
        if not fps > 0:
            raise DataError(f"Resample.fps: expected steps a second > 0, got {fps}.")
        if reader.features.control_type == "delta":
            raise DataError(
                f"Resample: expected absolute actions, got the differences of {reader.name!r}, which belong to its "
                "rate. Make them absolute first."
            )
        self._source_fps = reader.features.fps
        self.features = replace(reader.features, fps=float(fps))

    def lengths(self) -> Int64:
        return self._steps(np.asarray(self.reader.lengths()))

    def tasks(self) -> list[str]:
        return self.reader.tasks()

    def episode(self, index: int) -> Episode:
        episode = self.reader.episode(index)
        steps = int(self._steps(np.array(len(episode))))
        times = np.arange(steps) * (self._source_fps / self.features.fps)  # in frames of the source
        times = np.minimum(times, len(episode) - 1)
        nearest = np.floor(times + 0.5).astype(np.int64)
        state = self.reader.features.state
        return replace(
            episode,
            state=episode.state[nearest] if state is None else interpolate(episode.state, times, state),
            action=interpolate(episode.action, times, self.reader.features.action),
            images={camera: PickedFrames(frames, nearest) for camera, frames in episode.images.items()},
            fps=self.features.fps,
            timestamps=None,
        )

    def _steps(self, frames: Int64) -> Int64:
        """How many frames become of so many."""
        past_first = np.floor((frames - 1) * self.features.fps / self._source_fps + _ROUNDING)
        return np.asarray(past_first, np.int64) + 1


def interpolate(table: Float32, times: Float64, feature: VectorFeature) -> Float32:
    """(T, D) read at `times` (n,), in frames from 0 to T - 1: (n, D) float32."""
    below, nearest = np.floor(times).astype(np.int64), np.floor(times + 0.5).astype(np.int64)
    above = np.minimum(below + 1, len(table) - 1)
    share = (times - below)[:, None]
    result = ((1 - share) * table[below] + share * table[above]).astype(np.float32)
    for gripper in feature.grippers:
        column = feature.names.index(gripper)
        result[:, column] = table[nearest, column]
    for rotation in feature.rotations:
        columns = [feature.names.index(name) for name in rotation.names]
        turns = table[:, columns].astype(np.float64)
        result[:, columns] = _turned(turns[below], turns[above], share, rotation.representation)
    return result


def _turned(before: Float64, after: Float64, share: Float64, representation: str) -> Float64:
    """(n, R) orientations `share` (n, 1) of the shortest way from those before to those after."""
    way = convert(difference(after, before, representation), representation, "axis_angle")
    part = convert(way * share, "axis_angle", representation)
    return np.asarray(compose(part, before, representation), np.float64)
