"""panda-gym: what its numbers mean, seeds, the success rule, TinyRenderer's frames, and the expert."""

from __future__ import annotations

import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from menura.envs.experts.panda import PandaExpert
from menura.envs.panda_gym import TASKS, PandaGymEnv
from menura.errors import ContractError, EnvironmentFailure
from menura.processing.rotations import convert

pytestmark = [pytest.mark.sim]
pytest.importorskip("panda_gym")


def follow(env, seed, steps=50):
    """The states of an episode of the expert, whether it is solved, and the last action."""
    observation, _ = env.reset(seed=seed)
    expert = PandaExpert()
    expert.reset(env)
    states, success, action = [env.full_state], False, np.zeros(4)
    for _ in range(steps):
        action = expert.act(observation)
        success |= env.advance(action)[3]["success"]
        states.append(env.full_state)
    return np.stack(states), success, action


@pytest.mark.parametrize("control", ["ee", "joints"])
@pytest.mark.parametrize("task", TASKS)
def test_an_observation_is_what_the_features_say(task, control):
    env = PandaGymEnv(task, control=control)
    observation, _ = env.reset(seed=3)
    assert env.observation_space.contains(observation)
    assert env.features.state.object_names == env.features.state.names[-len(env.features.state.object_names) :]
    assert env.features.control_space == ("ee" if control == "ee" else "joint")
    assert env.features.action_dim == env._sim.action_space.shape[0]
    assert env.features.fps == 25
    assert env.max_episode_steps == (100 if task == "stack" else 50)
    first = env.step(np.ones(env.features.action_dim))[0]["state"]
    assert not np.array_equal(first, observation["state"])
    again = env.reset(seed=3)[0]["state"]
    assert np.array_equal(again, observation["state"])
    env.close()


@pytest.mark.parametrize("task", ["push", "stack"])
def test_an_episode_is_a_function_of_its_seed_alone(task):
    used, other = PandaGymEnv(task), PandaGymEnv("slide")
    for seed in range(3):
        follow(used, 100 + seed, steps=30)  # leaves cubes that touch the fingers
        other.reset(seed=seed)
        other.advance(np.ones(3))
        fresh = PandaGymEnv(task)
        assert np.array_equal(follow(used, seed)[0], follow(fresh, seed)[0])
        fresh.close()


def test_several_environments_do_not_disturb_each_other():
    alone, one, two = (PandaGymEnv("push") for _ in range(3))
    expected = follow(alone, 0, steps=20)[0]
    observation, _ = one.reset(seed=0)
    two.reset(seed=1)
    experts = PandaExpert(), PandaExpert()
    for expert, env in zip(experts, (one, two), strict=True):
        expert.reset(env)
    for step in range(20):
        one.advance(experts[0].act(observation))
        two.advance(experts[1].act(observation))
        assert np.array_equal(one.full_state, expected[step + 1])


def test_the_goal_of_flip_is_drawn_from_the_seed():
    env = PandaGymEnv("flip")
    np.random.seed(0)  # noqa: NPY002
    first = env.reset(seed=1)[0]["state"]
    assert np.array_equal(first, env.reset(seed=1)[0]["state"])
    assert np.linalg.norm(first[-4:]) == pytest.approx(1)
    assert env.features.state.rotations[-1].names == env.features.state.names[-4:]


def test_angles_are_rotations_of_the_named_kind():
    env = PandaGymEnv("push")
    env.reset(seed=0)
    quaternion = np.array([0.3, -0.4, 0.7, 0.5]) / np.linalg.norm([0.3, -0.4, 0.7, 0.5])
    env._sim.sim.set_base_pose("object", np.array([0, 0, 0.3]), quaternion)
    rotation = env.features.state.rotations[0]
    angles = env._sim._get_obs()["observation"][[env.full_state_names.index(name) for name in rotation.names]]
    assert angles == pytest.approx(convert(quaternion[None], "quat_xyzw", rotation.representation)[0], abs=1e-5)


def test_a_reached_goal_counts_by_the_rule():
    for rule, expected in {"any": [True] * 3, "end": [False, False, True]}.items():
        env = PandaGymEnv("reach", rule=rule, max_episode_steps=3)
        env.reset(seed=0)
        env._sim.task.goal = env._observed["achieved_goal"].copy()
        assert [env.advance(np.zeros(3))[3]["success"] for _ in range(3)] == expected


def test_what_the_state_tells():
    seeing, blind = PandaGymEnv("pick_and_place"), PandaGymEnv("pick_and_place", object_state=False)
    state = seeing.reset(seed=0)[0]["state"]
    assert np.array_equal(blind.reset(seed=0)[0]["state"], state[:7])
    assert blind.features.state.grippers == {"fingers_width": (0.0, 0.08)}
    assert np.array_equal(seeing.full_state, blind.full_state)


def test_what_is_wrong_is_told_with_what_there_is(point_env):
    with pytest.raises(EnvironmentFailure, match=r"PandaGymEnv.task: .* did you mean push"):
        PandaGymEnv("pusch")
    with pytest.raises(EnvironmentFailure, match=r"PandaGymEnv.control: expected one of ee, joints, got 'joint'"):
        PandaGymEnv(control="joint")
    with pytest.raises(EnvironmentFailure, match="cameras: expected one of view, got 'top'"):
        PandaGymEnv(cameras={"top": [8, 8]})
    with pytest.raises(ContractError, match=r"PandaExpert: expected a PandaGymEnv .*, got PointEnv"):
        PandaExpert().reset(point_env)
    with pytest.raises(ContractError, match=r"got flip, ee"):
        PandaExpert().reset(PandaGymEnv("flip"))
    assert PandaGymEnv.suites["panda_gym"] == tuple(TASKS)


@pytest.mark.parametrize("task", ["reach", "push", "pick_and_place", "stack"])
def test_the_expert_solves(task):
    states, success, action = follow(PandaGymEnv(task), 0, steps=60 if task == "stack" else 50)
    assert success
    assert np.isfinite(states).all()
    assert action.dtype == np.float32


@pytest.mark.slow
@pytest.mark.parametrize(("task", "least"), [("reach", 50), ("push", 48), ("pick_and_place", 48), ("stack", 42)])
def test_the_expert_solves_for_fifty_seeds(task, least):
    env = PandaGymEnv(task)
    assert sum(follow(env, seed, env.max_episode_steps)[1] for seed in range(100, 150)) >= least


def test_gymnasium_accepts_it():
    check_env(PandaGymEnv(cameras={"view": [16, 16]}))


def test_frames_are_drawn_only_when_asked_and_change_nothing():
    drawn = PandaGymEnv("push", cameras={"view": [24, 32]})
    image = drawn.reset(seed=1)[0]["images"]["view"]
    assert image.shape == (24, 32, 3)
    assert image.std() > 0
    assert drawn.drawn == 1
    expected = follow(PandaGymEnv("push"), 1, steps=10)[0]
    assert np.array_equal(follow(drawn, 1, steps=10)[0], expected)
    assert drawn.drawn == 2
    assert drawn.render().shape == (240, 320, 3)
    full = PandaGymEnv("push", cameras={"view": [24, 32]}, render="full").reset(seed=1)[0]["images"]["view"]
    assert not np.array_equal(full, image)  # with shadows


def test_making_one_prints_nothing(capfd):
    PandaGymEnv("reach").close()
    assert capfd.readouterr().out == ""
