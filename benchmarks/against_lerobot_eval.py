"""Evaluating one ACT network in gym-aloha: Menura's evaluation against that of LeRobot 0.6.1, as many processes each.

LeRobot makes and saves the network, untrained, with its default sizes; Menura reads that checkpoint. Both look at the
top camera, 480 x 640, drawn alike (`render: full`), and run every episode to its step limit, without videos. Made
environments and loaded weights are not measured. Prints one JSON line; `ratio` is (our steps per second) / (theirs),
both taking turns. Needs the Python of an environment in which LeRobot and gym-aloha are installed:

    python benchmarks/against_lerobot_eval.py --lerobot path/to/python [--workers 2] [--steps 100] [--chunk 100]
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np

PEER = Path(__file__).with_name("_lerobot_eval.py")


def run() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lerobot", help="the Python of LeRobot's environment")
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--num_envs", type=int, default=4, help="environments that take turns in our processes")
    parser.add_argument("--episodes", type=int, default=8)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--chunk", type=int, default=100, help="actions predicted and executed at a time")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    said: dict[str, Any] = {"benchmark": "against_lerobot_eval", "target": 2.0}
    if options.lerobot is None:
        print(json.dumps({**said, "not_run": "it needs LeRobot's Python: --lerobot path/to/python"}))
        return
    with tempfile.TemporaryDirectory() as folder:
        rates = compare(options, Path(folder) / "act")
    ratios = [ours / theirs for ours, theirs in zip(rates["menura"], rates["lerobot"], strict=True)]
    print(
        json.dumps(
            {
                **said,
                "ratio": round(float(np.median(ratios)), 2),
                "environment": "gym-aloha transfer cube, one camera of 480 x 640",
                "workers": options.workers,
                "num_envs": options.num_envs,
                "chunk": options.chunk,
                "steps": options.steps,
                "episodes": options.episodes,
                "threads": 1,
                "lerobot_steps_per_s": round(float(np.median(rates["lerobot"])), 1),
                "menura_steps_per_s": round(float(np.median(rates["menura"])), 1),
            }
        )
    )


def compare(options: argparse.Namespace, checkpoint: Path) -> dict[str, list[float]]:
    """Steps per second of each, once a round."""
    import torch

    from menura.evaluation.runner import open_pool, run_episodes
    from menura.evaluation.subjects import PolicySubject
    from menura.meta_policy import MetaPolicy

    torch.set_num_threads(1)
    peer = subprocess.Popen(
        [options.lerobot, str(PEER), str(checkpoint), *map(str, (options.workers, options.steps, options.chunk))],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert peer.stdin is not None
    assert peer.stdout is not None
    env = {
        "class": "Aloha",
        "args": {
            "cameras": {"top": [480, 640]},
            "render": "full",
            "object_state": False,
            "max_episode_steps": options.steps,
        },
    }
    rates: dict[str, list[float]] = {"lerobot": [], "menura": []}
    if peer.stdout.readline() != "ready\n":
        raise SystemExit(f"{options.lerobot}: expected LeRobot 0.6.1 and gym-aloha, which it could not import.")
    with peer, open_pool(env, num_envs=options.num_envs, num_workers=options.workers) as pool:
        subject = PolicySubject(MetaPolicy.from_pretrained(checkpoint, device="cpu"))
        for number in range(options.rounds + 1):
            peer.stdin.write(f"{options.episodes}\n")
            peer.stdin.flush()
            theirs = float(peer.stdout.readline())
            started = time.perf_counter()
            results = run_episodes(
                subject,
                pool,
                seeds=range(options.episodes),
                num_envs=options.num_envs,
                progress=False,
                stop_at_success=False,
            )
            ours = time.perf_counter() - started
            if number:  # the first round warms both up
                rates["lerobot"].append(options.episodes * options.steps / theirs)
                rates["menura"].append(sum(episode.steps for episode in results.episodes) / ours)
        peer.stdin.close()
    return rates


if __name__ == "__main__":
    run()
