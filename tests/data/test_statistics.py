"""Statistics: exact, mergeable, and loud about what is not finite."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from menura.data.statistics import QuantileSketch, Statistics, StatisticsBuilder, compute_statistics
from menura.errors import DataError, StatisticsError

FIELDS = ("mean", "std", "min", "max", "q01", "q99")
tables = hnp.arrays(
    np.float32,
    st.tuples(st.integers(1, 60), st.just(3)),
    elements=st.floats(-1e4, 1e4, width=32),
)


def build(parts: list[np.ndarray]) -> StatisticsBuilder:
    builder = StatisticsBuilder()
    for part in parts:
        builder.update(part)
    return builder


def assert_close(ours: Statistics, theirs: Statistics) -> None:
    assert ours.count == theirs.count
    for name in FIELDS:
        np.testing.assert_allclose(getattr(ours, name), getattr(theirs, name), rtol=1e-9, atol=1e-7, err_msg=name)


def test_against_numpy() -> None:
    rows = np.random.default_rng(0).normal(3, 2, (1000, 4)).astype(np.float32)
    statistics = compute_statistics(rows)
    wide = rows.astype(np.float64)
    np.testing.assert_allclose(statistics.mean, wide.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(statistics.std, wide.std(axis=0), rtol=1e-12)
    np.testing.assert_array_equal(statistics.min, wide.min(axis=0))
    np.testing.assert_array_equal(statistics.max, wide.max(axis=0))
    np.testing.assert_allclose(statistics.q01, np.quantile(wide, 0.01, axis=0), rtol=1e-12)
    np.testing.assert_allclose(statistics.q99, np.quantile(wide, 0.99, axis=0), rtol=1e-12)
    assert statistics.count == 1000
    assert statistics.dim == 4


@settings(max_examples=50, deadline=None)
@given(rows=tables, cuts=st.lists(st.integers(0, 60), max_size=4))
def test_parts_give_what_the_whole_gives(rows: np.ndarray, cuts: list[int]) -> None:
    parts = np.split(rows, sorted(min(cut, len(rows)) for cut in cuts))
    assert_close(build(parts).result(), compute_statistics(rows))


@settings(max_examples=50, deadline=None)
@given(parts=st.lists(tables, min_size=1, max_size=5), data=st.data())
def test_merging_in_any_order_and_grouping(parts: list[np.ndarray], data: st.DataObject) -> None:
    builders = [build([part]) for part in data.draw(st.permutations(parts))]
    while len(builders) > 1:
        builders[0].merge(builders.pop(data.draw(st.integers(1, len(builders) - 1))))
    assert_close(builders[0].result(), compute_statistics(np.concatenate(parts)))


def test_merging_nothing() -> None:
    builder = build([np.ones((2, 3))])
    builder.merge(StatisticsBuilder())
    empty = StatisticsBuilder()
    empty.merge(builder)
    assert_close(empty.result(), builder.result())


def test_no_cancellation_far_from_zero() -> None:
    rows = 1e8 + np.random.default_rng(0).normal(size=(5000, 1))
    np.testing.assert_allclose(build(np.split(rows, 50)).result().std, rows.std(axis=0), rtol=1e-6)


def test_constant() -> None:
    statistics = compute_statistics(np.full((7, 2), 0.1, np.float32))
    assert (statistics.min == statistics.mean).all()
    assert (statistics.std == 0).all()


@settings(max_examples=25, deadline=None)
@given(
    rows=hnp.arrays(np.float64, st.tuples(st.integers(1, 900), st.just(2)), elements=st.integers(-50, 50)),
    step=st.integers(1, 50),
    split=st.floats(0, 1),
)
def test_sketch_keeps_its_bound(rows: np.ndarray, step: int, split: float) -> None:
    """With a tiny capacity, so that much is thrown away; half of the parts come in by a merge."""
    capacity = 64
    sketch, other = QuantileSketch(capacity), QuantileSketch(capacity)
    for start in range(0, len(rows), step):
        (sketch if start < split * len(rows) else other).add(rows[start : start + step])
    sketch.merge(other)
    levels = max(1, len(sketch._levels) - 1)
    for fraction in (0.01, 0.5, 0.99):
        found = sketch.quantiles([fraction])[0]
        for column in range(2):
            below = (rows[:, column] < found[column]).mean()
            up_to = (rows[:, column] <= found[column]).mean()
            slack = levels / capacity + 1 / len(rows)
            assert below - slack <= fraction <= up_to + slack


def test_sketch_is_exact_within_its_capacity() -> None:
    rows = np.random.default_rng(0).normal(size=(64, 2))
    sketch = QuantileSketch(64)
    sketch.add(rows[:30])
    sketch.add(rows[30:])
    np.testing.assert_array_equal(sketch.quantiles([0.01, 0.99]), np.quantile(rows, [0.01, 0.99], axis=0))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_not_finite_is_named(value: float) -> None:
    builder = StatisticsBuilder(feature="observation.state", names=["x", "y", "z"])
    builder.update(np.zeros((10, 3)))
    rows = np.zeros((4, 3))
    rows[2, 1] = value
    with pytest.raises(DataError) as caught:
        builder.update(rows)
    assert str(caught.value) == (
        f"Statistics of observation.state: dimension 1 (y), row 12: expected a finite number, got {value}. "
        f"Mend or leave out that episode."
    )


def test_wrong_width() -> None:
    builder = StatisticsBuilder(feature="action")
    builder.update(np.zeros((2, 3)))
    with pytest.raises(DataError) as caught:
        builder.update(np.zeros((2, 4)))
    assert str(caught.value) == "Statistics of action: expected shape (N, 3), got (2, 4)."


def test_nothing_seen() -> None:
    with pytest.raises(StatisticsError) as caught:
        StatisticsBuilder(feature="action").result()
    assert str(caught.value) == "Statistics of action: expected at least 1 row, got none."


def test_to_dict_and_back() -> None:
    statistics = compute_statistics(np.random.default_rng(0).normal(size=(9, 2)))
    again = Statistics.from_dict(json.loads(json.dumps(statistics.to_dict())))
    assert again.count == statistics.count
    for name in FIELDS:
        np.testing.assert_array_equal(getattr(again, name), getattr(statistics, name))


def test_from_dict_refuses() -> None:
    good = compute_statistics(np.zeros((2, 2))).to_dict()
    with pytest.raises(StatisticsError) as caught:
        Statistics.from_dict({key: value for key, value in good.items() if key != "q01"})
    assert "['q01'] missing" in str(caught.value)
    with pytest.raises(StatisticsError) as caught:
        Statistics.from_dict(good | {"std": [1.0]})
    assert str(caught.value) == "Statistics.std: expected shape (2,) as mean has, got (1,)."
    with pytest.raises(StatisticsError) as caught:
        Statistics.from_dict(good | {"std": [1.0, float("nan")]})
    assert str(caught.value) == "Statistics.std[1]: expected a finite number, got nan."
