"""Real-time chunking against flows of known distributions, and in every policy that takes it."""

from __future__ import annotations

import inspect
import math
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor

from menura.chunks import PreviousChunk
from menura.components import BUILT_IN, load
from menura.features import CameraFeature, Features, VectorFeature
from menura.policies.checking.samples import make_batch
from menura.policies.common.diffusion import DiffusionProcess
from menura.policies.common.dpm_solver import sample_dpm
from menura.policies.common.flow_matching import integrate_adaptive, integrate_euler
from menura.policies.common.guidance import Guidance
from menura.policies.contract import build_policy

T, A = 12, 2
DEVIATION = 0.05
#: Two ways around an obstacle: (2, T, A).
WAYS = torch.stack([side * torch.sin(torch.linspace(0, math.pi, T))[:, None] * torch.ones(A) for side in (1.0, -1.0)])


def clean_of(sample: Tensor, signal: Tensor | float, noise: Tensor | float) -> Tensor:
    """What is expected of chunks near one of the two ways, given signal · chunk + noise · standard normal."""
    variance = signal**2 * DEVIATION**2 + noise**2
    apart = sample[:, None] - signal * WAYS  # (B, 2, T, A)
    share = (-apart.square().sum(dim=(2, 3)) / (2 * variance)).softmax(dim=1)  # which way it is
    each = WAYS + signal * DEVIATION**2 / variance * apart
    return (share[..., None, None] * each).sum(dim=1)


def velocity(sample: Tensor, time: Tensor) -> Tensor:
    tau = time[:1]  # all rows have the same where it is used
    return (clean_of(sample, tau, 1 - tau) - sample) / (1 - tau).clamp(min=1e-6)


def reversed_velocity(sample: Tensor, time: Tensor) -> Tensor:
    return -velocity(sample, 1 - time)


PROCESS = {kind: DiffusionProcess(kind, 100, prediction_type="sample") for kind in ("ddim", "ddpm")}


def denoise(sample: Tensor, time: Tensor) -> Tensor:
    step = next(step for step in PROCESS["ddim"].steps(100) if step.time == int(time[0]))
    return clean_of(sample, step.signal, step.noise)


def dpm_clean(sample: Tensor, time: Tensor) -> Tensor:
    share = PROCESS_1000.steps(1000)[999 - int(time[0])]
    return clean_of(sample, share.signal, share.noise)


PROCESS_1000 = DiffusionProcess("ddim", 1000, prediction_type="sample")


def ddpm(noise: Tensor, guidance: Guidance | None) -> Tensor:
    generators = [torch.Generator().manual_seed(row) for row in range(len(noise))]
    return PROCESS["ddpm"].sample(denoise, noise, 50, generator=generators, guidance=guidance)


SAMPLERS: dict[str, Any] = {
    "euler": lambda noise, guidance: integrate_euler(velocity, noise, 10, guidance=guidance),
    "reversed": lambda noise, guidance: integrate_euler(
        reversed_velocity, noise, 10, start=1.0, end=0.0, guidance=guidance
    ),
    "adaptive": lambda noise, guidance: torch.cat(
        [
            integrate_adaptive(
                velocity,
                noise[row : row + 1],
                1e-2,
                60,
                guidance=guidance and Guidance(guidance.target[row : row + 1], guidance.weights[row : row + 1]),
            )
            for row in range(len(noise))
        ]
    ),
    "ddim": lambda noise, guidance: PROCESS["ddim"].sample(denoise, noise, 20, guidance=guidance),
    "ddpm": ddpm,
    "dpm": lambda noise, guidance: sample_dpm(dpm_clean, noise, 10, guidance=guidance),
}
every_sampler = pytest.mark.parametrize("sampler", SAMPLERS.values(), ids=SAMPLERS)


def guidance_of(target: Tensor, delay: int, horizon: int = 4) -> Guidance:
    """Of chunks (B, T, A), the first `delay` actions frozen."""
    weights = torch.from_numpy(PreviousChunk(target[0, : T - horizon].numpy(), delay).weights(T))
    return Guidance(target, weights.expand(len(target), -1))


