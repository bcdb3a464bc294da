"""Flow matching against closed forms."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from menura.policies.common.flow_matching import (
    integrate_adaptive,
    integrate_euler,
    interpolate,
    path_velocity,
    sample_time,
)


class Counted:
    """A velocity that counts how often it is asked."""

    def __init__(self, velocity):
        self.velocity, self.calls = velocity, 0

    def __call__(self, sample, time):
        assert time.shape == (len(sample),)
        self.calls += 1
        return self.velocity(sample, time[:, None])


def gaussian_flow(mean: float, deviation: float):
    """The marginal velocity from N(0, 1) to N(mean, deviation²), whose flow maps x to mean + deviation · x."""

    def velocity(sample, time):
        scale = ((1 - time) ** 2 + (time * deviation) ** 2).sqrt()
        growth = (-(1 - time) + time * deviation**2) / scale
        return mean + growth / scale * (sample - time * mean)

    return velocity


def test_the_path_is_straight_from_noise_to_data():
    noise, data = torch.randn(3, 4, 2), torch.randn(3, 4, 2)
    torch.testing.assert_close(interpolate(noise, data, torch.zeros(3)), noise)
    torch.testing.assert_close(interpolate(noise, data, torch.ones(3)), data)
    time = torch.rand(3)
    later = interpolate(noise, data, time) + (1 - time)[:, None, None] * path_velocity(noise, data)
    torch.testing.assert_close(later, data)


def test_an_euler_step_over_the_path_velocity_is_exact():
    noise, data = torch.randn(5, 3), torch.randn(5, 3)
    velocity = path_velocity(noise, data)
    for n_steps in (1, 7):
        torch.testing.assert_close(integrate_euler(lambda x, t: velocity, noise, n_steps), data)


def test_eulers_error_is_halved_with_its_steps():
    start = torch.linspace(-2, 2, 9, dtype=torch.float64)[:, None]
    exact = start * math.e
    errors = [float((integrate_euler(lambda x, t: x, start, n) - exact).abs().max()) for n in (50, 100, 200)]
    assert errors[0] / errors[1] == pytest.approx(2, rel=0.05)
    assert errors[1] / errors[2] == pytest.approx(2, rel=0.05)


def test_time_may_run_backwards():
    start = torch.randn(4, 3)
    torch.testing.assert_close(
        integrate_euler(lambda x, t: -gaussian_flow(0.5, 0.2)(x, 1 - t[:, None]), start, 20, start=1.0, end=0.0),
        integrate_euler(lambda x, t: gaussian_flow(0.5, 0.2)(x, t[:, None]), start, 20),
    )
    torch.testing.assert_close(
        integrate_adaptive(lambda x, t: -gaussian_flow(0.5, 0.2)(x, 1 - t[:, None]), start, 1e-3, 99, start=1.0, end=0),
        integrate_adaptive(lambda x, t: gaussian_flow(0.5, 0.2)(x, t[:, None]), start, 1e-3, 99),
    )


@pytest.mark.parametrize("tolerance", [1e-2, 1e-3, 1e-4])
def test_adaptive_steps_keep_the_tolerance(tolerance):
    start = torch.randn(16, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    velocity = Counted(gaussian_flow(0.7, 0.1))
    end = integrate_adaptive(velocity, start, tolerance, 10_000)
    assert float((end - (0.7 + 0.1 * start)).square().mean().sqrt()) < 2 * tolerance
    assert velocity.calls < 2 * 8 / math.sqrt(tolerance)


def test_adaptive_steps_are_few_where_the_flow_is_straight():
    velocity = Counted(lambda x, t: torch.ones_like(x))
    torch.testing.assert_close(integrate_adaptive(velocity, torch.zeros(3, 2), 1e-3, 100), torch.ones(3, 2))
    assert velocity.calls == 6  # 0.1, then five times as long, then the rest


def test_adaptive_steps_converge_as_the_tolerance_falls():
    start = torch.randn(8, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    flow = gaussian_flow(1.0, 0.3)
    errors = []
    for tolerance in (1e-2, 1e-4, 1e-6):
        end = integrate_adaptive(lambda x, t: flow(x, t[:, None]), start, tolerance, 10**5)
        errors.append(float((end - (1.0 + 0.3 * start)).abs().max()))
    assert errors[0] > 10 * errors[1] > 100 * errors[2]


@given(st.integers(2, 12), st.sampled_from([1e-9, 1e-3, 1.0]), st.integers(0, 100))
@settings(max_examples=40, deadline=None)
def test_the_bound_of_evaluations_is_always_kept_and_the_end_reached(bound, tolerance, seed):
    start = torch.randn(3, 2, generator=torch.Generator().manual_seed(seed))
    velocity = Counted(gaussian_flow(0.3, 0.05))
    assert torch.isfinite(integrate_adaptive(velocity, start, tolerance, bound)).all()
    assert velocity.calls <= bound
    clock = integrate_adaptive(lambda x, t: torch.ones_like(x), torch.zeros(3, 1), tolerance, bound)
    torch.testing.assert_close(clock, torch.ones(3, 1))  # time itself, integrated


def test_too_small_a_bound_is_refused():
    with pytest.raises(ValueError, match="at least 2, got 1"):
        integrate_adaptive(lambda x, t: x, torch.zeros(1, 1), 1e-3, 1)


@given(st.integers(0, 1000), st.sampled_from([1e-2, 1e-3]))
@settings(max_examples=20, deadline=None)
def test_a_rows_result_does_not_depend_on_its_batch(seed, tolerance):
    random = torch.Generator().manual_seed(seed)
    start = torch.randn(6, 4, generator=random)
    rates = 10 ** torch.linspace(-1, 1, 6)[:, None]  # rows of very different stiffness

    def flow(rates):
        return lambda x, t: -rates * (x - t[:, None] ** 2)

    together = integrate_adaptive(flow(rates), start, tolerance, 60)
    for row in range(6):
        alone = integrate_adaptive(flow(rates[row : row + 1]), start[row : row + 1], tolerance, 60)
        assert torch.equal(together[row : row + 1], alone)


def distribution_function(sampling: str, time: float) -> float:
    if sampling == "uniform":
        return time
    if sampling == "beta":  # Beta(1.5, 1) of 1 - time/0.999
        return 1 - (1 - time / 0.999) ** 1.5
    return 0.5 * (1 + math.erf(math.log(time / (1 - time)) / math.sqrt(2)))


@pytest.mark.parametrize("sampling", ["uniform", "beta", "logit_normal"])
def test_times_have_their_distribution(sampling):
    times = sample_time(20_000, sampling, torch.device("cpu"), torch.Generator().manual_seed(0))
    assert times.dtype == torch.float32
    assert float(times.min()) >= 0
    assert float(times.max()) < 1
    for time in (0.1, 0.3, 0.5, 0.8, 0.95):
        share = float((times < time).float().mean())
        assert share == pytest.approx(distribution_function(sampling, time), abs=0.015)


def test_an_unknown_distribution_is_refused_by_name():
    with pytest.raises(ValueError, match="uniform, beta, logit_normal, got 'betta'"):
        sample_time(1, "betta", torch.device("cpu"))
