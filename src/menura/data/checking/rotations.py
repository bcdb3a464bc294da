"""Orientations that are none, and signs that flip. Torch-free."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from menura.data.checking.places import Places
from menura.data.checking.report import Finding
from menura.data.checking.tables import FEATURES, Bool, Context, Tables, runs
from menura.data.statistics import Float64

#: How far a norm may be from 1: four decimals in a text file make 1e-4, a unit mistake makes much more.
NORM = 0.01
#: Cosine between one frame's vector and the next one's: -1 when the sign flipped and nothing else.
FLIP = -0.8
#: A rotation vector can only flip where it is long: from +pi to -pi about its axis.
FLIPS_FROM = 0.8 * np.pi
_COLUMNS = {"6d": 2, "matrix": 3}


class Rotations:
    """Quaternions and rotation matrices that are not of unit length; quaternions and rotation vectors that flip."""

    def __init__(self, context: Context) -> None:
        self._rotations = [
            (feature, rotation, [context.names(feature).index(name) for name in rotation.names])
            for feature in FEATURES
            for rotation in context.vector(feature).rotations
        ]
        self._places: Places[tuple[str, int]] = Places()

    def see(self, tables: Tables) -> None:
        for number, (feature, rotation, dimensions) in enumerate(self._rotations):
            values = tables.table(feature)[:, dimensions].astype(np.float64)
            for stretch in runs(~_unit(values, rotation.representation)):
                self._places.add(("norm", number), tables.index, stretch)
            for frame in np.flatnonzero(_flips(values, rotation.representation)):
                self._places.add(("flip", number), tables.index, (int(frame) + 1, int(frame) + 2))

    def findings(self) -> Iterable[Finding]:
        for (fault, number), places in self._places.items():
            feature, rotation, _ = self._rotations[number]
            if fault == "norm":
                kind, message = "rotation_norm", f"{rotation.representation}: not of unit length"
                remedy = "Check the order of the dimensions and what `rotations` says of them; normalize them."
            else:
                kind, message = "rotation_flip", f"{rotation.representation}: the sign flips from one frame to the next"
                remedy = "Give it as 6d, which has no sign to flip (wrapper ConvertRotations)."
            yield Finding(kind, "warning", message, remedy, 0.95, places, feature=feature, dimensions=rotation.names)


def _unit(values: Float64, representation: str) -> Bool:
    """(T,) whether the vectors that must have unit length have it."""
    if representation.startswith("quat"):
        vectors = values[:, None]
    elif representation in _COLUMNS:
        vectors = values.reshape(len(values), _COLUMNS[representation], 3)
    else:
        return np.ones(len(values), bool)
    return np.asarray((np.abs(np.linalg.norm(vectors, axis=-1) - 1) <= NORM).all(axis=1))


def _flips(values: Float64, representation: str) -> Bool:
    """(T - 1,) whether the next frame's vector points the other way."""
    lengths = np.linalg.norm(values, axis=1)
    if representation.startswith("quat"):
        long = lengths > 0
    elif representation == "axis_angle":
        long = lengths > FLIPS_FROM
    else:
        return np.zeros(max(len(values) - 1, 0), bool)
    product = (values[1:] * values[:-1]).sum(axis=1)
    return np.asarray(long[1:] & long[:-1] & (product < FLIP * lengths[1:] * lengths[:-1]))
