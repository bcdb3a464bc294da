from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from menura.chunks import ActionChunk, PreviousChunk
from menura.errors import ContractError


def chunk(n: int, start_s: float = 1.0, period_s: float = 0.1) -> ActionChunk:
    return ActionChunk(np.arange(n, dtype=np.float32)[:, None], start_s, period_s)


def test_each_action_is_meant_for_its_own_period() -> None:
    actions = chunk(3)
    assert [actions.index_at(t) for t in (0.99, 1.0, 1.09, 1.1, 1.2, 1.299, 1.3)] == [None, 0, 0, 1, 2, 2, None]
    assert actions.at(1.25) == 2
    assert actions.end_s == pytest.approx(1.3)


@given(st.floats(-1e6, 1e6), st.floats(1e-3, 1.0), st.integers(0, 63))
def test_rounding_of_times_never_moves_an_action(start_s: float, period_s: float, i: int) -> None:
    assert chunk(64, start_s, period_s).index_at(start_s + i * period_s) == i


def test_an_empty_chunk_means_nothing_at_any_time() -> None:
    assert chunk(0).at(1.0) is None


def test_weights_are_those_of_the_paper() -> None:
    # Equation 5 with H = 8, s = 2, d = 2: the end of the overlap is 6.
    weights = PreviousChunk(np.zeros((6, 1), np.float32), delay=2).weights(8)
    share = np.array([(6 - i) / 5 for i in range(2, 6)])
    expected = share * (np.exp(share) - 1) / (np.e - 1)
    np.testing.assert_allclose(weights, [1, 1, *expected, 0, 0], atol=1e-6)


@given(st.integers(0, 20), st.integers(1, 20), st.data())
def test_weights_fall_from_1_to_0(old: int, new: int, data: st.DataObject) -> None:
    previous = PreviousChunk(np.zeros((old, 1), np.float32), delay=data.draw(st.integers(0, old)))
    weights = previous.weights(new)
    assert weights.shape == (new,)
    assert (np.diff(weights) <= 1e-7).all()
    assert (weights[: previous.delay] == 1).all()
    assert (weights >= 0).all()
    assert (weights[max(old, previous.delay) :] == 0).all()


@pytest.mark.parametrize("delay", [-1, 4])
def test_what_cannot_be_is_refused(delay: int) -> None:
    with pytest.raises(ContractError, match="expected"):
        PreviousChunk(np.zeros((3, 1), np.float32), delay)
