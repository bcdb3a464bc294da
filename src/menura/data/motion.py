"""When a robot moves and when it rests, measured by how fast it usually is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from menura.data.episode import Episode, Float32
from menura.data.readers.base import Reader

Float64 = NDArray[np.float64]


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
        states, actions = [], []
        for index in range(len(reader)):
            episode = reader.episode(index)
            states.append(np.abs(np.diff(episode.state, axis=0)))
            actions.append(np.abs(np.diff(episode.action, axis=0)))
        return cls(_fast(states), _fast(actions))

    def resting(self, episode: Episode) -> NDArray[np.bool_]:
        """(T - 1,) whether nothing moves between a frame and the next."""
        rest: NDArray[np.bool_] = _rests(episode.state, self.state) & _rests(episode.action, self.action)
        return rest

    def span(self, episode: Episode) -> tuple[int, int]:
        """(first, last + 1): the frames from the first movement to the last; all of them where nothing moves."""
        moving = np.flatnonzero(~self.resting(episode))
        return (int(moving[0]), int(moving[-1]) + 2) if len(moving) else (0, len(episode))


def _fast(steps: list[NDArray[np.float32]]) -> Float64:
    together = np.concatenate(steps)
    return np.quantile(together, 0.95, axis=0) if len(together) else np.zeros(together.shape[1])


def _rests(table: Float32, fast: Float64) -> NDArray[np.bool_]:
    rests: NDArray[np.bool_] = (np.abs(np.diff(table, axis=0)) <= Motion.REST * fast).all(axis=1)
    return rests
