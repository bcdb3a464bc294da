"""A random order of any length that takes no memory: each position is computed when it is asked for.

A Feistel network (Luby & Rackoff, "How to construct pseudorandom permutations from pseudorandom functions", 1988)
permutes the numbers below a power of two; a result that is too large is sent through again until it fits ("cycle
walking": Black & Rogaway, "Ciphers with arbitrary finite domains", 2002, section 3): a permutation of any size.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

UInt64 = NDArray[np.uint64]

# Four rounds are the least that are hard to tell from random; small domains need more.
_ROUNDS = 8


def permute(positions: NDArray[np.int64], size: int, key: Sequence[int]) -> NDArray[np.int64]:
    """Where a random permutation of 0 … size - 1 sends each position: (n,) int64.

    Args:
        positions: (n,) from 0 to size - 1.
        size: how many there are, below 2**62.
        key: whole numbers ≥ 0 that choose the permutation; equal keys, equal permutations, on every machine.
    """
    keys = np.random.SeedSequence(key).generate_state(_ROUNDS, np.uint64).astype(np.uint64)
    half = max(1, ((size - 1).bit_length() + 1) // 2)
    values = positions.astype(np.uint64)
    outside = np.arange(len(values))
    while len(outside):
        values[outside] = _feistel(values[outside], half, keys)
        outside = outside[values[outside] >= size]
    return values.astype(np.int64)


def _feistel(values: UInt64, half: int, keys: UInt64) -> UInt64:
    """A permutation of the numbers below 2**(2 * half)."""
    bits, mask = np.uint64(half), np.uint64((1 << half) - 1)
    left, right = values >> bits, values & mask
    for key in keys:
        left, right = right, left ^ (_mix(right ^ key) & mask)
    joined: UInt64 = (left << bits) | right
    return joined


def _mix(values: UInt64) -> UInt64:
    """The finalizer of splitmix64 (Steele, Lea & Flood, "Fast splittable pseudorandom number generators", 2014)."""
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        values = (values ^ (values >> np.uint64(shift))) * np.uint64(factor)
    mixed: UInt64 = values ^ (values >> np.uint64(31))
    return mixed
