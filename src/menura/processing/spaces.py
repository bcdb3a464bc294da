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
from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from menura.errors import FeatureMismatch
from menura.features import Features, VectorFeature
from menura.processing.differences import Differences, require_known
from menura.processing.representation import Representation

Floats = NDArray[np.floating[Any]]
ActionType = Literal["recorded", "relative", "delta"]


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


def spaces_of_each(settings: SpacesLike, datasets: Mapping[str, Features]) -> dict[str, Spaces]:
    """Those of datasets that differ, in order. What is said of dimensions that a dataset lacks concerns the others.

    Raises:
        FeatureMismatch: something is said of what none of them has; else as of `Spaces`, with the dataset's name.
    """
    actions = [features.action for features in datasets.values()]
    known = list(dict.fromkeys(name for action in actions for name in action.names))
    require_known("action_reference", settings.action_reference, known)
    require_known("absolute_names", settings.absolute_names, known)
    some_action = any(_turns(action) for action in actions)
    some_state = any(_turns(features.state) for features in datasets.values())
    each = {}
    for dataset, features in datasets.items():
        names = features.action.names
        try:
            each[dataset] = Spaces(
                features,
                action_type=settings.action_type,
                action_rotation=settings.action_rotation if _turns(features.action) or not some_action else None,
                state_rotation=settings.state_rotation if _turns(features.state) or not some_state else None,
                action_reference={own: of for own, of in settings.action_reference.items() if own in names},
                absolute_names=[name for name in settings.absolute_names if name in names],
            )
        except FeatureMismatch as problem:
            raise FeatureMismatch(f"dataset {dataset!r}: {problem}") from problem
    return each


def _turns(feature: VectorFeature | None) -> bool:
    return feature is not None and bool(feature.rotations)


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
