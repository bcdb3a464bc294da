"""Rotations of vectors: between representations, and composed instead of subtracted. Torch-free.

Whatever this module answers is canonical: quaternions have length 1 and w ≥ 0 (where w = 0, the first of x, y, z that
is not 0 is positive), axis-angle vectors are no longer than pi, `6d` and `matrix` are orthonormal, an `angle` is within
pi of 0. What it is given need not be: a quaternion may have any length, `6d` is made orthonormal by Gram-Schmidt (Zhou
et al. 2019, https://arxiv.org/abs/1812.07035, section B), `matrix` becomes the nearest rotation (Levinson et al. 2020,
https://arxiv.org/abs/2006.14616). So a policy's answer is always a rotation.

The one axis of an `angle` counts as z; what is made an `angle` keeps its turn about z alone.

A difference of two rotations is taken in the fixed frame that both are expressed in (the robot's base):
`difference(a, b)` is the D of a = D · b. It belongs to differences of positions in that same frame.

Computed in float64; the result has the input's dtype if that is a float, else float64. Representations are those of
`menura.features.ROTATIONS`.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from menura.errors import DataError, FeatureMismatch, did_you_mean
from menura.features import ROTATIONS, VectorFeature

if TYPE_CHECKING:
    from scipy.spatial.transform import Rotation

Floats = NDArray[np.floating[Any]]
Float64 = NDArray[np.float64]

# Below this, a column of `6d` or a quaternion is no direction but rounding.
_TINY = 1e-12
_AXIS = np.array([0.0, 0.0, 1.0])  # of an `angle`
_INVERSE = np.array([-1.0, -1.0, -1.0, 1.0])  # of x, y, z, w


def convert(x: ArrayLike, source: str, target: str) -> Floats:
    """(..., n) numbers in one representation -> (..., m) the same rotations in another.

    From a representation to itself: made canonical.

    Raises:
        FeatureMismatch: an unknown representation, or the wrong width.
        DataError: numbers that are not finite, or no rotation (a quaternion of zeros, say).
    """
    x = np.asarray(x)
    rotation = _to_rotation(x, source)
    return _shaped(_from_rotation(rotation, known_representation(target)), x.shape[:-1], x)


def difference(a: ArrayLike, b: ArrayLike, representation: str) -> Floats:
    """The D of a = D · b, in the fixed frame: what is `compose`d with b to give a. (..., n) each, broadcast."""
    a, b = np.asarray(a), np.asarray(b)
    product = _product(_quaternions(a, representation), _quaternions(b, representation) * _INVERSE)
    return _represented(product, representation, a)


def compose(a: ArrayLike, b: ArrayLike, representation: str) -> Floats:
    """a · b: first b, then a, about the axes of the fixed frame. (..., n) each, broadcast."""
    a, b = np.asarray(a), np.asarray(b)
    product = _product(_quaternions(a, representation), _quaternions(b, representation))
    return _represented(product, representation, a)


def accumulate(differences: ArrayLike, start: ArrayLike, representation: str) -> Floats:
    """(B, T, n) differences, each from the one before it, and (B, n) what the first is from -> (B, T, n)."""
    differences, start = np.asarray(differences), np.asarray(start)
    turns, current = _quaternions(differences, representation), _quaternions(start, representation)
    for step in range(turns.shape[1]):
        current = turns[:, step] = _product(turns[:, step], current)
    return _represented(turns, representation, differences)


def average(x: ArrayLike, weights: ArrayLike, representation: str) -> Floats:
    """(n,) the weighted mean of (k, n) rotations, the nearest to all in their matrices (Markley et al. 2007)."""
    x = np.asarray(x)
    rotations = _to_rotation(x, representation)
    if rotations is None:
        raise DataError(f"rotation {representation}: expected one or more to average, got none.")
    mean = rotations.mean(weights=np.asarray(weights, np.float64)).as_quat()
    return convert(mean.astype(x.dtype if x.dtype.kind == "f" else np.float64), "quat_xyzw", representation)


def angle(a: ArrayLike, b: ArrayLike, representation: str) -> Float64:
    """(...) radians in [0, pi] between (..., n) rotations, broadcast."""
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    apart = convert(difference(a, b, representation), representation, "axis_angle")
    return cast(Float64, np.linalg.norm(apart, axis=-1))


def neutral(feature: VectorFeature) -> NDArray[np.float32]:
    """(D,) zeros, but for rotations, which turn by nothing: a vector that may stand for any."""
    vector = np.zeros(feature.dim, np.float32)
    for rotation in feature.rotations:
        places = [feature.names.index(name) for name in rotation.names]
        vector[places] = convert(np.zeros(3), "axis_angle", rotation.representation)
    return vector


def known_representation(representation: str) -> str:
    """The name, one of `menura.features.ROTATIONS`; FeatureMismatch names the nearest."""
    if representation not in ROTATIONS:
        near = did_you_mean(representation, ROTATIONS) or "."
        raise FeatureMismatch(f"rotation: expected one of {list(ROTATIONS)}, got {representation!r}{near}")
    return representation


def _quaternions(x: NDArray[Any], representation: str) -> Float64:
    """(..., n) -> (..., 4) unit quaternions x, y, z, w."""
    rotation = _to_rotation(x, representation)
    return np.empty((*x.shape[:-1], 4)) if rotation is None else rotation.as_quat().reshape(*x.shape[:-1], 4)


def _product(a: Float64, b: Float64) -> Float64:
    """Hamilton's, of quaternions (..., 4) x, y, z, w, broadcast: many times faster than composing scipy's objects."""
    x, y, z, w = np.moveaxis(a, -1, 0)
    p, q, r, s = np.moveaxis(b, -1, 0)
    return np.stack(
        [
            w * p + x * s + y * r - z * q,
            w * q - x * r + y * s + z * p,
            w * r + x * q - y * p + z * s,
            w * s - x * p - y * q - z * r,
        ],
        axis=-1,
    )


def _represented(quaternions: Float64, representation: str, like: NDArray[Any]) -> Floats:
    return _shaped(_from_rotation(_to_rotation(quaternions, "quat_xyzw"), representation), quaternions.shape[:-1], like)


def _to_rotation(x: NDArray[Any], representation: str) -> Rotation | None:
    """(..., n) -> as many scipy rotations, flat; None where there are none, which scipy does not take."""
    from scipy.spatial.transform import Rotation

    width = ROTATIONS[known_representation(representation)]
    if x.shape[-1:] != (width,):
        raise FeatureMismatch(f"rotation {representation}: expected {width} numbers, got shape {x.shape}.")
    flat = x.reshape(-1, width).astype(np.float64)
    if not np.isfinite(flat).all():
        got = flat[~np.isfinite(flat).all(axis=1)][0].tolist()
        raise DataError(f"rotation {representation}: expected finite numbers, got {got}.")
    if not len(flat):
        return None
    if representation.startswith("quat"):
        _require(np.linalg.norm(flat, axis=1) > _TINY, flat, representation)
        return Rotation.from_quat(flat if representation == "quat_xyzw" else np.roll(flat, -1, axis=1))
    if representation == "axis_angle":
        return Rotation.from_rotvec(flat)
    if representation == "angle":
        return Rotation.from_rotvec(flat * _AXIS)
    if representation.startswith("euler"):
        return Rotation.from_euler(representation.removeprefix("euler_"), flat)
    matrix = _gram_schmidt(flat) if representation == "6d" else _nearest(flat.reshape(-1, 3, 3))
    return Rotation.from_matrix(matrix)


def _from_rotation(rotation: Rotation | None, representation: str) -> Float64:
    """(N, n) float64"""
    if rotation is None:
        return np.empty((0, ROTATIONS[representation]))
    if representation.startswith("quat"):
        quaternion: Float64 = rotation.as_quat(canonical=True)
        return quaternion if representation == "quat_xyzw" else np.roll(quaternion, 1, axis=1)
    if representation == "axis_angle":
        return cast(Float64, rotation.as_rotvec())
    if representation == "angle":
        quaternion = rotation.as_quat(canonical=True)
        return 2 * np.arctan2(quaternion[:, 2:3], quaternion[:, 3:])
    if representation.startswith("euler"):
        with warnings.catch_warnings():  # gimbal lock: the third angle is 0 then, and the rotation is right
            warnings.filterwarnings("ignore", message="Gimbal lock", category=UserWarning)
            return cast(Float64, rotation.as_euler(representation.removeprefix("euler_")))
    matrix: Float64 = rotation.as_matrix()  # (N, 3, 3)
    columns = matrix if representation == "matrix" else matrix[:, :, :2].transpose(0, 2, 1)
    return columns.reshape(len(matrix), -1)


def _gram_schmidt(flat: Float64) -> Float64:
    """(N, 6) -> (N, 3, 3)"""
    first, second = flat[:, :3], flat[:, 3:]
    length = np.linalg.norm(first, axis=1, keepdims=True)
    _require(length[:, 0] > _TINY, flat, "6d")
    x = first / length
    rest = second - (x * second).sum(axis=1, keepdims=True) * x
    length = np.linalg.norm(rest, axis=1, keepdims=True)
    _require(length[:, 0] > _TINY, flat, "6d")
    y = rest / length
    return np.stack([x, y, np.cross(x, y)], axis=2)


def _nearest(matrix: Float64) -> Float64:
    """(N, 3, 3) any -> (N, 3, 3) the nearest rotations, never a reflection."""
    u, size, v = np.linalg.svd(matrix)
    _require(size[:, 1] > _TINY, matrix.reshape(-1, 9), "matrix")
    u[:, :, 2] *= np.linalg.det(u @ v)[:, None]
    return cast(Float64, u @ v)


def _require(good: NDArray[np.bool_], flat: Float64, representation: str) -> None:
    if not good.all():
        got = flat[~good][0].tolist()
        raise DataError(f"rotation {representation}: expected numbers that say a rotation, got {got}.")


def _shaped(numbers: Float64, shape: tuple[int, ...], like: NDArray[Any]) -> Floats:
    dtype = like.dtype if like.dtype.kind == "f" else np.dtype(np.float64)
    return numbers.reshape(*shape, numbers.shape[-1]).astype(dtype, copy=False)
