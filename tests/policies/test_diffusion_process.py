"""The diffusion process against the schedulers of `diffusers`."""

from __future__ import annotations

import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler

from menura.policies.common.diffusion import PREDICTION_TYPES, SCHEDULERS, DiffusionProcess
from menura.policies.common.noise import draw_noise

every_kind = pytest.mark.parametrize(
    ("scheduler", "prediction_type"), [(s, p) for s in SCHEDULERS for p in PREDICTION_TYPES]
)


def reference(scheduler: str, prediction_type: str, clip: bool) -> DDIMScheduler | DDPMScheduler:
    return {"ddpm": DDPMScheduler, "ddim": DDIMScheduler}[scheduler](
        num_train_timesteps=100,
        beta_schedule="squaredcos_cap_v2",
        prediction_type=prediction_type,
        clip_sample=clip,
        clip_sample_range=1.0,
    )


def denoise(sample: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
    return torch.tanh(sample * 1.7 + time[:, None, None] / 100)


@every_kind
@pytest.mark.parametrize(("steps", "clip"), [(10, True), (100, True), (7, False)])
def test_samples_are_those_of_diffusers(scheduler, prediction_type, steps, clip):
    noise = torch.randn(3, 8, 2, generator=torch.Generator().manual_seed(0))
    process = DiffusionProcess(scheduler, prediction_type=prediction_type)
    seeds = [torch.Generator().manual_seed(row) for row in range(3)]
    got = process.sample(denoise, noise, steps, bound=1.0 if clip else None, generator=seeds)

    theirs = reference(scheduler, prediction_type, clip)
    theirs.set_timesteps(steps)
    seeds = [torch.Generator().manual_seed(row) for row in range(3)]
    sample = noise
    for time in theirs.timesteps:
        # diffusers draws the rows' noise as (1, T, A) each: the same numbers.
        sample = theirs.step(denoise(sample, time.expand(3)), time, sample, generator=seeds).prev_sample
    torch.testing.assert_close(got, sample, rtol=1e-4, atol=1e-5)


@every_kind
def test_a_denoiser_that_knows_the_answer_gives_it(scheduler, prediction_type):
    clean = torch.rand(2, 4, 3, generator=torch.Generator().manual_seed(1)) * 2 - 1
    process = DiffusionProcess(scheduler, prediction_type=prediction_type)

    def oracle(sample: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
        step = next(step for step in process.steps(10) if step.time == time[0])
        return process.target(clean, (sample - step.signal * clean) / step.noise, time)

    got = process.sample(oracle, torch.randn(2, 4, 3), 10)
    torch.testing.assert_close(got, clean, rtol=1e-3, atol=1e-3)


def test_bounds_may_differ_by_dimension():
    bound = torch.tensor([0.5, 2.0, 1.0])
    process = DiffusionProcess("ddim", prediction_type="sample")
    got = process.sample(lambda sample, time: torch.full_like(sample, 5.0), torch.randn(2, 4, 3), 10, bound=bound)
    torch.testing.assert_close(got, bound.expand(2, 4, 3))


def test_a_row_depends_on_its_own_generator_alone():
    process = DiffusionProcess("ddpm")

    def run(seeds: list[int]) -> torch.Tensor:
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        noise = draw_noise((len(seeds), 8, 2), torch.zeros(()), generators)
        return process.sample(denoise, noise, 10, bound=1.0, generator=generators)

    assert torch.equal(run([3, 4, 5])[1:2], run([4]))


def test_wrong_words_are_refused():
    with pytest.raises(ValueError, match="expected one of ddpm, ddim, got 'euler'"):
        DiffusionProcess("euler")
    with pytest.raises(ValueError, match="expected one of epsilon, sample, v_prediction, got 'noise'"):
        DiffusionProcess(prediction_type="noise")
    with pytest.raises(ValueError, match="num_inference_steps"):
        DiffusionProcess(n_diffusion_steps=10).steps(11)


def test_it_can_be_made_where_weights_are_not():
    with torch.device("meta"):
        process = DiffusionProcess()
    assert process.steps(10)[0].time == 90