def way_of(chunks: Tensor) -> Tensor:
    """(B,): which of the two ways each chunk is on."""
    return (chunks[:, None] - WAYS).square().sum(dim=(2, 3)).argmin(dim=1)


@every_sampler
def test_a_chunk_goes_the_way_that_the_one_under_way_goes(sampler):
    noise = torch.randn(16, T, A, generator=torch.Generator().manual_seed(0))
    free = sampler(noise, None)
    assert set(way_of(free).tolist()) == {0, 1}, "left alone, it goes either way"
    target = WAYS[1].expand(16, -1, -1)
    chunks = sampler(noise, guidance_of(target, delay=5))
    assert (way_of(chunks) == 1).all()
    error = (chunks - target)[:, :5].abs().max()
    assert error < 4 * DEVIATION  # what is frozen
    # The rest is one of the chunks that there are: as near to the way as those left alone, without a jump.
    assert (chunks - WAYS[1]).abs().max() < 6 * DEVIATION
    assert (chunks.diff(dim=1) - WAYS[1].diff(dim=0)).abs().max() < 8 * DEVIATION


@every_sampler
def test_without_weights_nothing_is_moved(sampler):
    noise = torch.randn(3, T, A, generator=torch.Generator().manual_seed(0))
    nothing = Guidance(torch.randn(3, T, A), torch.zeros(3, T))
    torch.testing.assert_close(sampler(noise, nothing), sampler(noise, None), rtol=1e-4, atol=1e-4)


def test_a_flow_that_can_be_anything_meets_its_target():
    noise, target = torch.randn(4, T, A), torch.randn(4, T, A)
    for n_steps in (1, 2, 5, 10):  # β is no more than the steps, or the error would grow
        chunk = integrate_euler(lambda x, t: torch.zeros_like(x), noise, n_steps, guidance=guidance_of(target, 6))
        before, after = (noise - target)[:, :6].abs().max(), (chunk - target)[:, :6].abs().max()
        assert after <= 0.4 * before
        torch.testing.assert_close(chunk[:, -4:], noise[:, -4:])  # the horizon owes nothing


def test_the_guided_velocity_is_the_papers():
    """By hand, for the velocity v = c · A of one number: Â = A (1 + (1 - τ) c), whose gradient is 1 + (1 - τ) c."""
    from menura.policies.common.guidance import guided

    c, sample, target, weight = 0.3, 0.7, -0.2, 0.6
    guidance = Guidance(torch.full((1, 1, 1), target), torch.full((1, 1), weight))
    for tau in (0.0, 0.1, 0.5, 0.9):
        gradient = 1 + (1 - tau) * c
        r_squared = (1 - tau) ** 2 / (tau**2 + (1 - tau) ** 2)
        strength = 5.0 if tau == 0 else min(5.0, (1 - tau) / (tau * r_squared))
        wanted = c * sample + strength * (target - sample * gradient) * weight * gradient
        got = guided(lambda x, t: c * x, guidance, 10)(torch.full((1, 1, 1), sample), torch.tensor([tau]))
        assert float(got) == pytest.approx(wanted, rel=1e-5)
        back = guided(lambda x, t: -c * x, guidance, 10, start=1.0, end=0.0)
        assert float(back(torch.full((1, 1, 1), sample), torch.tensor([1 - tau]))) == pytest.approx(-wanted, rel=1e-5)


def test_diffusion_is_guided_as_the_flow_that_it_is():
    """A DDIM step is Euler's in x / (signal + noise), whose time is signal / (signal + noise)."""
    noise = torch.randn(4, T, A, generator=torch.Generator().manual_seed(1))
    guidance = guidance_of(WAYS[:1].expand(4, -1, -1), 5)
    process = PROCESS["ddim"]
    step = process.steps(10)[4]
    whole, after = step.signal + step.noise, step.signal_before + step.noise_before
    start, end = step.signal / whole, step.signal_before / after
    sample = start * WAYS[0] + (1 - start) * noise

    from menura.policies.common.guidance import guided

    moved = guided(velocity, guidance, 10)(sample, torch.full((4,), start))
    got = process._before(
        step, *process._guided(step, denoise, whole * sample, guidance, 10, None), whole * sample, None
    )
    torch.testing.assert_close(got / after, sample + (end - start) * moved, rtol=1e-4, atol=1e-4)


