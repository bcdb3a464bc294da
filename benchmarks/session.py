"""What a session adds to a policy's own answer, per step of an episode, batch 1.

Prints one JSON line; `ratio` is the overhead as a share of 100 µs: history, queue, the rows' bookkeeping (`session_us`,
of a policy that answers at once), and the processor: normalizing, checks, physical units (`normalizer_us`).

    python benchmarks/session.py [--steps 4000]
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np
import torch

from menura.features import Features, VectorFeature

TARGET_US = 100


def microseconds(steps: int, work: Callable[[], object]) -> float:
    """The median over ten rounds of CPU time per call."""
    rounds = []
    for _ in range(10):
        started = time.process_time()
        for _ in range(steps // 10):
            work()
        rounds.append((time.process_time() - started) / (steps // 10))
    return round(float(np.median(rounds)) * 1e6, 1)


def run() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=4000)
    options = parser.parse_args()
    torch.set_num_threads(1)

    from menura.meta_policy import MetaPolicy
    from rollouts import small_policy

    features = Features(
        state=VectorFeature(tuple(f"s{i}" for i in range(14))),
        action=VectorFeature(tuple(f"a{i}" for i in range(14))),
        fps=50,
        control_space="joint",
        control_type="abs",
    )
    policy: MetaPolicy = small_policy(features)
    observation: dict[str, Any] = {"state": np.zeros((1, 14), np.float32), "images": {}, "task": ["x"]}
    chunk = policy.predict(observation)
    inputs = policy.inputs(observation)
    session = policy.session(1, seeds=[0])
    whole = microseconds(options.steps, lambda: session.select_action(observation))
    forward = microseconds(options.steps, lambda: policy.policy.select_action(inputs))
    predict = microseconds(options.steps, lambda: policy.predict(observation))
    policy.predict = lambda *_, **__: chunk  # type: ignore[method-assign]  # answers at once
    instant = policy.session(1, seeds=[0])
    alone = microseconds(options.steps, lambda: instant.select_action(observation))
    overhead = whole - forward / policy.n_action_steps
    print(
        json.dumps(
            {
                "benchmark": "session",
                "ratio": round(overhead / TARGET_US, 3),
                "target": 1.0,
                "overhead_us": round(overhead, 1),
                "session_us": alone,
                "normalizer_us": round((predict - forward) / policy.n_action_steps, 1),
                "chunk": policy.n_action_steps,
                "threads": 1,
            }
        )
    )


if __name__ == "__main__":
    run()
