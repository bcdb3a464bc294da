"""Statistics against numbers from the literature, and against brute force."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from menura.errors import MenuraError
from menura.evaluation.statistics import (
    mcnemar_exact,
    mcnemar_power,
    mean_of_trainings,
    minimal_detectable_effect,
    newcombe_paired,
    sample_size,
    wilson,
)


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    [
        (81, 263, 0.2553, 0.3662),  # Newcombe, Statistics in Medicine 17 (1998): 857-872, table I, method 3
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
        (50, 50, 0.9287, 1.0),
    ],
)
def test_wilson_agrees_with_published_intervals(successes: int, n: int, low: float, high: float) -> None:
    assert wilson(successes, n) == pytest.approx((low, high), abs=5e-5)


@given(st.integers(1, 300).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_bounds_solve_the_score_equation(counts: tuple[int, int]) -> None:
    """(p - b)² = z² b (1 - b) / n defines the bounds b."""
    successes, n = counts
    low, high = wilson(successes, n)
    rate, z = successes / n, 1.959963984540054
    assert 0 <= low <= rate <= high <= 1
    for bound in (low, high):
        assert (rate - bound) ** 2 == pytest.approx(z * z * bound * (1 - bound) / n, abs=1e-9)


def test_of_no_episodes_nothing_is_known() -> None:
    assert wilson(0, 0) == (0.0, 1.0)
    assert newcombe_paired(0, 0, 0, 0) == (-1.0, 1.0)
    assert mcnemar_exact(0, 0) == 1.0


def test_mcnemar_by_hand() -> None:
    assert mcnemar_exact(1, 9) == pytest.approx(2 * (1 + 10) / 1024)
    assert mcnemar_exact(0, 5) == pytest.approx(2 / 32)
    assert mcnemar_exact(5, 5) == 1.0


@given(st.integers(0, 60), st.integers(0, 60))
def test_mcnemar_is_the_sum_of_all_outcomes_that_are_no_likelier(only_a: int, only_b: int) -> None:
    n = only_a + only_b
    counts = [math.comb(n, k) for k in range(n + 1)]
    expected = sum(count for count in counts if count <= counts[only_a]) / 2**n
    assert mcnemar_exact(only_a, only_b) == pytest.approx(expected)
    assert mcnemar_exact(only_a, only_b) == mcnemar_exact(only_b, only_a)


@pytest.mark.parametrize(
    ("table", "low", "high"),
    [
        ((36, 12, 2, 0), 0.0569, 0.3404),  # Newcombe, Statistics in Medicine 17 (1998): 2635-2650, method 10
        ((0, 0, 0, 10), -0.2775, 0.2775),
        ((54, 0, 0, 0), -0.0664, 0.0664),
    ],
)
def test_newcombe_agrees_with_published_intervals(table: tuple[int, int, int, int], low: float, high: float) -> None:
    assert newcombe_paired(*table) == pytest.approx((low, high), abs=5e-5)


@given(*[st.integers(0, 40)] * 4)
def test_newcombe_holds_the_difference_and_turns_with_it(both: int, only_a: int, only_b: int, neither: int) -> None:
    n = both + only_a + only_b + neither
    low, high = newcombe_paired(both, only_a, only_b, neither)
    turned = newcombe_paired(both, only_b, only_a, neither)
    if n:
        assert -1 <= low <= (only_a - only_b) / n <= high <= 1
    assert turned == pytest.approx((-high, -low))


def test_newcombe_covers_the_truth_as_often_as_it_says() -> None:
    generator = np.random.default_rng(0)
    tables = generator.multinomial(50, [0.55, 0.2, 0.1, 0.15], size=2000)
    intervals = np.array([newcombe_paired(*map(int, table)) for table in tables])
    covered = np.mean((intervals[:, 0] <= 0.1) & (intervals[:, 1] >= 0.1))
    assert 0.935 < covered < 0.98


@pytest.mark.parametrize(("n", "effect", "discordance"), [(30, 0.2, 0.3), (50, 0.1, 0.1), (100, 0.0, 0.3)])
def test_power_agrees_with_simulation(n: int, effect: float, discordance: float) -> None:
    generator = np.random.default_rng(1)
    only_a, only_b = (discordance + effect) / 2, (discordance - effect) / 2
    tables = generator.multinomial(n, [only_a, only_b, 1 - discordance], size=4000)
    found = np.mean([mcnemar_exact(int(a), int(b)) <= 0.05 for a, b, _ in tables])
    assert mcnemar_power(n, effect, discordance) == pytest.approx(found, abs=0.025)


def test_two_equal_policies_are_called_different_at_most_as_often_as_the_level_says() -> None:
    for n in (10, 50, 200):
        assert mcnemar_power(n, 0.0, 0.4) <= 0.05


def test_the_detectable_effect_and_the_sample_size_are_each_others_inverse() -> None:
    effect = minimal_detectable_effect(50, 0.2)
    assert mcnemar_power(50, effect, max(0.2, effect)) == pytest.approx(0.8, abs=0.01)
    assert minimal_detectable_effect(200, 0.2) < effect
    assert minimal_detectable_effect(5, 0.2) == 1.0  # 5 against 0 has p = 0.0625

    n = sample_size(0.1, 0.2)
    assert mcnemar_power(n, 0.1, 0.2) >= 0.8
    assert 150 < n < 200


def test_impossible_numbers_are_refused() -> None:
    with pytest.raises(MenuraError, match="expected 0 to 3"):
        wilson(4, 3)
    with pytest.raises(MenuraError, match="between 0 and 1"):
        wilson(1, 3, level=95)
    with pytest.raises(MenuraError, match="effect <= discordance"):
        sample_size(0.3, 0.2)


@pytest.mark.parametrize(("rate", "spread"), [(0.5, 10), (0.9, 20), (0.98, 50), (0.7, 1e6)])
@pytest.mark.parametrize("tasks", [1, 3, 10])
def test_the_interval_of_trainings_covers_the_truth(rate: float, spread: float, tasks: int) -> None:
    """Trainings whose own rates vary (beta), 50 episodes each: the interval holds the mean of all trainings."""
    rng = np.random.default_rng(0)
    hits = 0
    for _ in range(400):
        own = rng.beta(rate * spread, (1 - rate) * spread, (tasks, 3))
        _, (low, high) = mean_of_trainings(rng.binomial(50, own).tolist(), 50)
        hits += low <= rate <= high
    assert hits / 400 >= 0.93


def test_trainings_that_agree_are_not_certain() -> None:
    mean, (low, high) = mean_of_trainings([[50, 50, 50]], 50)
    assert mean == 1.0
    assert low < 0.97
    assert high == 1.0
    assert mean_of_trainings([[25]], 50)[1] != (0.5, 0.5)
