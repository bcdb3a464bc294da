"""dm_control: tasks of the suite and of the Jaco arm through one adapter."""

from __future__ import annotations

import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from menura.envs.dm_control import DmControlEnv
from menura.errors import EnvironmentFailure

pytest.importorskip("dm_control")
pytestmark = pytest.mark.sim

TASKS = ["reacher-easy", "manipulator-bring_ball", "reach_site"]


def walk(env, seed, steps):
    """The last state of an episode of random actions that the seed determines."""
    env.reset(seed=seed)
    rng = np.random.default_rng(seed)
    for _ in range(steps):
        env.advance(rng.uniform(env.action_space.low, env.action_space.high).astype(np.float32))
    return env.state()


@pytest.mark.parametrize("task", TASKS)
def test_an_episode_is_a_function_of_its_seed_alone(task):
    used, fresh = DmControlEnv(task), DmControlEnv(task)
    walk(used, 4, 7)
    wanted = walk(fresh, 3, 10)
    assert np.array_equal(walk(used, 3, 10), wanted)
    assert not np.array_equal(used.reset(seed=4)[0]["state"], used.reset(seed=3)[0]["state"])
    for env in (used, fresh):
        env.close()


def test_what_the_suite_tells():
    env = DmControlEnv("reacher-easy")
    observation, _ = env.reset(seed=0)
    assert env.observation_space.contains(observation)
    assert env.features.state.names == (
        *("position_0", "position_1", "to_target_0", "to_target_1", "velocity_0", "velocity_1"),
    )
    assert env.features.state.object_names == ("to_target_0", "to_target_1")
    assert (env.features.fps, env.max_episode_steps, env.task) == (50, 1000, "reacher easy")
    assert env.action_space.high.tolist() == [1, 1]
    blind = DmControlEnv("reacher-easy", object_state=False)
    assert blind.features.state.names == ("position_0", "position_1", "velocity_0", "velocity_1")


def test_what_manipulation_tells():
    env = DmControlEnv("lift_brick")
    assert env.features.action.names[0] == "jaco_arm/joint_1"
    assert (env.features.fps, env.max_episode_steps, env.features.control_space) == (25, 250, "joint")
    assert env.action_space.high[0] == pytest.approx(0.628, abs=1e-3)
    assert all(name.startswith("duplo2x4") for name in env.features.state.object_names)
    assert len(env.features.state.object_names) == 13


def test_a_reward_from_the_threshold_on_is_a_success():
    env = DmControlEnv("cartpole-balance", success_reward=0.5)
    env.reset(seed=0)
    reward, terminated, truncated, info = env.advance(np.zeros(1))
    assert reward > 0.5
    assert info["success"]
    assert info["measures"] == {"reward": reward}
    assert (terminated, truncated) == (False, False)
    assert env.success_rule == "reward of at least 0.5 at any step"
    strict = DmControlEnv("reacher-easy", success_reward=1.0)
    strict.reset(seed=0)
    assert not strict.advance(np.zeros(2))[3]["success"]


def test_the_packages_own_time_limit_holds():
    env = DmControlEnv("reach_site")
    env.reset(seed=0)
    for _ in range(249):
        assert env.advance(np.zeros(9))[1:3] == (False, False)
    assert env.advance(np.zeros(9))[1:3] == (False, True)


def test_what_is_unknown_is_told_the_nearest():
    with pytest.raises(EnvironmentFailure, match=r"got 'reacher-esy'; did you mean reacher-easy\?"):
        DmControlEnv("reacher-esy")
    with pytest.raises(EnvironmentFailure, match=r"cameras: expected one of fixed, hand, got 'view'"):
        DmControlEnv("reacher-easy", cameras={"view": [8, 8]})
    with pytest.raises(EnvironmentFailure, match=r"success_reward: expected a reward in \(0, 1\], got 1000"):
        DmControlEnv("reacher-easy", success_reward=1000)


@pytest.mark.slow
@pytest.mark.parametrize("task", [task for tasks in DmControlEnv.suites.values() for task in tasks])
def test_every_task_of_the_suites_is_there(task):
    env = DmControlEnv(task)
    env.reset(seed=0)
    assert env.observation_space.contains(env.step(np.zeros(env.features.action_dim))[0])
    env.close()


@pytest.mark.usefixtures("drawing")
@pytest.mark.parametrize(("task", "camera"), [("reacher-easy", "fixed"), ("reach_site", "view")])
def test_cameras(task, camera):
    env = DmControlEnv(task, cameras={camera: [24, 32]})
    first = env.reset(seed=1)[0]["images"][camera]
    other = env.reset(seed=2)[0]["images"][camera]
    again = env.reset(seed=1)[0]["images"][camera]
    assert first.shape == (24, 32, 3)
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    assert env.render().shape == (240, 320, 3)
    env.close()


@pytest.mark.usefixtures("drawing")
def test_gymnasium_accepts_it():
    check_env(DmControlEnv("reacher-easy", cameras={"fixed": [16, 16]}))
