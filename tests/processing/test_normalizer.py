"""Normalizers: exact numbers, the way back, and refusing bad statistics."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from menura.errors import FeatureMismatch, StatisticsError
from menura.processing.normalizer import KINDS, Normalizer, Rows


def rows_of(data: np.ndarray) -> Rows:
    data = data.astype(np.float64)
    q01, q99 = np.quantile(data, (0.01, 0.99), axis=0)
    return Rows(data.mean(0), data.std(0), data.min(0), data.max(0), q01, q99)


ROWS = Rows(*(np.array(values, np.float64) for values in ([1, 2], [2, 4], [-1, 0], [3, 10], [0, 1], [2, 9])))


@pytest.mark.parametrize(
    ("kind", "expected"),
    [("zscore", [0.5, -0.5]), ("minmax", [0.5, -1.0]), ("percentile", [1.0, -1.25]), ("identity", [2.0, 0.0])],
)
def test_exact_numbers(kind: str, expected: list[float]) -> None:
    normalizer = Normalizer(kind, ROWS, feature="state")
    torch.testing.assert_close(normalizer.normalize(torch.tensor([2.0, 0.0])), torch.tensor(expected))


def test_masked_dimensions_pass() -> None:
    normalizer = Normalizer("zscore", ROWS, feature="action", mask=[True, False])
    x = torch.tensor([[2.0, 7.0]])
    torch.testing.assert_close(normalizer.normalize(x), torch.tensor([[0.5, 7.0]]))
    torch.testing.assert_close(normalizer.unnormalize(normalizer.normalize(x)), x)


@settings(max_examples=60, deadline=None)
@given(
    arrays(np.float32, (20, 3), elements=st.floats(-1e3, 1e3, width=32)),
    st.sampled_from(KINDS),
    st.lists(st.booleans(), min_size=3, max_size=3),
)
def test_there_and_back(data: np.ndarray, kind: str, mask: list[bool]) -> None:
    normalizer = Normalizer(kind, rows_of(data), feature="state", mask=mask)
    x = torch.from_numpy(data)
    normalized = normalizer.normalize(x)
    assert torch.isfinite(normalized).all()
    back = normalizer.unnormalize(normalized)
    scale = max(1.0, float(x.abs().max()))
    torch.testing.assert_close(back, x, rtol=0, atol=3e-6 * scale)


@pytest.mark.parametrize("kind", ["zscore", "minmax", "percentile"])
@pytest.mark.parametrize("constant", [0.0, 3.0, -1e6])
def test_a_constant_dimension_is_zero_and_comes_back_as_its_constant(kind: str, constant: float) -> None:
    data = np.stack([np.full(50, constant), np.arange(50.0)], 1)
    normalizer = Normalizer(kind, rows_of(data), feature="action")
    assert (normalizer.normalize(torch.tensor([[constant, 1.0], [constant + 0.5, 2.0]]))[:, 0] == 0).all()
    assert (normalizer.unnormalize(torch.tensor([[0.0, 0.0], [0.7, 0.0]]))[:, 0] == constant).all()


@pytest.mark.parametrize("kind", ["zscore", "minmax", "percentile"])
def test_noise_of_the_recording_is_not_blown_up(kind: str) -> None:
    data = np.random.default_rng(0).normal(0.3, 1e-9, (100, 1))
    normalizer = Normalizer(kind, rows_of(data), feature="state")
    assert float(normalizer.normalize(torch.tensor([0.31])).abs()) == 0


def test_a_gripper_that_seldom_moves_keeps_its_range() -> None:
    """Its 1 % and 99 % quantiles coincide; dividing by their distance would be a division by zero."""
    data = np.zeros((1000, 1))
    data[:5] = 1
    normalizer = Normalizer("percentile", rows_of(data), feature="action")
    torch.testing.assert_close(normalizer.normalize(torch.tensor([[0.0], [1.0]])), torch.tensor([[-1.0], [1.0]]))
    torch.testing.assert_close(normalizer.unnormalize(torch.tensor([[1.0]])), torch.tensor([[1.0]]))


def test_each_dataset_has_its_own_row() -> None:
    other = dataclasses.replace(ROWS, mean=ROWS.mean + 10, std=ROWS.std * 2)
    both = Normalizer("zscore", [ROWS, other], feature="state")
    x = torch.randn(4, 5, 2)
    ids = torch.tensor([0, 1, 1, 0])
    expected = torch.stack(
        [Normalizer("zscore", (ROWS, other)[i], feature="s").normalize(x[n]) for n, i in enumerate(ids)]
    )
    torch.testing.assert_close(both.normalize(x, ids), expected)
    torch.testing.assert_close(both.unnormalize(both.normalize(x, ids), ids), x)
    torch.testing.assert_close(both.normalize(x, 1), Normalizer("zscore", other, feature="s").normalize(x))
    torch.testing.assert_close(both.normalize(x[:, 0], ids), expected[:, 0])


def test_the_input_is_not_changed() -> None:
    x = torch.randn(3, 2)
    before = x.clone()
    for kind in KINDS:
        normalizer = Normalizer(kind, ROWS, feature="state")
        normalizer.unnormalize(normalizer.normalize(x))
    assert torch.equal(x, before)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"std": None}, "state statistics of dataset 0, std: expected one number per dimension, got nothing"),
        ({"q99": np.zeros(3)}, r"state statistics of dataset 0, q99: expected shape \(2,\), got \(3,\)"),
        ({"mean": np.array([0, np.nan])}, "state .* mean: expected finite numbers, got nan in dimension 1"),
        ({"max": np.array([np.inf, 10])}, "state .* max: expected finite numbers, got inf in dimension 0"),
        ({"std": np.array([1.0, -1.0])}, "state .* expected std >= 0, not so in dimension 1"),
        ({"min": np.array([9.0, 0.0])}, "state .* expected min <= max, not so in dimension 0"),
        ({"q01": np.array([9.0, 1.0])}, "state .* expected q01 <= q99"),
    ],
)
@pytest.mark.parametrize("kind", KINDS)
def test_bad_statistics_are_refused_never_passed_through(kind: str, change: dict, message: str) -> None:
    with pytest.raises(StatisticsError, match=message):
        Normalizer(kind, dataclasses.replace(ROWS, **change), feature="state")


def test_other_mistakes_are_named() -> None:
    with pytest.raises(StatisticsError, match="did you mean zscore"):
        Normalizer("z-score", ROWS, feature="state")
    with pytest.raises(StatisticsError, match="at least one dataset, got none"):
        Normalizer("zscore", [], feature="state")
    with pytest.raises(StatisticsError, match="state mask: expected 2 values, got 3"):
        Normalizer("zscore", ROWS, feature="state", mask=[True] * 3)
    narrow = Rows(*(np.ones(1),) * 6)
    with pytest.raises(StatisticsError, match=r"dataset 1, mean: expected shape \(2,\)"):
        Normalizer("zscore", [ROWS, narrow], feature="state")
    with pytest.raises(FeatureMismatch, match="state: expected width 2, got 3"):
        Normalizer("zscore", ROWS, feature="state").normalize(torch.zeros(1, 3))
