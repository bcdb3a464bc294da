"""gymnasium-robotics: what its numbers mean, seeds, success rules, cameras, and the expert for Fetch."""

from __future__ import annotations

import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from menura.envs.experts.fetch import FetchExpert
from menura.envs.gym_robotics import GymRoboticsEnv
from menura.envs.gym_robotics_tasks import KITCHEN_SUB_TASKS, TASKS
from menura.errors import ContractError, EnvironmentFailure
from menura.processing.rotations import convert

pytestmark = pytest.mark.sim


@pytest.fixture(scope="module", params=TASKS)
def env(request):
    env = GymRoboticsEnv(request.param)
    yield env
    env.close()


def wild(env, seed, steps=15):
    """The states of an episode of random actions."""
    random = np.random.default_rng(seed)
    states = [env.reset(seed=seed)[0]["state"]]
    for _ in range(steps):
        env.advance(random.uniform(-1, 1, env.features.action_dim))
        states.append(env.state())
    return np.stack(states)


def follow(env, seed, steps=50):
    """Whether the expert solves the episode."""
    observation, _ = env.reset(seed=seed)
    expert = FetchExpert()
    expert.reset(env)
    return any(env.advance(expert.act(observation))[3]["success"] for _ in range(steps))


def test_an_observation_is_what_the_features_say(env):
    observation, _ = env.reset(seed=0)
    assert env.observation_space.contains(observation)
    assert env.features.state_dim == len(observation["state"])
    assert env.features.fps == {"fetch": 25, "adroit": 100, "franka": 12.5}[env.features.robot]
    assert env.max_episode_steps == {"fetch": 50, "adroit": 200, "franka": 280}[env.features.robot]
    assert env.protocol()["versions"]["gymnasium-robotics"] == "1.4.2"


def test_an_episode_is_a_function_of_its_seed_alone(env):
    first = wild(env, 3)
    wild(env, 4, steps=7)
    assert np.array_equal(first, wild(env, 3))
    fresh = GymRoboticsEnv(env.task_name)
    assert np.array_equal(first, wild(fresh, 3))
    assert not np.array_equal(first[0], wild(fresh, 5, steps=0)[0])


@pytest.mark.parametrize("task", GymRoboticsEnv.suites["adroit"])
def test_adroits_names_are_those_of_the_simulators_joints(task):
    env = GymRoboticsEnv(task)
    wild(env, 1, steps=3)
    state = dict(zip(env.features.state.names, env.state().tolist(), strict=True))
    joints = [name for name in env.features.state.names if name[:2] in ("AR", "WR", "FF", "MF", "RF", "LF", "TH")]
    assert len(joints) >= 24
    for joint in joints:
        assert state[joint] == pytest.approx(env._data.joint(joint).qpos[0], abs=1e-6)
    assert env.features.action.names == tuple(env._model.actuator(i).name for i in range(env._model.nu))


def test_the_cubes_angles_are_a_rotation_of_the_named_kind():
    env = GymRoboticsEnv("fetch_pick_and_place")
    wild(env, 0, steps=2)
    quaternion = np.array([[0.5, 0.3, -0.4, 0.7]]) / np.linalg.norm([0.5, 0.3, -0.4, 0.7])
    env._data.joint("object0:joint").qpos[3:] = quaternion[0]
    env.advance(np.zeros(4))
    rotation = env.features.state.rotations[0]
    angles = env.state()[[env.features.state.names.index(name) for name in rotation.names]]
    now = env._data.joint("object0:joint").qpos[None, 3:]
    assert angles == pytest.approx(convert(now, "quat_wxyz", rotation.representation)[0], abs=0.05)


def test_fetch_tells_its_goal_and_a_blind_policy_is_not_told():
    seeing, blind = GymRoboticsEnv("fetch_push"), GymRoboticsEnv("fetch_push", object_state=False)
    state = seeing.reset(seed=0)[0]["state"]
    assert seeing.features.state.names[-3:] == ("goal_x", "goal_y", "goal_z")
    assert state[-3:] == pytest.approx(seeing._sim.goal)
    robots = np.delete(state, seeing.features.state.object_indices)
    assert np.array_equal(blind.reset(seed=0)[0]["state"], robots)
    assert blind.features.state.object_names == ()
    assert blind.features.state_dim == 10


def test_a_reached_goal_counts_by_the_rule():
    rules = {"any": [True] * 3, "end": [False, False, True]}
    for rule, expected in rules.items():
        env = GymRoboticsEnv("fetch_reach", rule=rule, max_episode_steps=3)
        env.reset(seed=0)
        env._sim.goal = env._observed["achieved_goal"].copy()
        assert [env.advance(np.zeros(4))[3]["success"] for _ in range(3)] == expected
    assert "at the last step" in env.success_rule


