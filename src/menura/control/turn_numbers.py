"""One rotation between its numbers and a unit quaternion x, y, z, w, in plain floats. Torch-free.

`menura.processing.rotations` answers the same, made for many at once, in ten times the time: a control loop reads and
writes one of them at every tick.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from menura.errors import DataError

Numbers = Sequence[float]
Turn = list[float]

#: Below it a quaternion or a column is no direction but rounding.
_TINY = 1e-12


def from_quat_xyzw(numbers: Numbers) -> Turn:
    return _unit(numbers)


def from_quat_wxyz(numbers: Numbers) -> Turn:
    w, x, y, z = numbers
    return _unit((x, y, z, w))


def from_axis_angle(numbers: Numbers) -> Turn:
    angle = math.hypot(*numbers)
    _require(math.isfinite(angle), numbers)
    share = 0.5 if angle < _TINY else math.sin(angle / 2) / angle
    return [*(share * number for number in numbers), math.cos(angle / 2)]


def from_6d(numbers: Numbers) -> Turn:
    """The first two columns of a matrix, by Gram-Schmidt (Zhou et al. 2019, section B); its trace by Shepperd 1978."""
    x = _unit(numbers[:3])
    along = sum(own * other for own, other in zip(x, numbers[3:], strict=True))
    y = _unit([other - along * own for own, other in zip(x, numbers[3:], strict=True)])
    (a, d, g), (b, e, h) = x, y
    c, f, i = d * h - g * e, g * b - a * h, a * e - d * b
    largest = max(a + e + i, a, e, i)
    if largest == a + e + i:
        turn = (h - f, c - g, d - b, 1 + largest)
    elif largest == a:
        turn = (1 + a - e - i, d + b, c + g, h - f)
    elif largest == e:
        turn = (d + b, 1 + e - a - i, h + f, c - g)
    else:
        turn = (c + g, h + f, 1 + i - a - e, d - b)
    return _unit(turn)


def to_quat_xyzw(turn: Turn) -> list[float]:
    """Of the two quaternions that say it, the one whose w, or else first number, is positive."""
    x, y, z, w = turn
    leading = next((number for number in (w, x, y, z) if number), 1.0)
    return [number if leading > 0 else -number for number in turn]


def to_quat_wxyz(turn: Turn) -> list[float]:
    x, y, z, w = to_quat_xyzw(turn)
    return [w, x, y, z]


def to_axis_angle(turn: Turn) -> list[float]:
    x, y, z, w = to_quat_xyzw(turn)
    sine = math.hypot(x, y, z)
    share = 2.0 if sine < _TINY else 2 * math.atan2(sine, w) / sine
    return [share * x, share * y, share * z]


def to_6d(turn: Turn) -> list[float]:
    x, y, z, w = turn
    return [
        *(1 - 2 * (y * y + z * z), 2 * (x * y + z * w), 2 * (x * z - y * w)),
        *(2 * (x * y - z * w), 1 - 2 * (x * x + z * z), 2 * (y * z + x * w)),
    ]


#: Representation -> how it is read and written; of others see `menura.processing.rotations`.
READ: dict[str, Callable[[Numbers], Turn]] = {
    "quat_xyzw": from_quat_xyzw,
    "quat_wxyz": from_quat_wxyz,
    "axis_angle": from_axis_angle,
    "6d": from_6d,
}
WRITE: dict[str, Callable[[Turn], list[float]]] = {
    "quat_xyzw": to_quat_xyzw,
    "quat_wxyz": to_quat_wxyz,
    "axis_angle": to_axis_angle,
    "6d": to_6d,
}


def _unit(numbers: Numbers) -> list[float]:
    length = math.hypot(*numbers)
    _require(_TINY < length < math.inf, numbers)
    return [number / length for number in numbers]


def _require(good: bool, numbers: Numbers) -> None:
    if not good:
        raise DataError(f"rotation: expected finite numbers that say one, got {list(numbers)}.")
