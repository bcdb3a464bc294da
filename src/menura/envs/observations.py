"""Reads entries of nested dict observations by dotted path."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from menura.data.episode import Float32, UInt8
from menura.errors import EnvironmentFailure, did_you_mean


def leaves(tree: Any, prefix: str = "") -> Iterator[str]:
    """The dotted paths of everything in a nested mapping that is not a mapping."""
    if not isinstance(tree, Mapping):
        yield prefix
        return
    for key, value in tree.items():
        yield from leaves(value, f"{prefix}.{key}" if prefix else str(key))


def read(tree: Any, key: str, what: str) -> Any:
    """The entry of `tree` at a dotted path; `what` names the tree in the error.

    Raises:
        EnvironmentFailure: there is no such entry; the message lists those there are.
    """
    value = tree
    parts = key.split(".")
    for depth, part in enumerate(parts):
        rest = ".".join(parts[depth:])
        if isinstance(value, Mapping) and rest in value:  # a key that has dots itself
            return value[rest]
        if not isinstance(value, Mapping) or part not in value:
            known = list(leaves(tree)) if isinstance(tree, Mapping) else []
            listed = ", ".join(known) or "no keys (it is one array)"
            raise EnvironmentFailure(
                f"{what}: expected an entry {key!r}{did_you_mean(key, known) or '.'} It has {listed}."
            )
        value = value[part]
    return value


def read_vector(tree: Any, key: str, what: str) -> Float32:
    """(D,) float32 the numbers of an entry, in C order."""
    array = np.asarray(read(tree, key, what))
    if not np.issubdtype(array.dtype, np.number) and array.dtype != np.bool_:
        raise EnvironmentFailure(f"{what}[{key!r}]: expected numbers, got {array.dtype}.")
    return array.astype(np.float32).ravel()


def read_image(tree: Any, key: str, what: str) -> UInt8:
    """(H, W, 3) uint8 the image of an entry."""
    image = np.asarray(read(tree, key, what))
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise EnvironmentFailure(
            f"{what}[{key!r}]: expected an image (H, W, 3) uint8, got shape {image.shape} {image.dtype}."
        )
    return image
