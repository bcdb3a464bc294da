"""Memory of an evaluation, this process and its workers, over many episodes.

Prints one JSON line. `ratio` is memory at the end / at the beginning; `growth_mib` is what was added between the first
tenth of the episodes and the last: flat means less than `target_mib`.

    python benchmarks/evaluation_memory.py [--episodes 1000] [--env metaworld] [--steps 20] [--camera]
"""

from __future__ import annotations

import argparse
import json
import os

os.environ["OMP_NUM_THREADS"] = "1"

import psutil
import torch

from rollouts import ENVIRONMENTS, environment, small_policy


def run() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--episodes", type=int, default=1000)
    parser.add_argument("--env", choices=ENVIRONMENTS, default="metaworld")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--num_envs", type=int, default=8)
    parser.add_argument("--camera", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)

    from menura.evaluation.messages import Begin, Conduct
    from menura.evaluation.rollout import rollouts
    from menura.evaluation.runner import open_pool
    from menura.evaluation.subjects import PolicySubject
    from menura.features import Features

    env = environment(options.env, options.steps, options.camera)
    with open_pool(env, num_envs=options.num_envs) as pool:
        description = pool.describe()
        subject = PolicySubject(small_policy(Features.from_dict(description.features)))
        pool.conduct(Conduct(subject.cameras, False, True, None, 10))
        processes = [psutil.Process(), *(psutil.Process(pid) for pid in pool.pids)]
        episodes = [Begin(index, index, video=False) for index in range(options.episodes)]
        session = subject.session(options.num_envs, description)
        used = [  # MiB after each episode
            sum(process.memory_info().rss for process in processes) / 2**20
            for _ in rollouts(session, pool, episodes, options.num_envs)
        ]
    tenth = max(1, len(used) // 10)
    print(
        json.dumps(
            {
                "benchmark": "evaluation_memory",
                "ratio": round(max(used[-tenth:]) / max(used[:tenth]), 4),
                "growth_mib": round(max(used[-tenth:]) - max(used[:tenth]), 1),
                "target_mib": 10,
                "episodes": options.episodes,
                "env": options.env,
                "camera": options.camera,
                "mib": round(used[-1], 1),
            }
        )
    )


if __name__ == "__main__":
    run()
