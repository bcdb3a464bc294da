"""A vector whose rotations are written in another representation. Torch-free."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from os.path import commonprefix
from typing import Any

import numpy as np
from numpy.typing import NDArray

from menura.errors import FeatureMismatch
from menura.features import ROTATIONS, Rotation, VectorFeature
from menura.processing.rotations import convert, known_representation

Floats = NDArray[np.floating[Any]]


@dataclass(frozen=True)
class _Piece:
    """One rotation: its representation, and where its numbers are on either side."""

    representation: str
    source: list[int]
    target: list[int]


class Representation:
    """Turns (..., D) vectors of a feature into (..., D') ones whose rotations are all `target`, and back.

    The numbers of a rotation come together where its first one stood; every other dimension keeps its value and its
    place in the order. A rotation that is `target` already keeps its names. Another is named after what its names
    begin with: `ee_qw … ee_qz` become `ee_q_6d_0 … ee_q_6d_5`. Rotations come out canonical, as
    `menura.processing.rotations` says, in either direction.

    Args:
        feature: what the vectors mean.
        target: one of `menura.features.ROTATIONS` that can say any rotation: not `angle`.

    Attributes:
        source, feature: what the vectors mean before and after.
        target: as given.

    Raises:
        FeatureMismatch: an unknown representation, or a feature without rotations.
    """

    def __init__(self, feature: VectorFeature, target: str) -> None:
        if not feature.rotations:
            raise FeatureMismatch(
                f"rotations as {target}: expected a feature that says which dimensions are a rotation, got none in "
                f"{list(feature.names)}. Say it with the wrapper DeclareFeatures."
            )
        if target == "angle":
            raise FeatureMismatch(
                f"rotations as angle: expected a representation that can say any rotation, got one of a single joint. "
                f"Take one of {[name for name in ROTATIONS if name != target]}."
            )
        self.source = feature
        self.target = known_representation(target)
        self._pieces: list[_Piece] = []
        self._kept_from: list[int] = []
        self._kept_to: list[int] = []
        rotation_of = {name: rotation for rotation in feature.rotations for name in rotation.names}
        converted: dict[Rotation, Rotation] = {}
        names: list[str] = []
        units: list[str] = []
        objects: list[str] = []
        for place, name in enumerate(feature.names):
            rotation = rotation_of.get(name)
            if rotation is None:
                self._kept_from.append(place)
                self._kept_to.append(len(names))
                names.append(name)
                units.append(feature.units[place] if feature.units else "")
                objects += [name] if name in feature.object_names else []
            elif rotation not in converted:
                new = converted[rotation] = _renamed(rotation, target, taken=(*feature.names, *names))
                source = [feature.names.index(own) for own in rotation.names]
                self._pieces.append(
                    _Piece(rotation.representation, source, list(range(len(names), len(names) + len(new.names))))
                )
                names += new.names
                units += [_unit(target)] * len(new.names)
                objects += new.names if set(rotation.names) & set(feature.object_names) else []
        self.feature = VectorFeature(
            names=tuple(names),
            units=tuple(units) if feature.units else None,
            object_names=tuple(objects),
            rotations=tuple(converted.values()),
            grippers=feature.grippers,
        )

    def encode(self, x: Floats) -> Floats:
        """(..., D) -> (..., D')"""
        y = np.empty((*x.shape[:-1], self.feature.dim), x.dtype)
        y[..., self._kept_to] = x[..., self._kept_from]
        for piece in self._pieces:
            y[..., piece.target] = convert(x[..., piece.source], piece.representation, self.target)
        return y

    def decode(self, y: Floats) -> Floats:
        """(..., D') -> (..., D)"""
        x = np.empty((*y.shape[:-1], self.source.dim), y.dtype)
        x[..., self._kept_from] = y[..., self._kept_to]
        for piece in self._pieces:
            x[..., piece.source] = convert(y[..., piece.target], self.target, piece.representation)
        return x


def _renamed(rotation: Rotation, target: str, taken: Collection[str]) -> Rotation:
    if rotation.representation == target:
        return rotation
    shared = commonprefix(rotation.names).rstrip("_-./ ")  # noqa: RUF071 (letters, not paths)
    for prefix in (shared, rotation.names[0]):
        names = tuple(f"{prefix}_{target}_{place}" for place in range(ROTATIONS[target]))
        if prefix and not set(names) & set(taken):
            break
    return Rotation(names, target)


def _unit(representation: str) -> str:
    return "rad" if representation.startswith(("axis", "euler")) else ""
