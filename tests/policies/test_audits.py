"""Policies that learn nothing: zero, random, replay. As models, and written by a training that has no steps."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from menura.data import open_dataset
from menura.evaluation.evaluate import evaluate
from menura.meta_policy import MetaPolicy
from menura.policies.random.configuration_random import RandomPolicyConfig
from menura.policies.random.modeling_random import RandomPolicy
from menura.policies.replay.configuration_replay import ReplayPolicyConfig
from menura.policies.replay.modeling_replay import ReplayPolicy
from menura.policies.zero.configuration_zero import ZeroPolicyConfig
from menura.policies.zero.modeling_zero import ZeroPolicy
from menura.training.run import train

PROJECT = Path(__file__).parents[1] / "training" / "project"
SIZES = {"state_dim": 2, "action_dim": 3, "chunk_size": 4, "n_action_steps": 2}


def episodes(*lengths: int) -> list[dict[str, Tensor]]:
    """Batches of every frame, in order: the first number of state and action says the episode, the second the step."""
    steps = [(episode, step) for episode, length in enumerate(lengths) for step in range(length)]
    state = torch.tensor(steps, dtype=torch.float32)
    actions = torch.cat((state, state.sum(1, keepdim=True)), dim=1)[:, None].repeat(1, 4, 1)
    whole = {
        "state": state,
        "actions": actions,
        "is_pad": torch.zeros(len(steps), 4, dtype=torch.bool),
        "timestep": state[:, 1].long(),
    }
    return [{key: value[:5] for key, value in whole.items()}, {key: value[5:] for key, value in whole.items()}]


def test_zero_answers_zeros_and_its_loss_is_the_size_of_the_actions():
    policy = ZeroPolicy(ZeroPolicyConfig(**SIZES))
    assert torch.equal(policy.select_action({"state": torch.randn(2, 2)}), torch.zeros(2, 4, 3))
    assert policy(torch.randn(2, 2), actions=torch.full((2, 4, 3), -2.0))["loss"] == 2


def test_random_stays_within_what_was_demonstrated():
    policy = RandomPolicy(RandomPolicyConfig(**SIZES))
    policy.fit_to_data(episodes(4, 6))
    drawn = policy.select_action({"state": torch.zeros(5000, 2)})
    torch.testing.assert_close(drawn.amin((0, 1)), torch.tensor([0.0, 0.0, 0.0]), rtol=0, atol=0.02)
    torch.testing.assert_close(drawn.amax((0, 1)), torch.tensor([1.0, 5.0, 6.0]), rtol=0, atol=0.02)
    torch.testing.assert_close(drawn.mean((0, 1)), torch.tensor([0.5, 2.5, 3.0]), rtol=0, atol=0.1)


def test_replay_plays_the_episode_that_was_nearest_at_this_step_and_holds_its_end(tmp_path):
    policy = ReplayPolicy(ReplayPolicyConfig(**SIZES))
    policy.fit_to_data(episodes(4, 6))
    assert (policy.config.n_episodes, policy.config.longest_episode) == (2, 6)
    obs = {"state": torch.tensor([[0.1, 2.0], [0.9, 2.0], [1.2, 9.0]]), "timestep": torch.tensor([2, 2, 9])}
    chunk = policy.select_action(obs)
    assert chunk[:, :, 0].tolist() == [[0] * 4, [1] * 4, [1] * 4]
    assert chunk[:, :, 1].tolist() == [[2, 3, 3, 3], [2, 3, 4, 5], [5, 5, 5, 5]]
    policy.save_pretrained(tmp_path)
    assert torch.equal(ReplayPolicy.from_pretrained(tmp_path).select_action(obs), chunk)
    assert policy.select_action({"state": torch.zeros(1, 2)})[0, 0].tolist() == [0, 0, 0]


@pytest.mark.parametrize("name", ["ZeroPolicy", "RandomPolicy", "ReplayPolicy"])
def test_a_training_without_steps_leaves_a_run_that_can_be_evaluated(name, tmp_path):
    overrides = [f"--policy.class={name}", f"--data.cache_dir={tmp_path / 'cache'}"]
    run = train(PROJECT / "configs/task/reach.yaml", output_dir=tmp_path / "run", overrides=overrides)
    results = evaluate(run.directory, episodes=2, videos=0, progress=False, project=PROJECT)
    assert len(results.episodes) == 2
    assert MetaPolicy.from_pretrained(run.directory, project=PROJECT).name == name


def test_replay_gives_back_the_recorded_actions_through_all_that_actions_go_through(tmp_path):
    overrides = ["--policy.class=ReplayPolicy", f"--data.cache_dir={tmp_path / 'cache'}"]
    run = train(PROJECT / "configs/task/reach.yaml", output_dir=tmp_path / "run", overrides=overrides)
    meta = MetaPolicy.from_pretrained(run.directory, project=PROJECT)
    episode = open_dataset({"class": "ReachData"}, project=PROJECT).episode(1)
    obs = {"state": episode.state[3:4], "task": [episode.task], "timestep": np.array([3])}
    wanted = episode.action[3 : 3 + meta.chunk_size]
    np.testing.assert_allclose(meta.predict(obs)[0, : len(wanted)], wanted, rtol=1e-4, atol=1e-5)
