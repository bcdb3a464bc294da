"""robosuite: its own physics to the bit, robomimic's observations, seeds, recorded states, experts."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from menura.data import open_dataset
from menura.envs.experts.robosuite import RobosuiteExpert
from menura.envs.recording import largest_action_step, record
from menura.envs.rendering import choose_backend
from menura.envs.robosuite import RobosuiteEnv
from menura.envs.robosuite_tasks import CONTROLLERS, ROBOTS, TASKS, in_order_of_1_4
from menura.errors import ContractError, EnvironmentFailure

choose_backend()  # before robosuite brings mujoco, and its own choice, with it
pytest.importorskip("robosuite")
pytestmark = pytest.mark.sim

HUMAN = Path(__file__).parents[3] / "shared/fixtures/robosuite_lift_human.hdf5"
needs_human = pytest.mark.skipif(not HUMAN.exists(), reason="robosuite's human demonstrations are not here")


@pytest.fixture(scope="module")
def lift():
    env = RobosuiteEnv("Lift")
    yield env
    env.close()


def rolled(env, seed, steps=10):
    """The states of an episode of random actions."""
    states = [env.reset(seed=seed)[0]["state"]]
    random = np.random.default_rng(seed)
    for _ in range(steps):
        env.advance(random.uniform(-1, 1, env.features.action_dim))
        states.append(env.state())
    return np.stack(states)


def test_the_state_has_the_order_of_robomimic(lift):
    lift.reset(seed=0)
    names, seen = lift.features.state.names, lift.sim._get_observations(force_update=True)
    keys = ("robot0_eef_pos", "robot0_eef_quat", "robot0_gripper_qpos", "object-state")
    assert np.array_equal(lift.state(), np.concatenate([seen[key] for key in keys]).astype(np.float32))
    assert names[:3] == ("robot0_eef_pos_x", "robot0_eef_pos_y", "robot0_eef_pos_z")
    assert lift.features.state.rotations[0].representation == "quat_xyzw"
    assert lift.features.state.object_names == names[9:] == tuple(f"object_{i}" for i in range(10))
    assert lift.object_names == ("cube_pos", "cube_quat", "gripper_to_cube_pos")
    assert (lift.features.fps, lift.features.control_space, lift.features.control_type) == (20, "ee", "delta")
    assert lift.noisy_actions.tolist() == [True] * 6 + [False]


def test_a_step_is_robosuites_own_to_the_bit(lift):
    ends = []
    for step in (lift.apply, lift.sim.step):
        lift.reset(seed=4)
        random = np.random.default_rng(0)
        for _ in range(8):
            step(random.uniform(-1, 1, 7).astype(np.float32).astype(np.float64))
        ends.append(lift.sim.sim.get_state().flatten())
    assert np.array_equal(*ends)


def test_an_episode_is_a_function_of_its_seed_alone(lift):
    np.random.seed(7)  # noqa: NPY002 (robosuite draws from it)
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    first = rolled(lift, 3)
    rolled(lift, 5)
    assert np.array_equal(first, rolled(lift, 3))
    assert np.array_equal(first, rolled(RobosuiteEnv("Lift"), 3))
    assert not np.array_equal(first, rolled(lift, 4))
    assert np.array_equal(np.random.get_state()[1], before)  # noqa: NPY002 (left as it was)


def test_success_is_the_lifted_cube(lift):
    lift.reset(seed=0)
    assert lift.advance(np.zeros(7))[0] == 0
    state = lift.sim.sim.get_state().flatten()
    state[1 + 9 + 2] = 0.9  # the cube's height
    lift.restore(state)
    reward, terminated, _, info = lift.advance(np.zeros(7))
    assert (reward, terminated, info["success"]) == (1, False, True)
    with pytest.raises(EnvironmentFailure, match=r"RobosuiteEnv.restore: expected 32 numbers .* got shape \(3,\)"):
        lift.restore(np.zeros(3))


def test_the_step_limits_are_those_of_the_literature(lift):
    assert lift.max_episode_steps == 400
    assert (TASKS["ToolHang"].max_episode_steps, TASKS["Door"].max_episode_steps) == (700, 500)


@pytest.mark.slow
@pytest.mark.parametrize("task", TASKS)
def test_every_task_resets_by_its_seed_and_steps(task):
    env = RobosuiteEnv(task)
    assert np.array_equal(rolled(env, 1, 4), rolled(env, 1, 4))
    assert env.observation_space.contains(env.observe())
    assert env.protocol()["robots"] == ["Panda"] * TASKS[task].robots
    assert len(env.features.state.object_names) == env.sim._get_observations()["object-state"].size


@pytest.mark.slow
@pytest.mark.parametrize("controller", CONTROLLERS)
def test_every_controller_steps(controller):
    env = RobosuiteEnv("Lift", controller=controller)
    env.reset(seed=0)
    env.advance(env.action_space.sample())
    joints = controller.startswith("JOINT")
    assert env.features.action_dim == (8 if joints else 4 if controller == "OSC_POSITION" else 7)
    assert env.features.control_type == (
        None if "VELOCITY" in controller else "abs" if "ABS" in controller else "delta"
    )
    assert list(env.features.action.grippers) == ["gripper"]


@pytest.mark.slow
@pytest.mark.parametrize("robot", ROBOTS)
def test_every_arm_steps(robot):
    env = RobosuiteEnv("Lift", robots=robot)
    env.reset(seed=0)
    env.advance(np.zeros(7))
    assert env.features.robot == robot.lower()


@pytest.mark.slow
def test_the_pose_in_the_grippers_frame_is_of_the_same_step():
    env = RobosuiteEnv("Can", object_state=False)
    env.reset(seed=0)
    now = env.sensed()
    distance = np.linalg.norm(now["Can_pos"] - now["robot0_eef_pos"])
    assert np.linalg.norm(now["Can_to_robot0_eef_pos"]) == pytest.approx(distance, abs=1e-6)
    assert (env.features.state_dim, env.features.state.object_names) == (9, ())


def test_the_order_of_1_4():
    own = ("Can_to_robot0_eef_pos", "Can_to_robot0_eef_quat", "Can_pos", "Can_quat", "tool_on_frame")
    assert in_order_of_1_4(own) == (*own[2:4], *own[:2], own[4])
    assert in_order_of_1_4(("cube_pos", "gripper_to_cube_pos")) == ("cube_pos", "gripper_to_cube_pos")


def test_wrong_names_are_answered_with_the_nearest(point_env):
    with pytest.raises(EnvironmentFailure, match=r"RobosuiteEnv.task: .* got 'Lft'; did you mean Lift\?"):
        RobosuiteEnv("Lft")
    with pytest.raises(EnvironmentFailure, match=r"RobosuiteEnv.robots: .* got 'Pandas'; did you mean Panda\?"):
        RobosuiteEnv(robots="Pandas")
    with pytest.raises(EnvironmentFailure, match=r"RobosuiteEnv.controller: .* did you mean OSC_POSE"):
        RobosuiteEnv(controller="OSC_POS")
    with pytest.raises(EnvironmentFailure, match=r"RobosuiteEnv.robots: expected 2 for TwoArmLift, got \['Panda'\]"):
        RobosuiteEnv("TwoArmLift", robots=["Panda"])
    with pytest.raises(ContractError, match="RobosuiteExpert: expected a RobosuiteEnv, got PointEnv"):
        RobosuiteExpert().reset(point_env)


@needs_human
def test_human_demonstrations_of_1_4_succeed_again_from_their_recorded_states():
    env = RobosuiteEnv("Lift", compatibility="1.4", max_episode_steps=600)
    reader = open_dataset({"path": str(HUMAN), "args": {"fps": 20}})
    assert env.features.action == reader.features.action
    with h5py.File(HUMAN) as file:
        states = file["data/demo_3/states"][()]
    actions = reader.episode(2).action
    env.reset(seed=0)
    env.restore(states[0])
    for action in actions[:300]:
        env.advance(action)
    arm = slice(1, 8)
    assert env.sim.sim.get_state().flatten()[arm] == pytest.approx(states[300][arm], abs=2e-4)
    assert any(env.advance(action)[3]["success"] for action in actions[300:])


@pytest.mark.parametrize("seed", [0, 1])
def test_the_expert_lifts_the_cube(lift, seed):
    episode = record(lift, RobosuiteExpert(), seed=seed, noise=0.1, extra_steps=0)
    assert episode.success
    assert len(episode) < 60
    assert largest_action_step(episode, lift.noisy_actions) < 1.3


@pytest.mark.slow
@pytest.mark.parametrize("task", ["Can", "Stack", "Square"])
def test_the_expert_solves_the_longer_tasks(task):
    env = RobosuiteEnv(task)
    assert sum(bool(record(env, RobosuiteExpert(), seed=seed).success) for seed in range(5)) >= 4


@pytest.mark.slow
def test_the_expert_asks_for_its_controller():
    env = RobosuiteEnv("Lift", controller="JOINT_POSITION")
    env.reset(seed=0)
    with pytest.raises(ContractError, match=r"RobosuiteExpert: expected one of Lift, .* got Lift with actions joint1"):
        RobosuiteExpert().reset(env)


@pytest.mark.slow
@pytest.mark.usefixtures("drawing")
def test_gymnasium_accepts_it_and_it_draws_only_what_is_asked_for():
    env = RobosuiteEnv("Lift", cameras={"agentview": [16, 24], "robot0_eye_in_hand": [12, 12]})
    check_env(env)
    observation, _ = env.reset(seed=0)
    drawn = env.renderer.drawn
    env.advance(np.zeros(7))
    assert env.renderer.drawn == drawn
    assert {name: image.shape for name, image in observation["images"].items()} == {
        "agentview": (16, 24, 3),
        "robot0_eye_in_hand": (12, 12, 3),
    }
    assert all(image.std() > 0 for image in observation["images"].values())
    assert env.render().shape == (240, 320, 3)
