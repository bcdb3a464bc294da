"""Actions as differences from other actions or from states, and back. Torch-free."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from menura.errors import FeatureMismatch, did_you_mean
from menura.features import Rotation, VectorFeature
from menura.processing.rotations import accumulate, compose, convert, difference

Floats = NDArray[np.floating[Any]]


@dataclass(frozen=True)
class _Turn:
    """A rotation of the action and the rotation of the state it refers to."""

    action: list[int]
    representation: str
    state: list[int]
    state_representation: str


class Differences:
    """Actions (..., A) as differences from other actions or from states (..., D), and back.

    Numbers are subtracted, rotations composed, both in the fixed frame (`menura.processing.rotations`).

    Args:
        action, state: what the vectors mean.
        action_reference: action dimension -> the state dimension it is a target for, where their names differ. Of a
            rotation, one of its dimensions will do.
        absolute_names: action dimensions that stay as they are; grippers do by themselves.

    Raises:
        FeatureMismatch: a name nobody has, or an action dimension that refers to no state dimension.
    """

    def __init__(
        self,
        action: VectorFeature,
        state: VectorFeature | None,
        action_reference: Mapping[str, str] | None = None,
        absolute_names: Collection[str] = (),
    ) -> None:
        declared = dict(action_reference or {})
        if state is None:
            raise FeatureMismatch("relative and delta actions: expected a state they refer to, got a dataset without.")
        require_known("action_reference", declared, action.names)
        require_known("action_reference", declared.values(), state.names)
        absolute = _absolute(action, absolute_names)
        self.width = action.dim
        self._numbers: list[int] = []
        self._number_state: list[int] = []
        self._turns: list[_Turn] = []
        in_rotation = {name for rotation in action.rotations for name in rotation.names}
        in_state_rotation = {name for rotation in state.rotations for name in rotation.names}
        for place, name in enumerate(action.names):
            if name in absolute or name in in_rotation:
                continue
            refers = declared.get(name, name)
            if refers not in state.names:
                near = did_you_mean(name, state.names) or "."
                raise FeatureMismatch(
                    f"relative and delta actions: expected {name!r} of the action in the state, got "
                    f"{list(state.names)}{near} Say what it is a target for (action_reference: {{{name}: …}}), or that "
                    "it stays absolute (absolute_names)."
                )
            if refers in in_state_rotation:
                raise FeatureMismatch(
                    f"action {name!r}: expected a plain number of the state to subtract, got {refers!r}, which belongs "
                    "to a rotation. Declare the action's rotation (wrapper DeclareFeatures), or another "
                    "action_reference."
                )
            self._numbers.append(place)
            self._number_state.append(state.names.index(refers))
        for rotation in action.rotations:
            if not set(rotation.names) & absolute:
                own = _rotation_of_state(rotation, state, declared)
                self._turns.append(
                    _Turn(
                        _places(rotation.names, action),
                        rotation.representation,
                        _places(own.names, state),
                        own.representation,
                    )
                )
        self._is_number = np.isin(np.arange(action.dim), self._numbers)

    def reference(self, state: Floats) -> Floats:
        """(..., D) -> (..., A): the state as an action, for what `against` looks at; 0 where it looks at nothing."""
        action = np.zeros((*state.shape[:-1], self.width), state.dtype)
        action[..., self._numbers] = state[..., self._number_state]
        for turn in self._turns:
            action[..., turn.action] = convert(state[..., turn.state], turn.state_representation, turn.representation)
        return action

    def against(self, actions: Floats, before: Floats) -> Floats:
        """(..., A), `before` broadcast -> (..., A) the differences; absolute dimensions as they are."""
        result: Floats = actions - np.where(self._is_number, before, 0)
        for turn in self._turns:
            result[..., turn.action] = difference(
                actions[..., turn.action], before[..., turn.action], turn.representation
            )
        return result

    def onto(self, differences: Floats, before: Floats) -> Floats:
        """`against`, undone."""
        result: Floats = differences + np.where(self._is_number, before, 0)
        for turn in self._turns:
            result[..., turn.action] = compose(
                differences[..., turn.action], before[..., turn.action], turn.representation
            )
        return result

    def chained(self, differences: Floats, before: Floats) -> Floats:
        """(B, T, A) differences, each from the one before it, (B, A) what the first is from -> (B, T, A) actions."""
        result: Floats = differences.copy()
        sums = differences[..., self._numbers].cumsum(axis=1, dtype=np.float64)  # so that rounding does not add up
        result[..., self._numbers] = before[:, None, self._numbers] + sums
        for turn in self._turns:
            result[..., turn.action] = accumulate(
                differences[..., turn.action], before[:, turn.action], turn.representation
            )
        return result


def _absolute(action: VectorFeature, names: Collection[str]) -> set[str]:
    """Grippers and what is named; all of a rotation or nothing of it."""
    require_known("absolute_names", names, action.names)
    absolute = {*action.grippers, *names}
    for rotation in action.rotations:
        named = [name for name in rotation.names if name in absolute]
        if named and len(named) < len(rotation.names):
            raise FeatureMismatch(
                f"absolute_names: expected all of the rotation {list(rotation.names)} or nothing of it, got {named}."
            )
    return absolute


def _rotation_of_state(rotation: Rotation, state: VectorFeature, declared: Mapping[str, str]) -> Rotation:
    """The state's rotation that the action's refers to: by what is declared of its dimensions, else by equal names."""
    refers = {declared[name] for name in rotation.names if name in declared} or set(rotation.names)
    found = [own for own in state.rotations if refers & set(own.names)]
    if len(found) != 1:
        first = rotation.names[0]
        got = [list(own.names) for own in (found or state.rotations)] or f"none declared in {list(state.names)}"
        raise FeatureMismatch(
            f"relative and delta actions: expected one rotation of the state for {list(rotation.names)}, got {got}. "
            f"Say which (action_reference: {{{first}: …}}), declare the state's (wrapper DeclareFeatures), or leave "
            "the action's absolute (absolute_names)."
        )
    if "angle" in (kinds := {rotation.representation, found[0].representation}) and len(kinds) > 1:
        raise FeatureMismatch(
            f"relative and delta actions: expected a joint's angle for a joint's angle, got {list(rotation.names)} as "
            f"{rotation.representation} of the action and {list(found[0].names)} as {found[0].representation} of the "
            "state. Declare them alike (wrapper DeclareFeatures), or say another action_reference."
        )
    return found[0]


def require_known(key: str, names: Collection[str], known: Collection[str]) -> None:
    """FeatureMismatch: one of the names that the key was given is not known."""
    for name in names:
        if name not in known:
            near = did_you_mean(name, known) or "."
            raise FeatureMismatch(f"{key}: expected some of {list(known)}, got {name!r}{near}")


def _places(names: Collection[str], feature: VectorFeature) -> list[int]:
    return [feature.names.index(name) for name in names]
