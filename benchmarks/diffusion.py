"""A denoising step of the default Diffusion U-Net (250 million parameters) on one thread. Prints one JSON line.

`ratio` is how many times faster a step is than the same network with PyTorch's own convolutions and FiLM over
[time, condition] computed at every step, as LeRobot and the authors have it; both give the same to `difference`.
`bf16_ratio`: the same in bfloat16 against that float32 network. `chunk_ratio`: a whole chunk of ten steps over the sum
of its parts, ten bare steps and the encoding of the observation. Times are medians of processor time in ms; the ways
take turns.

Each is measured at the paper's chunk size, 16, and at LeRobot's, 64; `ratio` is that of the last. At 16 most layers
have 4 or 8 steps, for which PyTorch multiplies matrices itself: reading the weights, 1 GB, is what a step then takes.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import statistics
import time
from collections.abc import Callable, Mapping

os.environ["OMP_NUM_THREADS"] = "1"

import torch
from torch import Tensor

from menura.policies.common import convolutions
from menura.policies.diffusion.configuration_diffusion import DiffusionPolicyConfig
from menura.policies.diffusion.modeling_diffusion import Condition, DiffusionPolicy

STATE_DIM, ACTION_DIM = 14, 14


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--chunk_sizes", type=int, nargs="+", default=[16, 64])
    parser.add_argument("--batch_size", type=int, default=1)
    parser.add_argument("--widths", type=int, nargs="+", default=[512, 1024, 2048])
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    torch.set_num_threads(1)
    policies = []
    for size in args.chunk_sizes:
        config = DiffusionPolicyConfig(
            state_dim=STATE_DIM, action_dim=ACTION_DIM, chunk_size=size, unet_widths=args.widths
        )
        policies.append(DiffusionPolicy(config))
        policies[-1].train(False)
    for policy in policies[1:]:
        policy.denoiser = policies[0].denoiser  # whose weights do not depend on the length
    observation = {"state": torch.randn(args.batch_size, 2, STATE_DIM)}
    with torch.inference_mode():
        found = [measure(policy, observation, args.rounds) for policy in policies]
    result: dict[str, object] = {
        "ratio": found[-1]["ratio"],
        "by_chunk_size": dict(zip(args.chunk_sizes, found, strict=True)),
        "parameters": sum(parameter.numel() for parameter in policies[0].parameters()),
    }
    print(json.dumps(result))


def measure(policy: DiffusionPolicy, observation: dict[str, Tensor], rounds: int) -> dict[str, float]:
    in_bfloat16 = copy.deepcopy(policy).bfloat16()
    noise, at, condition = inputs(policy, observation)
    half_noise, _, half_condition = inputs(in_bfloat16, observation)
    ways: dict[str, Callable[[], Tensor]] = {
        "eager": with_their_convolutions(lambda: policy.denoise(noise, at, policy.condition(observation))),
        "step": lambda: policy.denoise(noise, at, condition),
        "bf16": lambda: in_bfloat16.denoise(half_noise, at, half_condition),
    }
    difference = float((ways["eager"]() - ways["step"]()).abs().max())
    times = measured(ways, rounds)
    parts: dict[str, Callable[[], object]] = {
        "condition": lambda: policy.condition(observation),
        "steps": lambda: [policy.denoise(noise, at, condition) for _ in range(policy.config.n_inference_steps)],
        "chunk": lambda: policy.select_action(observation, noise=noise),
    }
    times |= measured(parts, max(1, rounds // 3))
    return {
        "ratio": round(times["eager"] / times["step"], 2),
        "bf16_ratio": round(times["eager"] / times["bf16"], 2),
        "chunk_ratio": round(times["chunk"] / (times["condition"] + times["steps"]), 3),
        "difference": difference,
        **{f"{name}_ms": round(own, 2) for name, own in times.items()},
    }


def inputs(policy: DiffusionPolicy, observation: dict[str, Tensor]) -> tuple[Tensor, Tensor, Condition]:
    rows = len(observation["state"])
    return torch.randn(rows, *policy.noise_shape), torch.full((rows,), 50), policy.condition(observation)


def measured(ways: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Median processor time of each way in ms, after one round that counts nothing."""
    times: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(rounds + 1):
        for name, way in ways.items():
            start = time.process_time()
            way()
            if number:
                times[name].append(1e3 * (time.process_time() - start))
    return {name: statistics.median(own) for name, own in times.items()}


def with_their_convolutions(way: Callable[[], Tensor]) -> Callable[[], Tensor]:
    """PyTorch's own, whatever the length."""

    def run() -> Tensor:
        most, convolutions.MOST_STEPS = convolutions.MOST_STEPS, 0
        try:
            return way()
        finally:
            convolutions.MOST_STEPS = most

    return run


if __name__ == "__main__":
    main()
