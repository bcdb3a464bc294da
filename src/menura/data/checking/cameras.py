"""Cameras that hang or see nothing, in frames picked from some episodes or in all of them. Torch-free."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from menura.data.checking.places import Places
from menura.data.checking.remedies import delete
from menura.data.checking.report import Finding
from menura.data.checking.tables import Context, Tables, long_runs
from menura.data.episode import Episode, Frames, UInt8
from menura.data.frames import LazyFrames
from menura.data.statistics import Float64

#: Frames are compared as grids of so many cells a side, each the mean of its pixels: noise and video coding cancel out.
GRID = 32
#: A picture of one colour: its cells differ less than this (of 255). Walls and tables differ by more, by their shading.
UNIFORM = 2.0
#: A picture that stays: no cell changes by more than this (of 255). Coding a still picture again changes cells by less,
#: an arm that moves through it by a multiple.
STILL = 1.0
#: … for so long, while the robot goes over this share of the usual range of a joint.
FROZEN_S, FROZEN_FRAMES = 1.0, 5
ROBOT_MOVES = 0.25
#: When pictures are sampled: one every so many seconds, of so many a camera altogether.
EVERY_S, PICKED = 0.25, 1500
_AT_ONCE = 32  # decoded together: a video is opened once for them


class Cameras:
    """Looks at the pictures of the episodes it is shown."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._black: Places[str] = Places()
        self._frozen: Places[str] = Places()
        self._looked: dict[str, int] = {}

    def see(self, tables: Tables, episode: Episode, camera: str, stride: int) -> None:
        """Every `stride`-th picture of a camera in an episode; places are known to within as many frames."""
        frames = episode.images[camera]
        numbers = np.arange(0, len(frames), stride)
        grids = np.stack(list(_grids(frames, numbers)))  # (n, cells, 3)
        self._looked[camera] = self._looked.get(camera, 0) + 1

        def place(first: int, last: int) -> tuple[int, int]:
            """Of picked frames `first … last - 1`."""
            return int(numbers[first]), int(numbers[last]) if last < len(numbers) else len(frames)

        uniform = np.ptp(grids, axis=1).max(axis=1) < UNIFORM
        for start, stop in long_runs(uniform, 1):
            self._black.add(camera, tables.index, place(start, stop))
        least = max(FROZEN_FRAMES, round(FROZEN_S * tables.fps))
        for start, stop in _still(grids, uniform):
            first, last = place(start, stop)
            if last - first >= least and self._moves(tables, first, int(numbers[stop - 1]) + 1):
                self._frozen.add(camera, tables.index, (first, last))

    def _moves(self, tables: Tables, first: int, last: int) -> bool:
        """Whether the robot goes far from frame `first` to `last - 1`."""
        feature = "state" if tables.state.shape[1] else "action"
        scale = self._context.scales[feature]
        looked = (scale.range > 0) & ~scale.stepped
        span = np.ptp(tables.table(feature)[first:last], axis=0)
        return bool((span > ROBOT_MOVES * scale.range)[looked].any())

    def findings(self) -> Iterable[Finding]:
        for camera, places in self._black.items():
            yield Finding(
                "black_camera",
                "warning",
                f"one colour, in {self._black.episodes(camera)} of {self._looked[camera]} episodes looked at",
                f"Check the camera; leave it out with `keys`, or these episodes: {delete(places)}",
                0.95,
                places,
                camera=camera,
            )
        for camera, places in self._frozen.items():
            yield Finding(
                "frozen_camera",
                "warning",
                "the picture stays while the robot moves",
                f"The camera or its driver hung; leave them out: {delete(places)}",
                0.85,
                places,
                camera=camera,
            )


def _grids(frames: Frames, numbers: NDArray[np.int64]) -> Iterator[Float64]:
    """Of each frame the mean colours of its cells: (GRID · GRID, 3)."""
    if not isinstance(frames, (np.ndarray, LazyFrames)):  # a user's own, which may know only whole numbers
        yield from (_grid(frames[int(number)]) for number in numbers)
        return
    for start in range(0, len(numbers), _AT_ONCE):
        yield from map(_grid, frames[numbers[start : start + _AT_ONCE]])


def _grid(frame: UInt8) -> Float64:
    height, width = frame.shape[:2]
    rows = np.unique(np.linspace(0, height, min(GRID, height) + 1).astype(int)[:-1])
    columns = np.unique(np.linspace(0, width, min(GRID, width) + 1).astype(int)[:-1])
    sums = np.add.reduceat(np.add.reduceat(frame, rows, axis=0, dtype=np.int64), columns, axis=1)
    pixels = np.diff([*rows, height])[:, None] * np.diff([*columns, width])
    return np.asarray((sums / pixels[..., None]).reshape(-1, 3))


def _still(grids: Float64, uniform: NDArray[np.bool_]) -> Iterator[tuple[int, int]]:
    """(start, stop) of stretches of pictures like their first one; those of one colour are told elsewhere."""
    start = 0
    for number in range(1, len(grids) + 1):
        same = number < len(grids) and np.abs(grids[number] - grids[start]).max() <= STILL
        if same and not uniform[start]:
            continue
        if number - start > 1:
            yield start, number
        start = number
