"""Agreeing with the chunk under way, for policies that cannot be guided: old and new actions blended. Torch-free."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from menura.chunks import PreviousChunk
from menura.errors import ContractError, FeatureMismatch
from menura.features import VectorFeature
from menura.processing.rotations import average

Float32 = NDArray[np.float32]


def blended(new: Float32, previous: Sequence[PreviousChunk | None], action: VectorFeature) -> Float32:
    """(B, T, A): w · old + (1 - w) · new by the weights of each row's previous chunk; rotations as rotations.

    Args:
        new: (B, T, A) physical, what was predicted.
        previous: one a row; None leaves the row as it is.
        action: what the dimensions mean.
    """
    result: Float32 = new.copy()
    for row, chunk in enumerate(previous):
        if chunk is None:
            continue
        weights = chunk.weights(new.shape[1])[:, None]
        old = padded(chunk, new.shape[1])
        result[row] = np.where(weights == 1, old, weights * old + (1 - weights) * new[row])
        for rotation in action.rotations:
            places = [action.names.index(name) for name in rotation.names]
            for step in np.flatnonzero((weights > 0) & (weights < 1)):
                both, weight = np.stack([old[step, places], new[row, step, places]]), float(weights[step, 0])
                result[row, step, places] = average(both, [weight, 1 - weight], rotation.representation)
    return result


def padded(chunk: PreviousChunk, length: int) -> Float32:
    """(length, A): the actions, the last repeated where the chunk is shorter, which has no weight."""
    of_length: Float32 = chunk.actions[np.minimum(np.arange(length), len(chunk.actions) - 1)]
    return of_length


def checked(previous: Sequence[PreviousChunk | None], *, rows: int, action_dim: int) -> list[PreviousChunk | None]:
    """The previous chunks, one a row, of actions such as the policy's; None for an empty one, which asks nothing."""
    if len(previous) != rows:
        raise ContractError(f"previous chunks: expected {rows}, one a row, got {len(previous)}.")
    for row, chunk in enumerate(previous):
        if chunk is not None and (chunk.actions.shape[1] != action_dim or not np.isfinite(chunk.actions).all()):
            raise FeatureMismatch(
                f"previous chunk of row {row}: expected finite actions of width {action_dim}, "
                f"got shape {chunk.actions.shape}."
            )
    return [chunk if chunk is not None and len(chunk.actions) else None for chunk in previous]
