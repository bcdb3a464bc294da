"""LeRobot 0.6.1's evaluation, for `against_lerobot_eval.py`; run by the Python of LeRobot's environment.

It saves an untrained ACT to a folder, says "ready", and answers each line, a number of episodes, with the seconds that
evaluating so many took.
"""

from __future__ import annotations

import sys
import time

import torch
from gym_aloha.env import AlohaEnv as SimulatedAloha
from lerobot.configs.types import FeatureType, PolicyFeature
from lerobot.envs.configs import AlohaEnv
from lerobot.envs.factory import make_env, make_env_pre_post_processors
from lerobot.policies.act.configuration_act import ACTConfig
from lerobot.policies.act.modeling_act import ACTPolicy
from lerobot.policies.factory import make_pre_post_processors
from lerobot.scripts.lerobot_eval import eval_policy

# LeRobot asks its processes for this attribute, and one that lacks it ends (with gymnasium 1.4). They know gym_aloha
# only because this module, which they import, imports it.
SimulatedAloha.task_description = "transfer the cube"

STATE, IMAGE, ACTION = "observation.state", "observation.images.top", "action"


def main(directory: str, workers: int, steps: int, chunk: int) -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    config = ACTConfig(
        input_features={
            STATE: PolicyFeature(FeatureType.STATE, (14,)),
            IMAGE: PolicyFeature(FeatureType.VISUAL, (3, 480, 640)),
        },
        output_features={ACTION: PolicyFeature(FeatureType.ACTION, (14,))},
        chunk_size=chunk,
        n_action_steps=chunk,
        pretrained_backbone_weights=None,
        device="cpu",
    )
    policy = ACTPolicy(config).eval()
    statistics = {STATE: rows(14), ACTION: rows(14), IMAGE: rows(3, 1, 1)}
    before, after = make_pre_post_processors(config, dataset_stats=statistics)
    for part in (policy, before, after):
        part.save_pretrained(directory)
    environment = AlohaEnv(task="AlohaTransferCube-v0", episode_length=steps)
    env_before, env_after = make_env_pre_post_processors(environment, config)
    (by_task,) = make_env(environment, n_envs=workers, use_async_envs=workers > 1).values()
    (env,) = by_task.values()
    print("ready", flush=True)
    for line in sys.stdin:
        started = time.perf_counter()
        with torch.no_grad():
            eval_policy(env, policy, env_before, env_after, before, after, int(line), start_seed=0)
        print(time.perf_counter() - started, flush=True)


def rows(*shape: int) -> dict[str, torch.Tensor]:
    """Statistics of nothing: actions stay near 0."""
    ones = torch.ones(shape)
    return {"mean": 0 * ones, "std": 1e-3 * ones, "min": -ones, "max": ones}


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
