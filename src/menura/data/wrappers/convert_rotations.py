"""Rotations in another representation."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from menura.data.episode import Episode
from menura.data.readers.base import Reader
from menura.data.wrappers.base import Wrapper
from menura.errors import FeatureMismatch, did_you_mean
from menura.processing.representation import Representation

_FEATURES = ("state", "action", "both")


class ConvertRotations(Wrapper):
    """A dataset whose rotations are written in another representation; names, widths and units follow.

    New dimensions are named as `menura.processing.representation.Representation` says.

    Args:
        reader: what is wrapped; its features say which dimensions are a rotation.
        to: one of `menura.features.ROTATIONS`.
        feature: whose rotations: `state`, `action` or `both`.

    Raises:
        FeatureMismatch: there is no such representation, or a feature asked for has no rotation.
    """

    def __init__(self, reader: Reader, to: str, feature: Literal["state", "action", "both"] = "both") -> None:
        super().__init__(reader)
        if feature not in _FEATURES:
            near = did_you_mean(str(feature), _FEATURES) or "."
            raise FeatureMismatch(f"ConvertRotations.feature: expected one of {list(_FEATURES)}, got {feature!r}{near}")
        features = reader.features
        self._action = Representation(features.action, to) if feature != "state" else None
        self._state: Representation | None = None
        if feature != "action":
            if features.state is None:
                raise FeatureMismatch(f"ConvertRotations: expected a state in {reader.name!r}, got none.")
            self._state = Representation(features.state, to)
        self.features = replace(
            features,
            state=features.state if self._state is None else self._state.feature,
            action=features.action if self._action is None else self._action.feature,
        )

    def episode(self, index: int) -> Episode:
        episode = self.reader.episode(index)
        return replace(
            episode,
            state=episode.state if self._state is None else self._state.encode(episode.state),
            action=episode.action if self._action is None else self._action.encode(episode.action),
        )
