"""Denoising diffusion of action chunks: noise added in training, taken away step by step when acting.

DDPM (Ho et al. 2020, arXiv 2006.11239) and DDIM (Song et al. 2021, arXiv 2010.02502). Noise schedules, times and the
forward process are those of `diffusers`; the step back is written here, because the clipping follows the data and its
coefficients are plain numbers, worked out once instead of at every step.

Shapes: B batch, T chunk, A action.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import DDPMScheduler
from torch import Tensor

from .guidance import Guidance, clipped, guided_clean
from .noise import draw_noise

SCHEDULERS = ("ddpm", "ddim")
PREDICTION_TYPES = ("epsilon", "sample", "v_prediction")
#: The least variance of a DDPM step: diffusers' own for `variance_type="fixed_small"`.
LEAST_VARIANCE = 1e-20

Denoise = Callable[[Tensor, Tensor], Tensor]


@torch.no_grad()
def widen_bound(bound: Tensor, clean: Tensor) -> None:
    """Let `bound` (A,) grow, in place, to the largest absolute values of the chunks (B, T, A) of a training.

    Guesses of a chunk are clipped to it when acting: those from almost pure noise would run away, and how large
    normalized actions are depends on the data and on how it is normalized.
    """
    bound.copy_(torch.maximum(bound, clean.abs().amax(dim=(0, 1))))


@dataclass(frozen=True)
class Step:
    """One step back, from `time` to the time before it: the share of signal and noise before and after."""

    time: int
    signal: float
    noise: float
    signal_before: float
    noise_before: float


class DiffusionProcess:
    """The two directions of one diffusion process. It holds no weights and no state of a chunk.

    Args:
        scheduler: `ddpm` draws noise at every step back; `ddim` none, and needs a tenth of the steps.
        n_diffusion_steps: times 0 … n - 1 of training.
        beta_schedule, beta_start, beta_end: as of the schedulers of `diffusers`; the last two are without effect on
            `squaredcos_cap_v2`.
        prediction_type: what the denoiser says of a noisy chunk: its noise (`epsilon`), the chunk without it
            (`sample`), or `v_prediction` (Salimans & Ho 2022, arXiv 2202.00512).

    Raises:
        ValueError: an unknown `scheduler` or `prediction_type`.
    """

    def __init__(
        self,
        scheduler: str = "ddim",
        n_diffusion_steps: int = 100,
        beta_schedule: str = "squaredcos_cap_v2",
        beta_start: float = 1e-4,
        beta_end: float = 0.02,
        prediction_type: str = "epsilon",
    ) -> None:
        if scheduler not in SCHEDULERS:
            raise ValueError(f"scheduler: expected one of {', '.join(SCHEDULERS)}, got {scheduler!r}.")
        if prediction_type not in PREDICTION_TYPES:
            raise ValueError(
                f"prediction_type: expected one of {', '.join(PREDICTION_TYPES)}, got {prediction_type!r}."
            )
        self.draws_noise = scheduler == "ddpm"
        self.n_diffusion_steps = n_diffusion_steps
        self.prediction_type = prediction_type
        with torch.device("cpu"):  # a checkpoint is loaded with the meta device as default
            # Both have the same schedule, times and forward process.
            self._scheduler: Any = DDPMScheduler(  # type: ignore[no-untyped-call]
                num_train_timesteps=n_diffusion_steps,
                beta_schedule=beta_schedule,
                beta_start=beta_start,
                beta_end=beta_end,
                prediction_type=prediction_type,
            )
        self._steps: dict[int, tuple[Step, ...]] = {}

    def draw_times(self, size: int, device: torch.device) -> Tensor:
        """(size,) int64: a time of training for each row, all equally likely."""
        return torch.randint(self.n_diffusion_steps, (size,), device=device)

    def add_noise(self, clean: Tensor, noise: Tensor, time: Tensor) -> Tensor:
        """What `clean` (B, T, A) has become at `time` (B,)."""
        noisy: Tensor = self._scheduler.add_noise(clean, noise, time)
        return noisy

    def target(self, clean: Tensor, noise: Tensor, time: Tensor) -> Tensor:
        """What a denoiser ought to say of `add_noise(clean, noise, time)`."""
        if self.prediction_type == "epsilon":
            return noise
        if self.prediction_type == "sample":
            return clean
        velocity: Tensor = self._scheduler.get_velocity(clean, noise, time)
        return velocity

    def sample(
        self,
        denoise: Denoise,
        noise: Tensor,
        n_inference_steps: int,
        bound: Tensor | float | None = None,
        generator: Sequence[torch.Generator] | None = None,
        guidance: Guidance | None = None,
    ) -> Tensor:
        """A chunk (B, T, A) in float32, from noise of that shape.

        Args:
            denoise: (sample (B, T, A), time (B,) int64) -> (B, T, A), of the `prediction_type`.
            noise: standard normal, where the steps start from.
            n_inference_steps: steps back, evenly spaced over the times of training.
            bound: the largest absolute value of a clean chunk, to which every guess of one is clipped; a number or
                one a dimension (A,). None for no clipping.
            generator: one a row, for the noise of `ddpm`.
            guidance: of the whole chunk, towards which it is denoised.
        """
        sample = noise.float()
        for step in self.steps(n_inference_steps):
            if guidance is None:
                time = torch.full((len(sample),), step.time, device=sample.device)
                sample = self.step_back(step, denoise(sample, time).float(), sample, bound, generator)
            else:
                clean, epsilon = self._guided(step, denoise, sample, guidance, n_inference_steps, bound)
                sample = self._before(step, clean, epsilon, sample, generator)
        return sample

    def steps(self, n_inference_steps: int) -> tuple[Step, ...]:
        """The steps back, the noisiest first.

        Raises:
            ValueError: more steps than times of training.
        """
        if n_inference_steps not in self._steps:
            self._scheduler.set_timesteps(n_inference_steps)
            times = [int(time) for time in self._scheduler.timesteps]
            shares = [float(share) for share in self._scheduler.alphas_cumprod.double()]
            befores = [shares[time] for time in times[1:]] + [1.0]
            self._steps[n_inference_steps] = tuple(
                Step(time, math.sqrt(shares[time]), math.sqrt(1 - shares[time]), math.sqrt(b), math.sqrt(1 - b))
                for time, b in zip(times, befores, strict=True)
            )
        return self._steps[n_inference_steps]

    def step_back(
        self,
        step: Step,
        output: Tensor,
        sample: Tensor,
        bound: Tensor | float | None = None,
        generator: Sequence[torch.Generator] | None = None,
    ) -> Tensor:
        """The chunk at the time before, from what the denoiser said of `sample`; arguments as of `sample`."""
        clean, epsilon = self._clean_and_noise(step, output, sample)
        return self._before(step, clipped(clean, bound), epsilon, sample, generator)

    def _guided(
        self,
        step: Step,
        denoise: Denoise,
        sample: Tensor,
        guidance: Guidance,
        n_inference_steps: int,
        bound: Tensor | float | None,
    ) -> tuple[Tensor, Tensor]:
        """The guided guess of the clean chunk, and the noise that is left; arguments as of `sample`."""
        time = torch.full((len(sample),), step.time, device=sample.device)

        def predict(sample: Tensor) -> Tensor:
            return self._clean_and_noise(step, denoise(sample, time).float(), sample)[0]

        clean = guided_clean(predict, sample, guidance, step.signal, step.noise, n_inference_steps, bound)
        return clean, (sample - step.signal * clean) / step.noise

    def _before(
        self,
        step: Step,
        clean: Tensor,
        epsilon: Tensor,
        sample: Tensor,
        generator: Sequence[torch.Generator] | None,
    ) -> Tensor:
        """The chunk at the time before `step`, from the guess of the clean one and of the noise."""
        if not self.draws_noise:
            return step.signal_before * clean + step.noise_before * epsilon  # DDIM equation 12, eta = 0
        # DDPM equations 6 and 7, for steps that may be longer than one.
        kept = step.signal / step.signal_before  # square root of this step's alpha
        added, variance = 1 - kept**2, step.noise**2
        mean = (step.signal_before * added / variance) * clean + (kept * step.noise_before**2 / variance) * sample
        if step.time == 0:
            return mean
        deviation = math.sqrt(max(step.noise_before**2 / variance * added, LEAST_VARIANCE))
        return mean + deviation * draw_noise(sample.shape, sample, generator)

    def _clean_and_noise(self, step: Step, output: Tensor, sample: Tensor) -> tuple[Tensor, Tensor]:
        """What the denoiser's output says the chunk is without noise, and the noise."""
        if self.prediction_type == "epsilon":
            return (sample - step.noise * output) / step.signal, output
        if self.prediction_type == "sample":
            return output, (sample - step.signal * output) / step.noise
        return step.signal * sample - step.noise * output, step.signal * output + step.noise * sample
