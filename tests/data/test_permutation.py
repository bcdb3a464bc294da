"""A permutation that is computed position by position."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from menura.data.permutation import permute

keys = st.lists(st.integers(0, 2**40), min_size=1, max_size=3)


@settings(deadline=None)
@given(size=st.integers(1, 3000), key=keys)
def test_every_number_comes_once(size, key):
    assert sorted(permute(np.arange(size), size, key)) == list(range(size))


@settings(deadline=None)
@given(size=st.integers(1, 2**62 - 1), key=keys, data=st.data())
def test_each_position_stands_for_itself(size, key, data):
    positions = np.array(data.draw(st.lists(st.integers(0, size - 1), max_size=5)), np.int64)
    together = permute(positions, size, key)
    assert all(0 <= value < size for value in together.tolist())
    assert [int(permute(positions[i : i + 1], size, key)[0]) for i in range(len(positions))] == together.tolist()


def test_the_order_is_the_same_on_every_machine():
    assert permute(np.arange(10), 10, (1, 2)).tolist() == [6, 8, 9, 5, 3, 4, 2, 0, 7, 1]


@pytest.mark.parametrize("size", [5, 64])
def test_positions_and_values_are_independent(size):
    """Over many keys every value comes equally often at every position, and so does every pair of neighbours' order."""
    counts = np.zeros((size, size))
    rising = 0
    for key in range(1000):
        order = permute(np.arange(size), size, (key,))
        counts[np.arange(size), order] += 1
        rising += int((np.diff(order) > 0).sum())
    expected = 1000 / size
    chi_square = ((counts - expected) ** 2 / expected).sum() / (size - 1) ** 2  # mean 1, deviation √2 / (size - 1)
    assert chi_square < 1 + 5 * np.sqrt(2) / (size - 1)
    assert abs(rising / (1000 * (size - 1)) - 0.5) < 0.02