def test_adroit_counts_the_steps_at_the_goal():
    env = GymRoboticsEnv("adroit_door", rule="held")
    env.reset(seed=0)
    infos = []
    for _ in range(27):
        env._data.joint("door_hinge").qpos[0] = 1.5
        infos.append(env.advance(np.zeros(28))[3])
    assert [info["measures"]["steps_at_goal"] for info in infos] == list(range(1, 28))
    assert [info["success"] for info in infos] == [False] * 25 + [True] * 2


def test_the_kitchen_measures_each_sub_task():
    env = GymRoboticsEnv("franka_kitchen", sub_tasks=["microwave", "slide cabinet"])
    env.reset(seed=0)
    assert env.task == "open the microwave, open the slide cabinet"
    assert env.advance(np.zeros(9))[3]["measures"] == {"microwave": 0, "slide cabinet": 0, "completed": 0}
    env._data.joint("microwave").qpos[0] = -0.75
    info = env.advance(np.zeros(9))[3]
    assert info["measures"] == {"microwave": 1, "slide cabinet": 0, "completed": 1}
    assert not info["success"]
    env._data.joint("slide_cabinet").qpos[0] = 0.37
    assert env.advance(np.zeros(9))[3]["success"]
    env._data.joint("slide_cabinet").qpos[0] = 0.0
    assert env.advance(np.zeros(9))[3]["success"]  # what was done once is done


def test_suites_are_tasks():
    assert GymRoboticsEnv.suites["fetch"] == tuple(name for name in TASKS if name.startswith("fetch"))
    assert len(GymRoboticsEnv.suites["adroit"]) == 4


def test_what_is_wrong_is_told_with_what_there_is(point_env):
    with pytest.raises(EnvironmentFailure, match=r"GymRoboticsEnv.task: .* did you mean fetch_push"):
        GymRoboticsEnv("fetch_pusch")
    with pytest.raises(EnvironmentFailure, match=r"rule of fetch_push: expected one of any, end, got 'held'"):
        GymRoboticsEnv("fetch_push", rule="held")
    with pytest.raises(EnvironmentFailure, match=r"sub_tasks: expected none of fetch_push"):
        GymRoboticsEnv("fetch_push", sub_tasks=["kettle"])
    with pytest.raises(EnvironmentFailure, match=r"sub_tasks: expected some of .* did you mean kettle"):
        GymRoboticsEnv("franka_kitchen", sub_tasks=["ketle"])
    with pytest.raises(ContractError, match=r"FetchExpert: expected a GymRoboticsEnv of task .*, got PointEnv"):
        FetchExpert().reset(point_env)
    with pytest.raises(ContractError, match=r"got fetch_slide"):
        FetchExpert().reset(GymRoboticsEnv("fetch_slide"))
    assert set(GymRoboticsEnv("franka_kitchen", sub_tasks=tuple(KITCHEN_SUB_TASKS))._sub_tasks) == set(
        KITCHEN_SUB_TASKS
    )


@pytest.mark.parametrize("task", ["fetch_reach", "fetch_push", "fetch_pick_and_place"])
@pytest.mark.parametrize("seed", [0, 1])
def test_the_expert_solves_fetch(task, seed):
    assert follow(GymRoboticsEnv(task), seed)


def test_the_expert_answers_by_what_it_sees_alone():
    env, other = GymRoboticsEnv("fetch_pick_and_place", object_state=False), FetchExpert()
    observation, _ = env.reset(seed=0)
    expert = FetchExpert()
    expert.reset(env)
    other.reset(env)
    for _ in range(12):
        action = expert.act(observation)
        env.advance(action)
    assert np.array_equal(expert.act(observation), other.act(observation))


@pytest.mark.slow
@pytest.mark.parametrize("task", ["fetch_reach", "fetch_push", "fetch_pick_and_place"])
def test_the_expert_solves_fetch_for_fifty_seeds(task):
    env = GymRoboticsEnv(task)
    assert sum(follow(env, seed) for seed in range(100, 150)) >= 48


@pytest.mark.usefixtures("drawing")
@pytest.mark.parametrize("task", ["fetch_pick_and_place", "adroit_pen"])
def test_gymnasium_accepts_it(task):
    check_env(GymRoboticsEnv(task, cameras={"view": [16, 16]}))


@pytest.mark.usefixtures("drawing")
def test_frames_show_the_goal_and_change_nothing():
    drawn = GymRoboticsEnv("fetch_pick_and_place", cameras={"view": [48, 64], "gripper_camera_rgb": [20, 30]})
    image = drawn.reset(seed=2)[0]["images"]["view"].astype(int)
    assert ((image[..., 0] > 150) & (image[..., 1] < 60)).any()  # the red mark of the goal
    assert drawn.renderer.drawn == 2
    assert np.array_equal(wild(drawn, 2), wild(GymRoboticsEnv("fetch_pick_and_place"), 2))
    assert drawn.renderer.drawn == 4  # by the one reset, none by the steps
    assert drawn.render().shape == (240, 320, 3)
    assert drawn.protocol()["camera_poses"]["gripper_camera_rgb"] is None
