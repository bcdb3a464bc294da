"""Control spaces: how the actions that are trained are made of those recorded, and back. Torch-free.

Recorded actions are absolute targets. They may be trained as they are, or as differences:

* `relative`: every action of a chunk against the state at prediction time (the chunk-relative actions of UMI, Chi et
  al. 2024, https://arxiv.org/abs/2402.10329, and of pi0, Black et al. 2024, https://arxiv.org/abs/2410.24164);
* `delta`: every action against the one before it, the first against the state.

Numbers are subtracted, rotations composed, both in the fixed frame (`menura.processing.rotations`): what is trained
for a position is a displacement along the base's axes, and for a rotation a turn about them. (UMI expresses both in the
gripper's own frame instead.) Grippers stay absolute.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from menura.errors import FeatureMismatch, did_you_mean
from menura.features import Features, Rotation, VectorFeature
from menura.processing.representation import Representation
from menura.processing.rotations import accumulate, compose, convert, difference

Floats = NDArray[np.floating[Any]]
ActionType = Literal["recorded", "relative", "delta"]


@dataclass(frozen=True)
class _Turn:
    """A rotation of the action and the rotation of the state it refers to."""

    action: list[int]
    representation: str
    state: list[int]
    state_representation: str


class Differences:
    """Actions (..., A) as differences from other actions or from states (..., D), and back.

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
        _require_known("action_reference", declared, action.names)
        _require_known("action_reference", declared.values(), state.names)
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
                raise _no_reference([name], state.names, did_you_mean(name, state.names))
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


class SpacesLike(Protocol):
    """The part of a task's `processor:` section, and of a saved processor's settings, that says what is trained."""

    @property
    def action_type(self) -> ActionType: ...
    @property
    def action_rotation(self) -> str | None: ...
    @property
    def state_rotation(self) -> str | None: ...
    @property
    def action_reference(self) -> Mapping[str, str]: ...
    @property
    def absolute_names(self) -> Collection[str]: ...


class Spaces:
    """What is trained instead of what was recorded: the action's type, and the representation of rotations.

    Args:
        features: of what was recorded.
        action_type: `recorded`, `relative` or `delta`, as the module says.
        action_rotation, state_rotation: the representation that is trained; None for that recorded.
        action_reference, absolute_names: as of `Differences`.

    Attributes:
        features: as given.
        trained: of what is trained; its control type is `delta` for differences.

    Raises:
        FeatureMismatch: differences of actions that are not said to be absolute, or what `Differences` and
            `Representation` refuse.
    """

    def __init__(
        self,
        features: Features,
        *,
        action_type: ActionType = "recorded",
        action_rotation: str | None = None,
        state_rotation: str | None = None,
        action_reference: Mapping[str, str] | None = None,
        absolute_names: Collection[str] = (),
    ) -> None:
        self.features = features
        self.action_type = action_type
        self._settings = {
            "action_type": action_type,
            "action_rotation": action_rotation,
            "state_rotation": state_rotation,
            "action_reference": dict(action_reference or {}),
            "absolute_names": sorted(absolute_names),
        }
        self._differences: Differences | None = None
        if action_type != "recorded":
            _require_absolute(features, action_type)
            self._differences = Differences(features.action, features.state, action_reference, absolute_names)
        self._action = None if action_rotation is None else Representation(features.action, action_rotation)
        self._state: Representation | None = None
        if state_rotation is not None:
            if features.state is None:
                raise FeatureMismatch(f"state_rotation: expected a state to turn into {state_rotation}, got none.")
            self._state = Representation(features.state, state_rotation)
        self.trained = replace(
            features,
            state=features.state if self._state is None else self._state.feature,
            action=features.action if self._action is None else self._action.feature,
            control_type=features.control_type if self._differences is None else "delta",
        )

    @classmethod
    def of(cls, settings: SpacesLike, features: Features) -> Spaces:
        """Those that `processor:` says, or `ProcessorSettings`."""
        return cls(
            features,
            action_type=settings.action_type,
            action_rotation=settings.action_rotation,
            state_rotation=settings.state_rotation,
            action_reference=settings.action_reference,
            absolute_names=settings.absolute_names,
        )

    @property
    def encodes_actions(self) -> bool:
        """Whether trained actions are others than those recorded."""
        return self._differences is not None or self._action is not None

    @property
    def needs_state(self) -> bool:
        """Whether actions cannot be made physical without the state they were predicted from."""
        return self._differences is not None

    @property
    def key(self) -> str:
        """Equal for spaces that make the same of the same numbers."""
        features = self.features.to_dict()
        return json.dumps([self._settings, features["state"], features["action"]], sort_keys=True)

    def encode_state(self, state: Floats) -> Floats:
        """(..., D) recorded -> (..., D') trained."""
        return state if self._state is None else self._state.encode(state)

    def encode_actions(self, actions: Floats, state: Floats) -> Floats:
        """Recorded actions (B, T, A), or (B, A), and the states (B, D) at prediction time -> (B, [T,] A') trained."""
        chunk = actions if actions.ndim == 3 else actions[:, None]
        if self._differences is not None:
            before = self._differences.reference(state)[:, None]  # (B, 1, A)
            if self.action_type == "delta":
                before = np.concatenate([before, chunk[:, :-1]], axis=1)
            chunk = self.encode_step(chunk, before)
        elif self._action is not None:
            chunk = self._action.encode(chunk)
        return chunk if actions.ndim == 3 else chunk[:, 0]

    def decode_actions(self, trained: Floats, state: Floats | None) -> Floats:
        """`encode_actions`, undone; the state may be None unless `needs_state`.

        The same numbers to float32's rounding, a few millionths of the largest of action and state; rotations the same
        rotations, in canonical numbers.
        """
        chunk = trained if trained.ndim == 3 else trained[:, None]
        if self._action is not None:
            chunk = self._action.decode(chunk)
        if self._differences is not None:
            if state is None:
                raise FeatureMismatch(
                    f"{self.action_type} actions: expected the state they were predicted from, got none."
                )
            before = self._differences.reference(state)  # (B, A)
            if self.action_type == "delta":
                chunk = self._differences.chained(chunk, before)
            else:
                chunk = self._differences.onto(chunk, before[:, None])
        return chunk if trained.ndim == 3 else chunk[:, 0]

    def comparable(self, actions: Floats) -> tuple[Floats, tuple[str, ...]]:
        """Recorded actions (..., A) such that equal ones have equal numbers, and the numbers' names.

        Rotations that were converted become matrices: a quaternion's sign and an angle of pi say nothing.
        """
        if not self.encodes_actions or not self.features.action.rotations:
            return actions, self.features.action.names
        matrices = Representation(self.features.action, "matrix")
        return matrices.encode(actions), matrices.feature.names

    def reference(self, state: Floats) -> Floats:
        """(..., D) states -> (..., A) what the first actions predicted from them are differences from."""
        return self._require_differences().reference(state)

    def encode_step(self, actions: Floats, before: Floats) -> Floats:
        """(..., A) actions and (..., A) those they are differences from -> (..., A') trained."""
        result = self._require_differences().against(actions, before)
        return result if self._action is None else self._action.encode(result)

    def _require_differences(self) -> Differences:
        if self._differences is None:
            raise FeatureMismatch("action_type: expected relative or delta, got recorded actions.")
        return self._differences


