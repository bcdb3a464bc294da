"""Rollouts of a small policy against stepping the bare environment in as many processes.

Prints one JSON line. `ratio` is (steps per second of rollouts) / (steps per second of the bare environment); both run
the same seeds for the same number of steps, with one thread each, and take turns so that a busy machine hits both.

    python benchmarks/rollouts.py [--env metaworld|panda_gym|aloha] [--camera] [--workers 2] [--num_envs 32]

With `--camera` the policy looks at one camera of 84 x 84 before each of its chunks, and so does the bare environment.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np

from menura.evaluation.child import Child

ENVIRONMENTS: dict[str, dict[str, Any]] = {
    "metaworld": {"class": "MetaWorld", "args": {"task": "button-press-topdown"}},
    "panda_gym": {"class": "PandaGym", "args": {"task": "reach"}},
    "aloha": {"class": "Aloha", "args": {"task": "transfer_cube"}},
}
CAMERAS = {"metaworld": "view", "panda_gym": "view", "aloha": "top"}
CHUNK = 8


def environment(name: str, steps: int, camera: bool) -> dict[str, Any]:
    """`{class, args}` of one of `ENVIRONMENTS`: episodes of `steps`, one camera of 84 x 84 or none."""
    args = {**ENVIRONMENTS[name]["args"], "max_episode_steps": steps}
    if camera:
        args["cameras"] = {CAMERAS[name]: [84, 84]}
    return {**ENVIRONMENTS[name], "args": args}


def main(descriptor: int) -> None:
    """A process that steps the bare environment, and draws before each chunk: `(seeds, steps)` in, steps taken out."""
    from multiprocessing.connection import Connection

    from menura.envs import make_env

    connection = Connection(descriptor)
    env = make_env(connection.recv())
    actions = np.zeros((1000, env.features.action_dim), np.float32)
    while True:
        try:
            seeds, steps = connection.recv()
        except EOFError:
            return
        for seed in seeds:
            env.begin(seed)
            for step, action in enumerate(actions[:steps]):
                if step % CHUNK == 0:
                    for camera in env.features.cameras:
                        env.image(camera)
                env.advance(action)
        connection.send(len(seeds) * steps)


def small_policy(features: Any) -> Any:
    """An MLP of chunk 8, of the state and the cameras there are, that was never trained and runs to the step limit."""
    from menura.config import ProcessorConfig
    from menura.meta_policy import MetaPolicy
    from menura.policies.contract import build_policy
    from menura.policies.mlp.modeling_mlp import MLPPolicy
    from menura.processing.normalizer import Rows
    from menura.processing.processor import Processor

    def rows(width: int) -> Rows:
        zeros, ones = np.zeros(width), np.ones(width)
        return Rows(zeros, 1e-3 * ones, -ones, ones, -ones, ones)

    policy = build_policy(MLPPolicy, {"chunk_size": CHUNK, "n_action_steps": CHUNK, "hidden_size": 256}, features)
    statistics = {"none": {"state": rows(features.state_dim), "action": rows(features.action_dim)}}
    policy.config.camera_names = list(features.cameras)
    uses = ("state", "image") if features.cameras else ("state",)
    processor = Processor.build(ProcessorConfig(), features, statistics, policy.config, uses=uses)
    return MetaPolicy(policy, processor)


def run() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--env", choices=ENVIRONMENTS, default="metaworld")
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--num_envs", type=int, default=32)
    parser.add_argument("--episodes", type=int, default=64)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--camera", action="store_true")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()

    import torch

    from menura.evaluation.runner import open_pool, run_episodes
    from menura.evaluation.subjects import PolicySubject
    from menura.features import Features

    torch.set_num_threads(1)
    env = environment(options.env, options.steps, options.camera)
    shares = [list(range(first, options.episodes, options.workers)) for first in range(options.workers)]
    bare = [Child("rollouts", f"bare process {number}", env) for number in range(options.workers)]
    rates: dict[str, list[float]] = {"bare": [], "rollouts": []}
    with open_pool(env, num_envs=options.num_envs, num_workers=options.workers) as pool:
        subject = PolicySubject(small_policy(Features.from_dict(pool.describe().features)))
        for number in range(options.rounds + 1):
            started = time.perf_counter()
            for child, share in zip(bare, shares, strict=True):
                child.send((share, options.steps))
            steps = sum(child.receive() for child in bare)
            between = time.perf_counter()
            results = run_episodes(
                subject, pool, seeds=range(options.episodes), num_envs=options.num_envs, progress=False
            )
            ended = time.perf_counter()
            if number:  # the first round builds environments
                rates["bare"].append(steps / (between - started))
                rates["rollouts"].append(sum(episode.steps for episode in results.episodes) / (ended - between))
    for child in bare:
        child.dismiss()
        child.end()
    ratios = [ours / theirs for ours, theirs in zip(rates["rollouts"], rates["bare"], strict=True)]
    print(
        json.dumps(
            {
                "benchmark": "rollouts",
                "ratio": round(float(np.median(ratios)), 3),
                "target": 0.85,
                "env": options.env,
                "camera": options.camera,
                "workers": options.workers,
                "num_envs": options.num_envs,
                "threads": 1,
                "bare_steps_per_s": round(float(np.median(rates["bare"])), 1),
                "rollout_steps_per_s": round(float(np.median(rates["rollouts"])), 1),
                "rollouts_per_s": round(float(np.median(rates["rollouts"])) / options.steps, 2),
            }
        )
    )


if __name__ == "__main__":
    run()
