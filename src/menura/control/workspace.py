"""The box that differences must not lead out of. Torch-free."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from menura.control.hold import same_dimensions
from menura.errors import ContractError
from menura.features import Features

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]


class IntegratedWorkspace:
    """Bounds differences by where they lead: what the state says, and what was sent since that was captured.

    Args:
        features: the state must have each dimension of the box, by the same name and in the same unit.
        box: name of an action's dimension -> (lowest, highest) position.

    Raises:
        ContractError: a dimension whose position the state does not tell.
    """

    def __init__(self, features: Features, box: Mapping[str, tuple[float, float]]) -> None:
        state = features.state
        found = {} if state is None else dict(same_dimensions(features.action, state))
        rotated = {name for rotation in features.action.rotations for name in rotation.names}
        self.places = [features.action.names.index(name) for name in box]
        for name, place in zip(box, self.places, strict=True):
            units = features.action.units
            if place not in found or units is None or state is None or state.units is None or name in rotated:
                raise ContractError(
                    f"limits.workspace.{name}: expected a position of that name in the state, in the same unit, to "
                    "which differences are added, got none. Name them alike with their units in the features, or leave "
                    "the box away."
                )
        self._state_places = [found[place] for place in self.places]
        self._low, self._high = np.array(list(box.values()), np.float64).reshape(-1, 2).T
        self.begin(None)

    def begin(self, state: Float32 | None) -> None:
        """A new episode, in which (D,) `state` was measured before anything is sent; None: not known."""
        self._since: deque[tuple[float, Float64]] = deque()
        self._position = np.full(len(self.places), np.nan) if state is None else self._of(state)

    def observe(self, state: Float32, captured_s: float) -> None:
        """A newer state: what was sent until then is in it."""
        while self._since and self._since[0][0] <= captured_s:
            self._since.popleft()
        self._position = self._of(state)
        for _, difference in self._since:
            self._position += difference

    def clip(self, differences: Float64) -> Float64:
        """(n,) of `places`: none that leads out of the box, nor further out. Where the position is not known: none."""
        lowest = np.fmin(self._low - self._position, 0.0)
        highest = np.fmax(self._high - self._position, 0.0)
        unknown = np.isnan(self._position)
        clipped: Float64 = np.where(unknown, 0.0, np.clip(differences, lowest, highest))
        return clipped

    def sent(self, differences: Float64, now_s: float) -> None:
        """(n,) of `places`."""
        self._since.append((now_s, differences))
        self._position = self._position + differences

    def _of(self, state: Float32) -> Float64:
        return state[self._state_places].astype(np.float64)
