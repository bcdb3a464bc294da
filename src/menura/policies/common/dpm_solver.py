"""DPM-Solver++(2M): a chunk from noise in few steps (Lu et al. 2022, arXiv 2211.01095, algorithm 2).

The steps and numbers are those of `diffusers.DPMSolverMultistepScheduler` as it is by default (order 2, midpoint, last
step of order 1, ending without noise), with coefficients worked out once and no state between chunks.

Shapes: B batch, T chunk, A action.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from diffusers import DPMSolverMultistepScheduler
from torch import Tensor

from .guidance import Guidance, guided_clean


class Step(NamedTuple):
    """One step: at which time of training the clean chunk is guessed, the shares of signal and noise then, and the
    shares the next chunk is made of."""

    time: int
    signal: float
    noise: float
    sample: float
    guess: float
    previous_guess: float


def sample_dpm(
    predict_clean: Callable[[Tensor, Tensor], Tensor],
    noise: Tensor,
    n_inference_steps: int,
    n_train_steps: int = 1000,
    beta_schedule: str = "squaredcos_cap_v2",
    guidance: Guidance | None = None,
) -> Tensor:
    """A chunk (B, T, A) in float32.

    Args:
        predict_clean: (sample (B, T, A), time (B,) int64) -> the chunk without noise (B, T, A).
        noise: standard normal (B, T, A), where the steps start from.
        n_inference_steps: steps, evenly spaced over the times of training.
        n_train_steps: times 0 … n - 1 of training.
        beta_schedule: as of the schedulers of `diffusers`.
        guidance: of the whole chunk, towards which it is denoised.
    """
    sample = noise.float()
    previous = torch.zeros_like(sample)
    for step in dpm_steps(n_inference_steps, n_train_steps, beta_schedule):
        time = torch.full((len(sample),), step.time, device=sample.device)
        if guidance is None:
            guess = predict_clean(sample, time).float()
        else:
            predict = functools.partial(_at, predict_clean, time)
            guess = guided_clean(predict, sample, guidance, step.signal, step.noise, n_inference_steps)
        sample = step.sample * sample + step.guess * guess + step.previous_guess * previous
        previous = guess
    return sample


def _at(predict_clean: Callable[[Tensor, Tensor], Tensor], time: Tensor, sample: Tensor) -> Tensor:
    return predict_clean(sample, time).float()


@functools.cache
def dpm_steps(n_inference_steps: int, n_train_steps: int, beta_schedule: str) -> tuple[Step, ...]:
    """The steps, the noisiest first."""
    with torch.device("cpu"):
        scheduler: Any = DPMSolverMultistepScheduler(  # type: ignore[no-untyped-call]
            num_train_timesteps=n_train_steps, beta_schedule=beta_schedule, prediction_type="sample"
        )
        scheduler.set_timesteps(n_inference_steps)
    ratios = [float(ratio) for ratio in scheduler.sigmas]  # noise / signal at each time, and 0 at the end
    signals = [1 / math.sqrt(ratio**2 + 1) for ratio in ratios]
    noises = [ratio * signal for ratio, signal in zip(ratios, signals, strict=True)]
    logs = [math.inf if ratio == 0 else -math.log(ratio) for ratio in ratios]  # λ, half the log of signal² / noise²
    steps = []
    for i, time in enumerate(scheduler.timesteps):
        length = logs[i + 1] - logs[i]  # h
        growth = -signals[i + 1] * math.expm1(-length)
        # Order 2 leans on the guess before; the first step has none, and the last one's length is infinite.
        lean = 0.0 if i in (0, n_inference_steps - 1) else 0.5 * length / (logs[i] - logs[i - 1])
        shares = (noises[i + 1] / noises[i], growth * (1 + lean), -growth * lean)
        steps.append(Step(int(time), signals[i], noises[i], *shares))
    return tuple(steps)
