"""The rotations within an action vector, as unit quaternions x, y, z, w: between two, one after the other. Torch-free.

What is done at every tick is written out here, in plain floats: `menura.processing.rotations` answers the same, made
for many rotations at once, in thirty times the time.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from menura.control.turn_numbers import READ, WRITE
from menura.errors import DataError
from menura.features import VectorFeature
from menura.processing.rotations import convert

Floats = NDArray[np.floating[Any]]
Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
Turn = list[float]  # x, y, z, w of length 1

#: No rotation at all.
IDENTITY: Turn = [0.0, 0.0, 0.0, 1.0]

#: Radians; closer rotations are mixed as numbers, which then is the same.
_NEAR = 1e-6


class Turns:
    """The R rotations that an action (A,) has.

    Attributes:
        places: the dimensions of each; all others are plain numbers.
        numbers: the dimensions of these.
    """

    def __init__(self, action: VectorFeature) -> None:
        self.representations = [rotation.representation for rotation in action.rotations]
        self.places = [[action.names.index(name) for name in rotation.names] for rotation in action.rotations]
        rotated = {place for places in self.places for place in places}
        self.numbers = [place for place in range(action.dim) if place not in rotated]

    def __len__(self) -> int:
        return len(self.places)

    def of(self, actions: Floats) -> Float64:
        """(..., A) -> (..., R, 4), each of length 1. DataError: numbers that say no rotation."""
        turns = np.empty((*actions.shape[:-1], len(self), 4))
        for index, (places, representation) in enumerate(zip(self.places, self.representations, strict=True)):
            turns[..., index, :] = convert(np.asarray(actions[..., places], np.float64), representation, "quat_xyzw")
        return turns

    def one(self, index: int, action: Floats) -> Turn:
        """One of the rotations of an action (A,). DataError: numbers that say none."""
        numbers, representation = action[self.places[index]].tolist(), self.representations[index]
        if representation in READ:
            return READ[representation](numbers)
        turn: Turn = convert(np.array(numbers), representation, "quat_xyzw").tolist()
        return turn

    def numbers_of(self, index: int, turn: Turn) -> Float32:
        """One of the rotations in its representation."""
        representation = self.representations[index]
        if representation in WRITE:
            return np.array(WRITE[representation](turn), np.float32)
        return convert(np.array(turn), "quat_xyzw", representation).astype(np.float32)

    def leading(self, actions: Floats) -> tuple[int, str | None]:
        """(T, A) -> how many from the first on are actions, and why no more: `not_finite`, `no_rotation`; None: all."""
        finite = np.isfinite(actions).all(axis=1)
        count, reason = (len(actions), None) if finite.all() else (int(finite.argmin()), "not_finite")
        try:
            self.of(actions[:count])
        except DataError:
            return next(row for row in range(count) if self.read(actions[row]) is None), "no_rotation"
        return count, reason

    def read(self, action: Floats) -> list[Turn] | None:
        """Those of an action (A,), all finite; None where its numbers say no rotation."""
        try:
            return [self.one(index, action) for index in range(len(self))]
        except DataError:
            return None

    def write(self, turns: Sequence[Any], actions: Floats) -> None:
        """(..., R, 4) into actions (..., A), each in its representation."""
        for index, (places, representation) in enumerate(zip(self.places, self.representations, strict=True)):
            actions[..., places] = convert(np.asarray(turns)[..., index, :], "quat_xyzw", representation)


def angle(a: Turn, b: Turn) -> float:
    """Radians in [0, pi] between two rotations."""
    return 4 * math.asin(min(0.5 * math.dist(a, _nearer(a, b)), 1.0))


def between(a: Turn, b: Turn, share: float) -> Turn:
    """On the shortest way from a (share 0) to b (share 1), at constant speed (Shoemake 1985)."""
    b = _nearer(a, b)
    apart = 2 * math.asin(min(0.5 * math.dist(a, b), 1.0))
    of_a, of_b = 1 - share, share
    if apart > _NEAR:
        of_a, of_b = math.sin(of_a * apart) / math.sin(apart), math.sin(of_b * apart) / math.sin(apart)
    return _unit([of_a * own + of_b * other for own, other in zip(a, b, strict=True)])


def product(a: Turn, b: Turn) -> Turn:
    """First b, then a, about fixed axes: Hamilton's product."""
    x, y, z, w = a
    p, q, r, s = b
    return _unit(
        [
            w * p + x * s + y * r - z * q,
            w * q - x * r + y * s + z * p,
            w * r + x * q - y * p + z * s,
            w * s - x * p - y * q - z * r,
        ]
    )


def inverse(turn: Turn) -> Turn:
    x, y, z, w = turn
    return [-x, -y, -z, w]


def _nearer(a: Turn, b: Turn) -> Turn:
    """b or -b, which are one rotation: whichever is nearer to a."""
    together = sum(own * other for own, other in zip(a, b, strict=True))
    return b if together >= 0 else [-other for other in b]


def _unit(turn: Turn) -> Turn:
    length = math.sqrt(sum(number * number for number in turn))
    return [number / length for number in turn]
