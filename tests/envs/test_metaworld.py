"""Meta-World: all fifty tasks, really seeded, with their experts."""

from __future__ import annotations

import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from menura.envs.experts.metaworld import MetaWorldExpert
from menura.envs.metaworld import MetaWorldEnv
from menura.envs.metaworld_tasks import INSTRUCTIONS, SUITES
from menura.envs.rendering import choose_backend
from menura.errors import ContractError, EnvironmentFailure

pytestmark = [pytest.mark.sim, pytest.mark.usefixtures("metaworld")]


def follow(env, seed, steps):
    """The states of an episode of the expert, and whether it succeeded."""
    observation, _ = env.reset(seed=seed)
    expert = MetaWorldExpert()
    expert.reset(env)
    states, success = [observation["state"]], False
    for _ in range(steps):
        _, _, _, info = env.advance(expert.act(observation))
        states.append(env.state())
        success |= info["success"]
        if success:
            break
    return np.stack(states), success


def test_there_are_as_many_instructions_as_tasks():
    choose_backend()  # before mujoco comes with it
    metaworld = pytest.importorskip("metaworld")
    assert {f"{name}-v3" for name in INSTRUCTIONS} == set(metaworld.ALL_V3_ENVIRONMENTS)
    assert len(set(INSTRUCTIONS.values())) == 50


def test_the_suites_are_the_packages():
    choose_backend()
    lists = pytest.importorskip("metaworld.env_dict")
    theirs = {"MT10": lists.MT10_V3, "MT25": lists.MT25_V3, "MT50": lists.MT50_V3}
    for name, both in (("ML10", lists.ML10_V3), ("ML45", lists.ML45_V3)):
        theirs |= {f"{name}_{part}": both[part] for part in ("train", "test")}
    assert {suite: {f"{task}-v3" for task in SUITES[suite]} for suite in theirs} == {
        suite: set(tasks) for suite, tasks in theirs.items()
    }
    grades = [SUITES[grade] for grade in ("easy", "medium", "hard", "very_hard")]
    assert [len(grade) for grade in grades] == [28, 11, 6, 5]
    assert sorted(task for grade in grades for task in grade) == sorted(INSTRUCTIONS)
    assert MetaWorldEnv.suites is SUITES


@pytest.mark.parametrize("task", INSTRUCTIONS)
def test_every_task_resets_by_its_seed_and_steps(task):
    env = MetaWorldEnv(task, object_state=True)
    first, _ = env.reset(seed=3)
    assert env.observation_space.contains(first)
    assert env.task == INSTRUCTIONS[task]
    stepped = env.step(np.zeros(4))[0]["state"]
    other, _ = env.reset(seed=4)
    again, _ = env.reset(seed=3)
    assert np.array_equal(first["state"], again["state"])
    assert not np.array_equal(first["state"], other["state"])
    assert np.array_equal(stepped, env.step(np.zeros(4))[0]["state"])


@pytest.mark.parametrize("task", ["button-press-topdown", "pick-place"])
def test_an_episode_does_not_depend_on_those_before(task):
    used = MetaWorldEnv(task, object_state=True)
    follow(used, 5, 60)
    assert np.array_equal(follow(used, 3, 100)[0], follow(MetaWorldEnv(task, object_state=True), 3, 100)[0])


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_expert_presses_the_button(seed):
    assert follow(MetaWorldEnv(), seed, 150)[1]


@pytest.mark.slow
@pytest.mark.parametrize("task", INSTRUCTIONS)
def test_every_expert_solves_its_task(task):
    env = MetaWorldEnv(task, max_episode_steps=500)
    successes = sum(follow(env, seed, 500)[1] for seed in range(3))
    # These two fail now and then, in the package's own hands too.
    assert successes >= (1 if task in ("stick-pull", "soccer") else 2)


def test_the_experts_actions_are_clipped():
    env = MetaWorldEnv()
    observation, _ = env.reset(seed=0)
    expert = MetaWorldExpert()
    expert.reset(env)
    actions = []
    for _ in range(40):
        actions.append(expert.act(observation))
        env.advance(actions[-1])
    assert np.abs(actions).max() == 1
    assert actions[0].dtype == np.float32


def test_actions_out_of_range_are_clipped_as_the_simulator_does():
    env = MetaWorldEnv()
    ends = []
    for size in (1, 9):
        env.reset(seed=0)
        env.advance(np.array([0, size, 0, -size], np.float32))
        ends.append(env.full_state)
    assert np.array_equal(*ends)


def test_what_the_state_tells():
    seeing, blind = MetaWorldEnv(object_state=True), MetaWorldEnv(object_state=False)
    assert (seeing.features.state_dim, blind.features.state_dim) == (39, 4)
    assert len(seeing.features.state.object_names) == 31
    state = seeing.reset(seed=0)[0]["state"]
    assert np.array_equal(state[:4], blind.reset(seed=0)[0]["state"])
    assert np.array_equal(state, seeing.full_state.astype(np.float32))
    assert seeing.features.fps == 80


def test_the_step_limit():
    env = MetaWorldEnv(max_episode_steps=500)
    env.reset(seed=0)
    for _ in range(499):
        assert env.advance(np.zeros(4))[1:3] == (False, False)
    assert env.advance(np.zeros(4))[1:3] == (False, True)
    with pytest.raises(EnvironmentFailure, match=r"MetaWorldEnv.max_episode_steps: expected 1 to 500"):
        MetaWorldEnv(max_episode_steps=501)


def test_an_unknown_task_and_a_foreign_environment(point_env):
    with pytest.raises(EnvironmentFailure, match="got 'door-opn'; did you mean door-open"):
        MetaWorldEnv("door-opn")
    with pytest.raises(ContractError, match="MetaWorldExpert: expected a MetaWorldEnv, got PointEnv"):
        MetaWorldExpert().reset(point_env)


@pytest.mark.usefixtures("drawing")
def test_gymnasium_accepts_it():
    check_env(MetaWorldEnv(cameras={"view": [16, 16]}))


@pytest.mark.usefixtures("drawing")
def test_frames_are_a_function_of_the_seed():
    env = MetaWorldEnv(cameras={"view": [40, 40], "corner": [20, 30]})
    first = env.reset(seed=1)[0]["images"]
    other = env.reset(seed=2)[0]["images"]
    again = env.reset(seed=1)[0]["images"]
    assert first["corner"].shape == (20, 30, 3)
    assert np.array_equal(first["view"], again["view"])
    assert not np.array_equal(first["view"], other["view"])
    assert env.render().shape == (240, 320, 3)
