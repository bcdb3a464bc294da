"""ALOHA: seeds, honest actions, cameras, and the expert."""

from __future__ import annotations

import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from menura.envs.aloha import GRIPPERS, AlohaEnv
from menura.envs.experts.aloha_transfer import AlohaTransferExpert, plan_transfer
from menura.envs.experts.inverse_kinematics import ArmKinematics
from menura.errors import ContractError, EnvironmentFailure

pytestmark = [pytest.mark.sim, pytest.mark.usefixtures("aloha")]

START = np.array([0, -0.96, 1.16, 0, -0.3, 0, 0.1] * 2, np.float32)


@pytest.fixture
def env():
    env = AlohaEnv()
    yield env
    env.close()


def follow(env, expert, seed, steps):
    observation, _ = env.reset(seed=seed)
    expert.reset(env)
    rewards, success = [], False
    for _ in range(steps):
        reward, _, _, info = env.advance(expert.act(observation))
        rewards.append(reward)
        success |= info["success"]
    return env.observe(), rewards, success


def test_the_features_describe_the_observation(env):
    observation, _ = env.reset(seed=0)
    assert env.observation_space.contains(observation)
    assert env.features.state.object_names == ("cube_x", "cube_y", "cube_z")
    state = dict(zip(env.features.state.names, observation["state"].tolist(), strict=True))
    assert (state["cube_x"], state["cube_y"], state["cube_z"]) == pytest.approx(env.object_positions()[0], abs=1e-6)
    assert state["right_elbow"] == pytest.approx(1.16)
    assert (env.features.fps, env.features.control_space, env.features.control_type) == (50, "joint", "abs")


def test_without_the_object_the_state_is_the_joints():
    env = AlohaEnv(object_state=False)
    assert env.reset(seed=0)[0]["state"].shape == (14,)
    assert env.features.state.object_names == ()


def test_an_episode_is_a_function_of_its_seed_alone(env):
    first, _, _ = follow(env, AlohaTransferExpert(), 3, 120)
    follow(env, AlohaTransferExpert(), 4, 30)
    after_another, _, _ = follow(env, AlohaTransferExpert(), 3, 120)
    fresh, _, _ = follow(AlohaEnv(), AlohaTransferExpert(), 3, 120)
    assert np.array_equal(first["state"], after_another["state"])
    assert np.array_equal(first["state"], fresh["state"])
    assert not np.array_equal(env.reset(seed=3)[0]["state"], env.reset(seed=4)[0]["state"])


def test_joint_targets_beyond_one_radian_are_reached(env):
    env.reset(seed=0)
    target = START.copy()
    target[7] = 1.4  # the right arm's waist
    for _ in range(60):
        env.advance(target)
    assert env.state()[7] == pytest.approx(1.4, abs=0.05)
    assert env.action_space.contains(target)
    assert env.action_space.high[0] == pytest.approx(np.pi, abs=1e-3)
    assert env.action_space.high[list(GRIPPERS)].tolist() == [1, 1]


def test_unknown_tasks_and_cameras_are_told_what_there_is():
    with pytest.raises(
        EnvironmentFailure, match=r"AlohaEnv.task: .* got 'transfer_cub'; did you mean 'transfer_cube'\?"
    ):
        AlohaEnv(task="transfer_cub")
    with pytest.raises(
        EnvironmentFailure, match=r"cameras: expected one of view, .*top.*, got 'tpo'; did you mean 'top'\?"
    ):
        AlohaEnv(cameras={"tpo": [8, 8]})
    with pytest.raises(EnvironmentFailure, match=r"cameras.top: expected \[height, width\] in pixels, got \[8\]"):
        AlohaEnv(cameras={"top": [8]})
    with pytest.raises(EnvironmentFailure, match=r"cameras.mine: expected size, lookat, distance, azimuth, elevation"):
        AlohaEnv(cameras={"mine": {"size": [8, 8], "lookat": [0, 0, 0]}})


