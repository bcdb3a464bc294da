"""Numbers of a message as float32 arrays, or a refusal that names the key, what was expected and what came."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from menura.serving.engine.errors import RequestRefused

Float32 = NDArray[np.float32]


def told(value: Any) -> str:
    """What came, in a few words: an array's dtype and shape, a short text or number itself, else its type."""
    if isinstance(value, np.ndarray):
        return f"{value.dtype} {value.shape}"
    if isinstance(value, (bool, float)) or (isinstance(value, int) and abs(value) < 10**18):
        return repr(value)
    if isinstance(value, str) and len(value) <= 80:
        return repr(value)
    return type(value).__name__


def numbers(key: str, value: Any, shape: str, fits: Callable[[tuple[int, ...]], bool]) -> Float32:
    """An array, or nested lists of numbers, as finite float32.

    Args:
        key: names it in messages.
        value: what came.
        shape: what was expected, in words.
        fits: whether a shape is that.
    """
    expected = f"{key}: expected float32 {shape}"
    if not isinstance(value, (np.ndarray, np.generic, list, tuple, int, float)):
        raise RequestRefused(f"{expected}, got {told(value)}.")
    try:
        raw = np.asarray(value)
    except (ValueError, TypeError, OverflowError) as error:  # lists of unequal lengths, of numbers without end
        raise RequestRefused(f"{expected}, got lists that are no array ({error}).") from error
    if raw.dtype.kind not in "fiu":
        raise RequestRefused(f"{expected}, got {told(raw)}.")
    if not fits(raw.shape):
        hint = " Send one observation, without a batch axis." if raw.shape[:1] == (1,) and fits(raw.shape[1:]) else ""
        raise RequestRefused(f"{expected}, got shape {raw.shape}.{hint}")
    array: Float32
    if raw.dtype == np.float32:
        array = raw.copy()
    else:
        with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite, and is refused as such
            array = raw.astype(np.float32)
    finite = np.isfinite(array)
    if not finite.all():
        where = tuple(int(index) for index in np.argwhere(~finite)[0])
        raise RequestRefused(f"{key}: expected finite numbers, got {raw[where]} at {list(where)}.")
    return array


def vector(key: str, value: Any, width: int, steps: int) -> Float32:
    """(width,), or (steps, width) where there are several steps and the client keeps their history.

    A vector of one number may also come as that number.
    """
    shapes = {(width,)} | ({()} if width == 1 else set()) | ({(steps, width)} if steps > 1 else set())
    shape = f"({width},)" + (f", or ({steps}, {width}) with a time axis" if steps > 1 else "")
    return np.atleast_1d(numbers(key, value, shape, shapes.__contains__))