def test_a_guidance_is_placed_in_a_larger_sample():
    guidance = Guidance(torch.arange(1.0, 7).reshape(1, 3, 2), torch.tensor([[1.0, 0.5, 0.25]]))
    placed = guidance.placed((4, 5), first=2, columns=[3, 1])
    assert placed.target[0].tolist() == [[0] * 5, [0] * 5, [0, 2, 0, 1, 0], [0, 4, 0, 3, 0]]
    assert placed.weights[0].tolist() == [[0] * 5, [0] * 5, [0, 1, 0, 1, 0], [0, 0.5, 0, 0.5, 0]]


SECTIONS = Path(inspect.getfile(Features)).parent / "configs" / "policy" / "tiny"
GUIDED = [
    ("flow", {}), ("flow", {"solver": "adaptive", "n_inference_steps": 8}), ("dit_multitask", {"objective": "flow"}),
    ("dit_multitask", {"prediction_type": "epsilon"}), ("diffusion", {"n_obs_steps": 2, "n_inference_steps": 5}),
    ("octo", {}), ("rdt", {}), ("pi0", {}), ("pi05", {}), ("smolvla", {}), ("qwen_vl_diffusion", {}),
    ("openvla", {"head": "diffusion"}),
]  # fmt: skip
FEATURES = Features(
    VectorFeature.of_width(5, "state"),
    VectorFeature.of_width(3, "action"),
    {"front": CameraFeature(32, 32)},
    10.0,
    True,
)


def made(name: str, args: dict[str, Any]) -> Any:
    section = yaml.safe_load((SECTIONS / f"{name}.yaml").read_text())
    torch.manual_seed(0)
    policy_class = load("policy", section["class"], Path.cwd())
    return build_policy(policy_class, section["args"] | args, FEATURES).eval()


def test_every_policy_that_samples_by_noise_takes_it():
    guided = set()
    for name in BUILT_IN["policy"]:
        policy_class = load("policy", name, Path.cwd())
        takes_it = "guidance" in inspect.signature(policy_class.select_action).parameters
        assert takes_it == hasattr(policy_class, "denoise"), name
        if takes_it:
            guided.add(policy_class.config_class.model_type.removeprefix("menura_"))
    assert guided == {name for name, _ in GUIDED}


@pytest.mark.parametrize(("name", "args"), GUIDED, ids=[f"{name}-{'-'.join(map(str, args))}" for name, args in GUIDED])
def test_a_policys_chunk_comes_nearer_to_the_one_under_way(name, args):
    policy = made(name, args)
    obs = make_batch(policy.config, FEATURES, None, 2, 0)
    obs = {key: value for key, value in obs.items() if key not in ("actions", "is_pad")}
    noise = torch.randn(2, *policy.noise_shape)
    with torch.inference_mode():  # what is kept of it must not stand in the way of gradients
        free = policy.select_action(dict(obs), noise=noise)
    with torch.inference_mode():
        again = policy.select_action(dict(obs), noise=noise, guidance=None)
    assert torch.equal(free, again)
    free, length = free.clone(), policy.config.chunk_size
    target = torch.zeros(2, length, 3)
    target[:, : free.shape[1]] = 0.7 * free  # which lies within what the policy can answer
    weights = torch.zeros(2, length)
    weights[:, : free.shape[1] // 2] = 1.0
    with torch.no_grad():
        chunk = policy.select_action(dict(obs), noise=noise, guidance=Guidance(target, weights))
    assert chunk.shape == free.shape
    assert torch.isfinite(chunk).all()
    frozen = free.shape[1] // 2
    error, before = ((x - target[:, : free.shape[1]])[:, :frozen].square().mean() for x in (chunk, free))
    assert error < before
    assert all(parameter.grad is None for parameter in policy.parameters())