def test_insertion_has_two_objects():
    env = AlohaEnv(task="insertion")
    observation, _ = env.reset(seed=1)
    assert observation["state"].shape == (20,)
    assert env.features.state.object_names[0] == "peg_x"
    assert env.advance(START)[0] == 0
    with pytest.raises(ContractError, match=r"expected an AlohaEnv of task transfer_cube"):
        AlohaTransferExpert().reset(env)


@pytest.mark.usefixtures("drawing")
def test_gymnasium_accepts_it():
    check_env(AlohaEnv(cameras={"top": [16, 24]}))


@pytest.mark.usefixtures("drawing")
def test_only_the_cameras_asked_for_are_drawn_at_the_size_asked_for(env):
    env.reset(seed=0)
    env.step(START)
    assert env.renderer.drawn == 0

    own = {"size": [12, 10], "lookat": [0, 0.5, 0.1], "distance": 1, "azimuth": 0, "elevation": -45}
    env = AlohaEnv(cameras={"top": [24, 32], "mine": own})
    observation, _ = env.reset(seed=0)
    assert env.renderer.drawn == 2
    env.advance(START)
    assert env.renderer.drawn == 2
    assert {name: image.shape for name, image in observation["images"].items()} == {
        "top": (24, 32, 3),
        "mine": (12, 10, 3),
    }
    assert all(image.std() > 0 for image in observation["images"].values())
    poses = env.protocol()["camera_poses"]
    assert (poses["top"], poses["mine"]["elevation"]) == (None, -45)
    assert env.render().shape == (240, 320, 3)
    assert env.renderer.drawn == 3


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_expert_hands_the_cube_over(env, seed):
    _, rewards, success = follow(env, AlohaTransferExpert(), seed, 300)
    assert success
    assert rewards[-1] == 4  # still held at the end
    stages = [rewards.index(stage) for stage in (1, 2, 4)]
    assert stages == sorted(stages)


@pytest.mark.slow
def test_the_expert_succeeds_for_all_of_twenty_seeds(env):
    assert [seed for seed in range(100, 120) if not follow(env, AlohaTransferExpert(), seed, 300)[2]] == []


def test_the_experts_joints_never_jump(env, record_property):
    largest = 0.0
    for seed in range(20):
        observation, _ = env.reset(seed=seed)
        plan = np.vstack([observation["state"][:14], plan_transfer(env.model, env.object_positions()[0])])
        largest = max(largest, float(np.abs(np.diff(plan, axis=0))[:, env.noisy_actions].max()))
    record_property("largest_joint_step_rad", largest)
    assert largest < 0.05


def test_inverse_kinematics_comes_back_to_the_joints_it_came_from(env):
    joints = ("waist", "shoulder", "elbow", "forearm_roll", "wrist_angle", "wrist_rotate")
    arm = ArmKinematics(
        env.model, tuple(f"vx300s_left/{joint}" for joint in joints), "vx300s_left/gripper_link", (0.13, 0, 0)
    )
    wanted = np.array([0.3, -0.7, 0.9, 0.2, -0.1, 0.4])
    position, rotation = arm.forward(wanted)
    found, error = arm.solve(position, rotation, wanted + 0.2)
    assert error < 1e-3
    assert arm.forward(found)[0] == pytest.approx(position, abs=1e-3)
    assert arm.forward(found)[1] == pytest.approx(rotation, abs=1e-2)


def test_a_simulation_that_diverges_loses_the_episode_and_not_the_run(env):
    rng = np.random.default_rng(0)
    low, high = env.action_space.low, env.action_space.high
    diverged = False
    for seed in range(20):
        env.reset(seed=seed)
        for _ in range(env.max_episode_steps):
            _, terminated, truncated, info = env.advance(rng.uniform(low, high).astype(np.float32))
            if terminated:
                assert info == {"diverged": True, "success": False}
                assert np.isfinite(env.observe()["state"]).all()
                diverged = True
            if terminated or truncated:
                break
        if diverged:
            break
    assert diverged
    env.reset(seed=0)
    assert env.advance(START)[1] is False
