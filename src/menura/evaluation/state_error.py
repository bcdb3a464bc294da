"""How far a simulated episode is from the recorded one. Torch-free."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
from numpy.typing import NDArray

from menura.data.episode import Float32
from menura.features import VectorFeature
from menura.processing.representation import Representation

Float64 = NDArray[np.float64]

#: In a dimension's usual spread (its standard deviation over the recorded frames): from here on an episode has left
#: the recorded one.
LEFT = 0.05
#: Further away nothing more is learnt: a simulation that diverged says no more than one that went elsewhere.
FARTHEST = 3.0


@dataclass(frozen=True)
class StateError:
    """Of one episode.

    Attributes:
        names: the dimensions that recording and environment have in common; rotations as matrices.
        difference: (n, d) simulated minus recorded, in the state's units.
        spread: (d,) the dimensions' usual spread.
        frames: how many were recorded; n is less where the simulation ended before.
    """

    names: tuple[str, ...]
    difference: Float64
    spread: Float64
    frames: int

    @property
    def in_spreads(self) -> Float64:
        """(n, d) |difference| / spread, at most FARTHEST."""
        return cast(Float64, np.minimum(np.abs(self.difference) / self.spread, FARTHEST))

    @property
    def score(self) -> float:
        """The root mean square over dimensions, averaged over all recorded frames: 0 where the episode is repeated."""
        of_frames = np.sqrt((self.in_spreads**2).mean(axis=1))
        missing = self.frames - len(of_frames)
        return float((of_frames.sum() + FARTHEST * missing) / self.frames)

    @property
    def begins(self) -> int | None:
        """The first frame in which some dimension has left the recorded episode; None where none has."""
        gone = np.flatnonzero((self.in_spreads > LEFT).any(axis=1))
        return int(gone[0]) if len(gone) else None

    @property
    def leaving(self) -> tuple[str, ...]:
        """The dimensions that leave within the first frames, those that are farthest first."""
        if self.begins is None:
            return ()
        early = self.in_spreads[: self.begins + 3].max(axis=0)
        order = np.argsort(-early, kind="stable")
        return tuple(self.names[i] for i in order if early[i] > LEFT)


class Comparison:
    """Compares recorded states with simulated ones, by the names of their dimensions.

    Args:
        recorded, simulated: what the two states mean.
        episodes: (T, D) recorded states, from which the usual spread of each dimension is taken.

    Attributes:
        names: what can be compared; empty where nothing can.
    """

    def __init__(
        self, recorded: VectorFeature | None, simulated: VectorFeature | None, episodes: Sequence[Float32]
    ) -> None:
        self._recorded, self._simulated = _Matrices(recorded), _Matrices(simulated)
        mine, theirs = self._recorded.names, self._simulated.names
        if len(mine) == len(theirs) and any(
            feature is not None and feature.unnamed for feature in (recorded, simulated)
        ):
            self._columns = [(i, i) for i in range(len(mine))]
        else:
            self._columns = [(i, theirs.index(name)) for i, name in enumerate(mine) if name in theirs]
        self.names = tuple(theirs[j] for _, j in self._columns)
        self._spread = self._usual_spread(episodes) if self.names else np.ones(0)

    def error(self, states: Float32, simulated: Float32, rate: float = 1.0) -> StateError:
        """Of an episode (T, D) and what was simulated, (n, D') states, `rate` of them for one recorded frame."""
        at = np.rint(np.arange(len(states)) * rate).astype(np.int64)
        at = at[at < len(simulated)]
        theirs = self._simulated.of(simulated[at])[:, [j for _, j in self._columns]]
        mine = self.recorded(states[: len(at)])
        return StateError(self.names, theirs - mine, self._spread, len(states))

    def recorded(self, states: Float32) -> Float64:
        """(T, d) recorded states (T, D) in the dimensions that are compared."""
        return self._recorded.of(states)[:, [i for i, _ in self._columns]]

    def _usual_spread(self, episodes: Sequence[Float32]) -> Float64:
        spread = np.concatenate([self.recorded(states) for states in episodes]).std(axis=0)
        # What never moved in the recording has no spread of its own.
        moving = spread[spread > 0]
        return cast(Float64, np.maximum(spread, 0.05 * float(np.median(moving)) if len(moving) else 1.0))


class _Matrices:
    """States whose rotations are written as matrices: a quaternion's sign says nothing."""

    def __init__(self, feature: VectorFeature | None) -> None:
        self._matrices = Representation(feature, "matrix") if feature is not None and feature.rotations else None
        shown = feature if self._matrices is None else self._matrices.feature
        self.names: tuple[str, ...] = () if shown is None else shown.names

    def of(self, states: Float32) -> Float64:
        rows = np.asarray(states, np.float64)
        return rows if self._matrices is None else cast(Float64, self._matrices.encode(rows))
