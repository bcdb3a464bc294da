"""When a robot moves and when it rests, measured by how fast it usually is."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from menura.data.episode import Float32
from menura.data.readers.base import Reader
from menura.data.statistics import StatisticsBuilder

Float64 = NDArray[np.float64]


class Moving(Protocol):
    """What of an episode is looked at."""

    @property
    def state(self) -> Float32: ...
    @property
    def action(self) -> Float32: ...


@dataclass(frozen=True)
class Motion:
    """How far each dimension of a dataset goes in a fast step.

    A frame rests where no dimension of state or action changes by more than `REST` of its fast step. A dimension that
    mostly stands still (a gripper that is opened once) has no usual step: each change of it is a movement.

    Attributes:
        state, action: (D,) and (A,): the 95 % quantile of the absolute changes from frame to frame.
    """

    state: Float64
    action: Float64

    REST: ClassVar[float] = 0.05

    @classmethod
    def of(cls, reader: Reader) -> Motion:
        """Measured on all episodes of a dataset; no frame is decoded."""
        return cls.measured(reader.episode(index) for index in range(len(reader)))

    @classmethod
    def measured(cls, episodes: Iterable[Moving]) -> Motion:
        """Measured on one episode or more."""
        builder, width = StatisticsBuilder(feature="steps"), 0
        for episode in episodes:
            width = episode.state.shape[1]
            table = np.concatenate([episode.state, episode.action], axis=1)
            # An episode of one frame has no step; none at all is as good as one of size 0.
            builder.update(np.abs(np.diff(table, axis=0)) if len(table) > 1 else np.zeros_like(table))
        fast = builder.quantiles([0.95])[0]
        return cls(fast[:width], fast[width:])

    def resting(self, episode: Moving) -> NDArray[np.bool_]:
        """(T - 1,) whether nothing moves between a frame and the next."""
        return np.asarray(_rests(episode.state, self.state) & _rests(episode.action, self.action))

    def span(self, episode: Moving) -> tuple[int, int]:
        """(first, last + 1): the frames from the first movement to the last; all of them where nothing moves."""
        moving = np.flatnonzero(~self.resting(episode))
        return (int(moving[0]), int(moving[-1]) + 2) if len(moving) else (0, len(episode.action))


def _rests(table: Float32, fast: Float64) -> NDArray[np.bool_]:
    return np.asarray((np.abs(np.diff(table, axis=0)) <= Motion.REST * fast).all(axis=1))
