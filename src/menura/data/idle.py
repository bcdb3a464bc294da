"""Where an episode begins to move and where it comes to rest, measured against the dataset's own steps.

A dimension's step size is the 99 % quantile of how much it changes from one frame to the next, in the dataset (its
largest change where that quantile is 0: a gripper that seldom moves). A frame moves when some dimension of the state or
of the action changes, until the next frame, by at least 5 % of its step size.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from menura.data.statistics import StatisticsBuilder

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]

#: Of a dimension's step size: less is no movement.
STILL = 0.05


def step_sizes(episodes: Iterable[Float32]) -> Float64:
    """(D,) the step size of every dimension, from the tables (T, D) of all episodes; 0 where it never changes."""
    builder = StatisticsBuilder(feature="steps")
    for table in episodes:
        # An episode of one frame has no step; none at all is as good as one of size 0.
        builder.update(np.abs(np.diff(table, axis=0)) if len(table) > 1 else np.zeros_like(table))
    steps = builder.result()
    return np.where(steps.q99 > 0, steps.q99, steps.max)


def moving_span(table: Float32, sizes: Float64) -> slice:
    """The frames of an episode (T, D) from the first that moves to where it comes to rest; none if none moves."""
    steps = np.abs(np.diff(table, axis=0))
    moves = np.flatnonzero(((steps >= STILL * sizes) & (sizes > 0)).any(axis=1))
    return slice(int(moves[0]), int(moves[-1]) + 2) if len(moves) else slice(0, 0)
