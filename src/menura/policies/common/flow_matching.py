"""Flow matching along straight paths: what is regressed in training, and the solvers that sample.

Time runs from 0, noise, to 1, data (Lipman et al. 2023, arXiv 2210.02747; Liu et al. 2023, arXiv 2209.03003). Solvers
take `start` and `end`, so that networks trained the other way round (openpi: 1 is noise) use them with (1, 0).

Shapes: B batch; samples are (B, …), times (B,).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from .guidance import Guidance, guided

#: (sample (B, …), time (B,)) -> velocity (B, …).
Velocity = Callable[[Tensor, Tensor], Tensor]

TIME_SAMPLINGS = ("uniform", "beta", "logit_normal")
LATEST_TIME = 0.999  # of `beta`: s in appendix B of the π0 paper

# Of the adaptive solver: the usual safety factor, and how much a step may shrink or grow at a time (Hairer, Nørsett &
# Wanner, "Solving Ordinary Differential Equations I", section II.4).
_SAFETY, _SHRINK, _GROW = 0.9, 0.2, 5.0


def sample_time(
    n: int, sampling: str, device: torch.device, generator: torch.Generator | None = None, alpha: float = 1.5
) -> Tensor:
    """Times (n,) float32 in [0, 1) to train at.

    Args:
        n: how many.
        sampling: `uniform`; `beta`: 0.999 (1 - Beta(alpha, 1)), more often near noise (Black et al. 2024, arXiv
            2410.24164, appendix B); `logit_normal`: more often in the middle (Esser et al. 2024, arXiv 2403.03206).
        device: of the result and of the generator.
        generator: None draws from PyTorch's own.
        alpha: of `beta`; 1 is uniform.
    """
    if sampling == "logit_normal":
        return torch.randn(n, device=device, generator=generator).sigmoid()
    uniform = torch.rand(n, device=device, generator=generator)
    if sampling == "uniform":
        return uniform
    if sampling == "beta":
        return LATEST_TIME * (1 - uniform.pow(1 / alpha))  # the inverse of Beta(alpha, 1)'s distribution function
    raise ValueError(f"time sampling: expected one of {', '.join(TIME_SAMPLINGS)}, got {sampling!r}.")


def interpolate(noise: Tensor, data: Tensor, time: Tensor) -> Tensor:
    """The point at `time` (B,) of the straight path from `noise` to `data`, both (B, …)."""
    return noise + _broadcast(time, noise) * (data - noise)


def path_velocity(noise: Tensor, data: Tensor) -> Tensor:
    """The constant velocity of that path: what the network learns to predict."""
    return data - noise


def integrate_euler(
    velocity: Velocity,
    sample: Tensor,
    n_steps: int,
    *,
    start: float = 0.0,
    end: float = 1.0,
    guidance: Guidance | None = None,
) -> Tensor:
    """The sample (B, …) moved from time `start` to `end` in equal steps, one evaluation each; towards `guidance`, of
    the whole sample, where there is one."""
    if guidance is not None:
        velocity = guided(velocity, guidance, n_steps, start=start, end=end)
    step = (end - start) / n_steps
    for i in range(n_steps):
        sample = sample + step * velocity(sample, sample.new_full((len(sample),), start + i * step))
    return sample


def integrate_adaptive(
    velocity: Velocity,
    sample: Tensor,
    tolerance: float,
    max_evaluations: int,
    *,
    start: float = 0.0,
    end: float = 1.0,
    guidance: Guidance | None = None,
) -> Tensor:
    """The sample (B, …) moved from `start` to `end` in steps as long as the tolerance allows.

    Heun's method, whose difference from Euler's estimates the error of a step. Every row has a time and a step length
    of its own, so that its result does not depend on the batch; the batch goes on until its last row is there.

    Args:
        velocity: of the flow.
        sample: (B, …) at time `start`.
        tolerance: greatest error of a step, as a root mean square over the row, in the units of the sample.
        max_evaluations: of `velocity`, at least 2. The bound is always kept: steps are never shorter than what is
            left to go divided by the number of steps left, even where the tolerance asks for it.
        start: time of the sample given.
        end: time of the sample returned.
        guidance: of the whole sample, towards which it moves.
    """
    if max_evaluations < 2:
        raise ValueError(f"adaptive steps: expected max_evaluations of at least 2, got {max_evaluations}.")
    n_steps, span = max_evaluations // 2, end - start
    if guidance is not None:
        velocity = guided(velocity, guidance, n_steps, start=start, end=end)

    def slope_at(sample: Tensor, progress: Tensor) -> Tensor:
        return span * velocity(sample, start + span * progress)

    progress = sample.new_zeros(len(sample))  # (B,): the share of the way from start to end
    step = torch.full_like(progress, max(0.1, 1 / n_steps))
    slope = slope_at(sample, progress)
    for steps_left in range(n_steps, 0, -1):
        rest = 1 - progress
        least = rest / steps_left
        step = step.maximum(least).minimum(rest)  # 0 for rows that are there, which therefore stay
        there = torch.where(step < rest, progress + step, 1.0)
        euler = sample + _broadcast(step, sample) * slope
        correction = _broadcast(step / 2, sample) * (slope_at(euler, there) - slope)
        error = correction.flatten(1).square().mean(dim=1).sqrt() / tolerance
        accepted = (error <= 1) | (step <= least)
        sample = torch.where(_broadcast(accepted, sample), euler + correction, sample)
        progress = torch.where(accepted, there, progress)
        if bool((progress == 1).all()):
            break
        step = step * (_SAFETY * error.rsqrt()).clamp(_SHRINK, _GROW)  # the error of a step grows with its square
        if bool(accepted.any()):  # rows that try again start from the slope they have
            slope = torch.where(_broadcast(accepted, slope), slope_at(sample, progress), slope)
    return sample


def _broadcast(rows: Tensor, like: Tensor) -> Tensor:
    """(B,) -> (B, 1, …), with as many axes as `like`."""
    return rows.reshape(-1, *[1] * (like.ndim - 1))
