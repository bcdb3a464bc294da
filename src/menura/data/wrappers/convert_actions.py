"""Absolute actions as deltas, and back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Literal

from menura.data.episode import Episode
from menura.data.readers.base import Reader
from menura.data.wrappers.base import Wrapper
from menura.errors import FeatureMismatch, did_you_mean
from menura.features import ControlType
from menura.processing.differences import Differences

_OTHER: Mapping[str, ControlType] = {"abs": "delta", "delta": "abs"}
_AGAINST = ("state", "previous")


class ConvertActions(Wrapper):
    """A dataset whose actions are of the other control type: absolute targets, or differences from something.

    Numbers are subtracted and added, rotations composed in the fixed frame (`menura.processing.rotations`), grippers
    stay as they are; joints and end effectors alike. There and back gives the same actions, to float32's rounding.

    To train on differences of absolute data, `processor.action_type` is the better way: it answers absolute actions.

    Args:
        reader: what is wrapped; its features say its control type.
        to: `abs` or `delta`, the control type wanted.
        against: what a delta is from: the `state` of its own frame, or the `previous` action (the first: from the
            first state).
        action_reference: action dimension -> the state dimension it is a target for, where names differ.
        absolute_names: action dimensions that stay as they are.

    Raises:
        FeatureMismatch: the actions are not of the other control type, or an action refers to no state.
    """

    def __init__(
        self,
        reader: Reader,
        to: ControlType,
        against: Literal["state", "previous"],
        action_reference: Mapping[str, str] | None = None,
        absolute_names: Sequence[str] = (),
    ) -> None:
        super().__init__(reader)
        features = reader.features
        for key, value, known in (("to", to, tuple(_OTHER)), ("against", against, _AGAINST)):
            if value not in known:
                near = did_you_mean(str(value), known) or "."
                raise FeatureMismatch(f"ConvertActions.{key}: expected one of {list(known)}, got {value!r}{near}")
        if features.control_type != _OTHER[to]:
            got = features.control_type or "features that do not say"
            raise FeatureMismatch(
                f"ConvertActions to {to}: expected actions of {reader.name!r} that are {_OTHER[to]}, got {got}. "
                "Say what they are with the wrapper DeclareFeatures, or leave this one out."
            )
        self._differences = Differences(features.action, features.state, action_reference, absolute_names)
        self._to = to
        self._against = against
        self.features = replace(features, control_type=to)

    def episode(self, index: int) -> Episode:
        episode = self.reader.episode(index)
        actions = episode.action  # (T, A)
        reference = self._differences.reference(episode.state)  # (T, A)
        if self._against == "state":
            change = self._differences.against if self._to == "delta" else self._differences.onto
            return replace(episode, action=change(actions, reference))
        if self._to == "delta":
            reference[1:] = actions[:-1]
            return replace(episode, action=self._differences.against(actions, reference))
        return replace(episode, action=self._differences.chained(actions[None], reference[:1])[0])
