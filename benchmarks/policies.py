"""How long policies take to answer, and how much of that is the policy itself.

Prints one JSON line; on stderr what is measured, as it is (`bc_rnn` looks at ten pictures of each camera: 64 rows of
them take ten minutes). Each policy is made from its section (`configs/policy/<name>.yaml`, or `tiny/<name>`) with
random weights; two cameras of 240x320 where it takes images. For each batch size:

    median_ms, p99_ms   raw observation -> physical chunk (`MetaPolicy.predict`)
    outside             the share of the median that is not the model (`select_action` on inputs that are ready)
    steps               of a policy that samples: `select_action` / (one `condition`, `n_inference_steps` `denoise`), in
                        processor time
    queued_us           a step of a session whose action is queued already (batch 1)

`ratio` is the least share that was the model's own.

    python benchmarks/policies.py [act diffusion tiny/pi0 …] [--batches 1 8 64] [--repeats 30] [--threads 1] [--bf16]
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
import yaml

from menura import components
from menura.config import ProcessorConfig
from menura.config.sections import PACKAGE
from menura.data import compute_statistics
from menura.evaluation.latency import measure_latency
from menura.features import CameraFeature, Features, VectorFeature
from menura.meta_policy import MetaPolicy
from menura.policies.contract import Contract, build_policy
from menura.policies.needs import config_parameters
from menura.processing.processor import Processor

POLICIES = ("mlp", "cnn_mlp", "bc_rnn", "act", "diffusion", "flow", "vqbet")
STATE, ACTION, SIZE = 14, 14, (240, 320)


def make(section: str) -> MetaPolicy:
    """The policy of a section, with random weights and the statistics of random data."""
    spec = yaml.safe_load((PACKAGE / "configs" / "policy" / f"{section}.yaml").read_text())
    policy_class: Any = components.load("policy", spec["class"], PACKAGE)
    contract = Contract.of(policy_class)
    args = dict(spec.get("args") or {})
    known = config_parameters(policy_class.config_class)
    pixels = "image" in contract.keys and "camera_names" in known
    if pixels and "image_size" in known and "image_size" not in args and known["image_size"].default is not None:
        args["image_size"] = list(SIZE)
    cameras = {name: CameraFeature(*SIZE) for name in ("front", "wrist")} if pixels else {}
    features = Features(
        VectorFeature.of_width(STATE, "state"), VectorFeature.of_width(ACTION, "action"), cameras, 30.0, language=True
    )
    policy = build_policy(policy_class, args, features).eval()
    rng = np.random.default_rng(0)
    data = {
        "bench": {
            key: compute_statistics(rng.normal(size=(100, width)).astype(np.float32))
            for key, width in (("state", STATE), ("action", ACTION))
        }
    }
    processor = Processor.build(ProcessorConfig(), features, data, policy.config, uses=contract.keys)
    return MetaPolicy(policy, processor)


def observation(meta: MetaPolicy, rows: int) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    time_axis = () if meta.n_obs_steps == 1 else (meta.n_obs_steps,)
    seen: dict[str, Any] = {"state": rng.normal(size=(rows, *time_axis, STATE)).astype(np.float32)}
    seen["task"] = ["put the cube into the cup"] * rows
    images = {camera: rng.integers(0, 256, (rows, *time_axis, *SIZE, 3), np.uint8) for camera in meta.required_cameras}
    return {**seen, "images": images} if images else seen


def processor_seconds(calls: Sequence[Callable[[], Any]], repeats: int) -> list[float]:
    """The median processor time of each, taking turns, after one round that counts nothing."""
    times: list[list[float]] = [[] for _ in calls]
    for number in range(repeats + 1):
        for call, own in zip(calls, times, strict=True):
            start = time.process_time()
            call()
            if number:
                own.append(time.process_time() - start)
    return [statistics.median(own) for own in times]


def of_steps(meta: MetaPolicy, obs: dict[str, Any], repeats: int) -> float | None:
    """What sampling costs beside its parts; None of a policy that does not sample step by step."""
    policy: Any = meta.policy
    if not hasattr(policy, "denoise"):
        return None
    inputs = meta.inputs(obs)
    rows = len(obs["state"])
    noise = torch.randn(rows, *policy.noise_shape)
    times = torch.full((rows,), 0.5)
    with torch.inference_mode():
        condition = policy.condition(inputs)
        ways: list[Callable[[], Any]] = [
            lambda: policy.select_action(inputs, noise=noise),
            lambda: policy.condition(inputs),
            lambda: [policy.denoise(noise, times, condition) for _ in range(policy.config.n_inference_steps)],
        ]
        whole, once, steps = processor_seconds(ways, repeats)
    return whole / (once + steps)


def queued_us(meta: MetaPolicy, repeats: int = 200) -> float | None:
    """Microseconds of a queued step; None of a policy that answers one action at a time."""
    if meta.n_action_steps < 2:
        return None
    session = meta.session(1, seeds=[0])
    obs = observation(meta, 1)
    if meta.n_obs_steps > 1:  # a session keeps the history itself
        obs["state"] = obs["state"][:, -1]
        if "images" in obs:
            obs["images"] = {camera: frames[:, -1] for camera, frames in obs["images"].items()}
    times = []
    while len(times) < repeats:
        queued = not session.needs_observation()[0]
        start = time.perf_counter()
        session.select_action(None if queued else obs)
        if queued:
            times.append(time.perf_counter() - start)
        elif times and meta.n_obs_steps > 1 and time.perf_counter() - start > 1:
            break  # slow policies: what was measured is enough
    return statistics.median(times) * 1e6 if times else None


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("sections", nargs="*", default=list(POLICIES))
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8, 64])
    parser.add_argument("--repeats", type=int, default=30)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--bf16", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    answers: dict[str, Any] = {}
    for section in args.sections:
        meta = make(section)
        if args.bf16:
            meta.policy.to(torch.bfloat16)
        rows: dict[str, Any] = {"parameters": sum(p.numel() for p in meta.policy.parameters())}
        for batch in args.batches:
            obs = observation(meta, batch)
            repeats = max(3, args.repeats // batch)
            latency = measure_latency(meta, obs, repeats=repeats)
            rows[f"batch_{batch}"] = {
                "median_ms": round(latency.median, 3),
                "p99_ms": round(latency.p99, 3),
                "outside": round(latency.outside, 4),
            }
            print(f"{section}, {batch} rows: {rows[f'batch_{batch}']}", file=sys.stderr)
            if batch == 1 and (steps := of_steps(meta, obs, repeats)) is not None:
                rows["steps"] = round(steps, 3)
        if (queued := queued_us(meta)) is not None:
            rows["queued_us"] = round(queued, 1)
        answers[section] = rows
    outside = [rows[f"batch_{batch}"]["outside"] for rows in answers.values() for batch in args.batches]
    print(json.dumps({"threads": args.threads, "policies": answers, "ratio": round(1 - max(outside), 4)}))


if __name__ == "__main__":
    main()