def _absolute(action: VectorFeature, names: Collection[str]) -> set[str]:
    """Grippers and what is named; all of a rotation or nothing of it."""
    _require_known("absolute_names", names, action.names)
    absolute = {*action.grippers, *names}
    for rotation in action.rotations:
        named = [name for name in rotation.names if name in absolute]
        if named and len(named) < len(rotation.names):
            raise FeatureMismatch(
                f"absolute_names: expected all of the rotation {list(rotation.names)} or nothing of it, got {named}."
            )
    return absolute


def _rotation_of_state(rotation: Rotation, state: VectorFeature, declared: Mapping[str, str]) -> Rotation:
    """The state's rotation that the action's refers to, by a name it shares or that is declared."""
    refers = {declared.get(name, name) for name in rotation.names}
    found = [own for own in state.rotations if refers & set(own.names)]
    if not found:
        raise _no_reference(rotation.names, [own.names for own in state.rotations])
    if len(found) > 1:
        raise FeatureMismatch(
            f"action_reference: expected one rotation of the state for {list(rotation.names)}, got "
            f"{[list(own.names) for own in found]}."
        )
    return found[0]


def _no_reference(names: Sequence[str], candidates: Sequence[object], near: str = "") -> FeatureMismatch:
    return FeatureMismatch(
        f"relative and delta actions: expected the action's {', '.join(names)} to be in the state, got "
        f"{list(candidates)}{near or '.'} Say what it is a target for (action_reference: {{{names[0]}: …}}), or that "
        "it stays absolute (absolute_names)."
    )


def _require_known(key: str, names: Collection[str], known: Collection[str]) -> None:
    for name in names:
        if name not in known:
            near = did_you_mean(name, known) or "."
            raise FeatureMismatch(f"{key}: expected some of {list(known)}, got {name!r}{near}")


def _require_absolute(features: Features, action_type: str) -> None:
    if features.control_type == "abs":
        return
    if features.control_type is None:
        got, step = "features that do not say", "DeclareFeatures, args: {control_type: abs}"
    else:
        got, step = f"control type {features.control_type}", "ConvertActions, args: {to: abs, against: …}"
    raise FeatureMismatch(
        f"action_type {action_type}: expected recorded actions that are absolute (control_type abs), got {got}. "
        f"Wrap the dataset, wrappers: [{{class: {step}}}]."
    )


def _places(names: Collection[str], feature: VectorFeature) -> list[int]:
    return [feature.names.index(name) for name in names]
