"""The common layout of datasets that differ in dimensions and cameras, and where each dataset's own stand in it.

It is of what is trained: of datasets whose states and actions are encoded in their own spaces first.

Dimensions and cameras go by their names. What a dataset lacks is 0 in its batches, after normalization, too; masks say
what is there.

Shapes: B batch, O observation steps, T chunk, K cameras, D state and A action of the layout.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from menura.errors import FeatureMismatch, did_you_mean
from menura.features import CameraFeature, Features, Rotation, VectorFeature

Bool = NDArray[np.bool_]


class LayoutLike(Protocol):
    """The `layout:` section of a task: names in order; None where all datasets agree."""

    @property
    def state(self) -> Sequence[str] | None: ...
    @property
    def action(self) -> Sequence[str] | None: ...
    @property
    def cameras(self) -> Sequence[str] | None: ...


def common_features(layout: LayoutLike, datasets: Mapping[str, Features]) -> Features:
    """What a policy's state and actions mean in a layout of what is trained of these datasets, by name.

    Raises:
        FeatureMismatch: a name that no dataset has; an action dimension the layout leaves out; or two datasets that
            mean different things by one name (units, rotations, grippers), or differ in rate or control.
    """
    states = {name: features.state for name, features in datasets.items() if features.state is not None}
    actions = {name: features.action for name, features in datasets.items()}
    wanted_state = _wanted("state", layout.state, {n: _names(features.state) for n, features in datasets.items()})
    wanted_action = _wanted("action", layout.action, {n: _names(feature) for n, feature in actions.items()})
    wanted_cameras = _wanted("cameras", layout.cameras, {n: tuple(f.cameras) for n, f in datasets.items()})
    for name, feature in actions.items():
        left_out = [own for own in feature.names if own not in wanted_action]
        if left_out:
            raise FeatureMismatch(
                f"layout.action: expected every dimension of {name!r}, got none named {left_out[0]!r}. Add it, or give "
                "it one of these names with the wrapper Rename."
            )
    parts = list(datasets.values())
    return Features(
        state=_vector("state", wanted_state, states) if wanted_state else None,
        action=_vector("action", wanted_action, actions),
        cameras=_cameras(wanted_cameras, {n: features.cameras for n, features in datasets.items()}),
        fps=_agreed("fps", {n: f.fps for n, f in datasets.items()}, "Bring them to one rate with the wrapper Resample"),
        language=any(part.language for part in parts),
        control_space=_agreed("control space", {n: f.control_space for n, f in datasets.items()}, _CONVERT),
        control_type=_agreed("control type", {n: f.control_type for n, f in datasets.items()}, _CONVERT),
        robot=parts[0].robot if len({part.robot for part in parts}) == 1 else None,
    )


_CONVERT = "Bring them to one with a wrapper"


@dataclass(frozen=True)
class Placement:
    """Where the dimensions and cameras of a dataset stand in a layout.

    Attributes:
        state: (D,) of each dimension of the layout its place in the dataset's own state; -1 where there is none.
        action: (A,) the same for actions.
        cameras: (K,) whether the dataset has the camera.
    """

    state: tuple[int, ...]
    action: tuple[int, ...]
    cameras: tuple[bool, ...]

    @classmethod
    def of(cls, own: Features, layout: Features, cameras: Sequence[str]) -> Placement:
        """Of a dataset in a layout whose policy sees these cameras."""
        return cls(
            state=_places(own.state, layout.state),
            action=_places(own.action, layout.action),
            cameras=tuple(camera in own.cameras for camera in cameras),
        )

    @cached_property
    def masks(self) -> dict[str, Bool]:
        """`state_mask` (D,), `action_mask` (A,), `image_mask` (K,): true where the dataset has it."""
        return {
            "state_mask": np.array(self.state, np.int64) >= 0,
            "action_mask": np.array(self.action, np.int64) >= 0,
            "image_mask": np.array(self.cameras, np.bool_),
        }

    @property
    def own_action(self) -> list[int]:
        """Of each of the dataset's own action dimensions, in order, its place in the layout."""
        return [self.action.index(place) for place in range(max(self.action) + 1)]

    def vector(self, key: str, values: NDArray[Any]) -> NDArray[Any]:
        """The dataset's own (..., d) of `state` or `action` in the layout: (..., D), 0 where it has none."""
        own: tuple[int, ...] = getattr(self, key)
        if own == tuple(range(values.shape[-1])):
            return values
        places = np.array(own, np.int64)
        there = places >= 0
        laid_out = np.zeros((*values.shape[:-1], len(places)), values.dtype)
        laid_out[..., there] = values[..., places[there]]
        return laid_out

    def observation(
        self,
        own: Mapping[str, NDArray[Any]],
        axes: tuple[int, ...],
        *,
        image_size: tuple[int, int] | None,
        feature_dim: int | None = None,
    ) -> dict[str, NDArray[Any]]:
        """A dataset's own `state`, `image` or `image_features` in the layout: (*axes, …) each, if the layout has it.

        Args:
            own: of the cameras that it has; without what it has nothing of, or what nobody reads.
            axes: (B,) or (B, O).
            image_size: (height, width) of `image`; None without cameras.
            feature_dim: F of each camera where `image_features` stand for pixels.
        """
        laid_out: dict[str, NDArray[Any]] = {}
        if self.state and ("state" in own or max(self.state) < 0):
            laid_out["state"] = self.vector("state", own.get("state", np.zeros((*axes, 0), np.float32)))
        cameras = len(self.cameras)
        if cameras and feature_dim is not None:
            shape: tuple[int, ...] = (*axes, cameras * feature_dim)
            laid_out["image_features"] = self.image_features(own.get("image_features"), shape)
        elif cameras and image_size is not None:
            shape = (*axes, cameras, *image_size, 3)
            laid_out["image"] = self.images(own.get("image"), shape)
        return laid_out

    def images(self, values: NDArray[Any] | None, shape: tuple[int, ...]) -> NDArray[Any]:
        """The dataset's own (*, k, H, W, 3) in the layout, `shape` = (*, K, H, W, 3); black where it has no camera."""
        if values is not None and all(self.cameras):
            return values
        laid_out = np.zeros(shape, np.uint8 if values is None else values.dtype)
        if values is not None:
            laid_out[..., np.array(self.cameras, np.bool_), :, :, :] = values
        return laid_out

    def image_features(self, values: NDArray[np.float32] | None, shape: tuple[int, ...]) -> NDArray[np.float32]:
        """The dataset's own (*, k * F) in the layout, `shape` = (*, K * F); 0 where it has no camera."""
        laid_out = np.zeros((*shape[:-1], len(self.cameras), shape[-1] // len(self.cameras)), np.float32)
        if values is not None:
            laid_out[..., np.array(self.cameras, np.bool_), :] = values.reshape(*shape[:-1], -1, laid_out.shape[-1])
        return laid_out.reshape(shape)


def _names(feature: VectorFeature | None) -> tuple[str, ...]:
    return () if feature is None else feature.names


def _places(own: VectorFeature | None, layout: VectorFeature | None) -> tuple[int, ...]:
    names = _names(own)
    return tuple(names.index(name) if name in names else -1 for name in _names(layout))


def _wanted(what: str, wanted: Sequence[str] | None, given: Mapping[str, tuple[str, ...]]) -> tuple[str, ...]:
    """The names that the layout says, each of some dataset; those of all datasets when it does not say."""
    if wanted is None:
        if len(set(given.values())) > 1:
            raise FeatureMismatch(f"layout.{what}: expected it, for the datasets differ: {_told(given)}. Name them.")
        return next(iter(given.values()))
    known = list(dict.fromkeys(name for names in given.values() for name in names))
    for name in wanted:
        if name not in known:
            raise FeatureMismatch(
                f"layout.{what}: expected names of {known}, got {name!r}{did_you_mean(name, known) or '.'}"
            )
    return tuple(wanted)


def _vector(what: str, wanted: Sequence[str], given: Mapping[str, VectorFeature]) -> VectorFeature:
    """The wanted dimensions, each as the datasets that have it mean it."""
    units: list[str | None] = []
    grippers: dict[str, tuple[float, float]] = {}
    rotations: list[Rotation] = []
    for name in wanted:
        owners = {dataset: feature for dataset, feature in given.items() if name in feature.names}
        units.append(_agreed(f"unit of {name!r}", {n: _unit(f, name) for n, f in owners.items()}, _CONVERT))
        ends = {n: f.grippers.get(name) for n, f in owners.items()}
        if (agreed := _agreed(f"gripper {name!r} (closed, open)", ends, _CONVERT)) is not None:
            grippers[name] = agreed
        turns = {dataset: _rotation(feature, name, wanted) for dataset, feature in owners.items()}
        if len(set(turns.values())) > 1:
            raise FeatureMismatch(
                f"layout.{what}: expected one meaning of {name!r}, got {_told(turns)}. {_CONVERT}, or rename one."
            )
        rotations += [turn for turn in list(turns.values())[:1] if turn is not None and turn not in rotations]
    return VectorFeature(
        tuple(wanted),
        units=None if None in units else tuple(str(unit) for unit in units),
        object_names=tuple(name for name in wanted if any(name in feature.object_names for feature in given.values())),
        rotations=tuple(rotations),
        grippers=grippers,
    )


def _unit(feature: VectorFeature, name: str) -> str | None:
    return None if feature.units is None else feature.units[feature.names.index(name)]


def _rotation(feature: VectorFeature, name: str, wanted: Sequence[str]) -> Rotation | None:
    """The rotation a dimension belongs to; None for a plain number, and where the layout leaves a part of it out."""
    for rotation in feature.rotations:
        if name in rotation.names:
            return rotation if all(other in wanted for other in rotation.names) else None
    return None


def _cameras(wanted: Sequence[str], given: Mapping[str, Mapping[str, CameraFeature]]) -> dict[str, CameraFeature]:
    """The wanted cameras, each of the size that the first dataset has it in."""
    chosen = {}
    for name in wanted:
        found = [cameras[name] for cameras in given.values() if name in cameras]
        drawn_alike = len({camera.render for camera in found}) == 1
        chosen[name] = found[0] if drawn_alike else replace(found[0], render=None)
    return chosen


def _agreed(what: str, given: Mapping[str, Any], advice: str) -> Any:
    """The one value that those datasets say which know it (not None, not 0); None or 0 where nobody does."""
    known = {dataset: value for dataset, value in given.items() if value}
    if len(set(known.values())) > 1:
        raise FeatureMismatch(f"datasets: expected one {what}, got {_told(known)}. {advice}.")
    return next(iter(known.values()), next(iter(given.values())))


def _told(values: Mapping[str, Any]) -> str:
    """The first value and the first that differs from it."""
    first, *others = values.items()
    other = next(item for item in others if item[1] != first[1])
    return f"{_shown(first[1])} of {first[0]!r} and {_shown(other[1])} of {other[0]!r}"


def _shown(value: Any) -> str:
    if isinstance(value, Rotation):
        return f"a part of the rotation {list(value.names)} ({value.representation})"
    return "a plain number" if value is None else str(list(value) if isinstance(value, tuple) else value)
