"""ALOHA: seeds, honest actions, cameras, and the expert."""

from __future__ import annotations

import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from menura.envs.aloha import AlohaEnv
from menura.envs.aloha_arms import GripperPoses, arm_kinematics
from menura.envs.experts.aloha_insertion import AlohaInsertionExpert
from menura.envs.experts.aloha_transfer import AlohaTransferExpert
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
    assert env.action_space.high[[6, 13]].tolist() == [1, 1]


def test_unknown_tasks_and_cameras_are_told_what_there_is():
    with pytest.raises(EnvironmentFailure, match=r"AlohaEnv.task: .* got 'transfer_cub'; did you mean transfer_cube\?"):
        AlohaEnv(task="transfer_cub")
    with pytest.raises(EnvironmentFailure, match=r"AlohaEnv.control: expected one of joint, ee, got 'pose'"):
        AlohaEnv(control="pose")
    with pytest.raises(
        EnvironmentFailure, match=r"cameras: expected one of view, .*top.*, got 'tpo'; did you mean top\?"
    ):
        AlohaEnv(cameras={"tpo": [8, 8]})
    with pytest.raises(EnvironmentFailure, match=r"cameras.top: expected \[height, width\] in pixels, got \[8\]"):
        AlohaEnv(cameras={"top": [8]})
    with pytest.raises(EnvironmentFailure, match=r"cameras.mine: expected size, lookat, distance, azimuth, elevation"):
        AlohaEnv(cameras={"mine": {"size": [8, 8], "lookat": [0, 0, 0]}})


def test_insertion_tells_where_peg_and_socket_are_and_how_they_are_turned():
    env = AlohaEnv(task="insertion")
    observation, _ = env.reset(seed=1)
    assert observation["state"].shape == (28,)
    state = dict(zip(env.features.state.names, observation["state"].tolist(), strict=True))
    assert [state[f"socket_{axis}"] for axis in "xyz"] == pytest.approx(env.object_positions()[1], abs=1e-6)
    assert [state[name] for name in ("peg_qw", "peg_qx", "peg_qy", "peg_qz")] == [1, 0, 0, 0]
    assert [rotation.names[0] for rotation in env.features.state.rotations] == ["peg_qw", "socket_qw"]
    assert set(env.features.state.object_names) == set(env.features.state.names[14:])
    assert env.advance(START)[0] == 0
    with pytest.raises(ContractError, match=r"expected an AlohaEnv of task transfer_cube, got task insertion"):
        AlohaTransferExpert().reset(env)


def test_objects_may_be_told_without_rotations_or_with_them():
    assert AlohaEnv(task="insertion", object_rotation=False).features.state_dim == 20
    assert AlohaEnv(object_rotation=True).features.state.names[-4:] == ("cube_qw", "cube_qx", "cube_qy", "cube_qz")


def test_starts_can_be_spread_wider_about_the_same_middle(env):
    env.reset(seed=0)
    usual = env.object_positions()[0]
    env.perturb({"start_spread": 0.5})
    env.reset(seed=0)
    assert env.object_positions()[0] == pytest.approx(
        [0.1 + 1.5 * (usual[0] - 0.1), 0.5 + 1.5 * (usual[1] - 0.5), usual[2]]
    )


def test_rewards_and_stages_are_those_of_gym_aloha(env):
    observation, _ = env.reset(seed=0)
    expert = AlohaTransferExpert()
    expert.reset(env)
    released = []
    for _ in range(300):
        reward, _, _, info = env.advance(expert.act(observation))
        measures = info["measures"]
        assert [measures[stage] for stage in ("touched", "lifted", "attempted")] == [reward >= r for r in (1, 2, 3)]
        assert info["success"] == (reward == 4)
        released.append(measures["released"])
    assert released[-1] == 1
    assert 20 < sum(released) < 100  # touched by the left gripper alone only near the end


def test_peg_and_socket_of_the_expert_are_held_when_they_are_joined():
    env = AlohaEnv(task="insertion", max_episode_steps=400)
    observation, _ = env.reset(seed=0)
    expert = AlohaInsertionExpert()
    expert.reset(env)
    best = dict.fromkeys(("touched", "grasped", "contact", "held"), 0.0)
    for _ in range(340):
        _, _, _, info = env.advance(expert.act(observation))
        best = {name: max(value, info["measures"][name]) for name, value in best.items()}
    assert info["success"]
    assert best == dict.fromkeys(best, 1.0)


def test_poses_of_the_grippers_are_executed():
    env = AlohaEnv(control="ee")
    observation, _ = env.reset(seed=0)
    assert (env.features.control_space, env.features.action_dim, env.features.state_dim) == ("ee", 16, 19)
    assert [rotation.representation for rotation in env.features.action.rotations] == ["quat_wxyz"] * 2
    assert env.noisy_actions.tolist() == ([True] * 7 + [False]) * 2
    target = observation["state"][:16].copy()
    target[8:11] += [-0.03, 0.04, 0.05]  # the right one
    for _ in range(80):
        env.advance(target)
    assert env.state()[8:11] == pytest.approx(target[8:11], abs=0.01)
    assert np.abs(env.state()[11:15]) == pytest.approx(np.abs(target[11:15]), abs=0.03)
    assert env.action_space.contains(target)


def test_a_pose_and_the_joints_it_comes_from_are_the_same(env):
    env.reset(seed=0)
    joints = np.array([0.1, -0.8, 1.0, 0.05, -0.2, 0.1, 0.4, -0.2, -0.9, 1.1, -0.05, -0.3, 0.2, 0.7])
    poses = GripperPoses(env.model)
    assert poses.joint_targets(poses.of(joints)) == pytest.approx(joints, abs=0.01)
    doubled = poses.of(joints) * np.tile([1, 1, 1, 2, 2, 2, 2, 1], 2)
    assert poses.joint_targets(doubled) == pytest.approx(joints, abs=0.01)
    none = poses.of(joints) * np.tile([1, 1, 1, 0, 0, 0, 0, 1], 2)
    assert poses.joint_targets(none) == pytest.approx(joints, abs=0.01)  # where they were
    poses.reset()
    assert poses.joint_targets(none)[:6] == pytest.approx(START[:6], abs=1e-6)


def test_an_episode_driven_by_poses_is_a_function_of_its_seed_alone():
    env = AlohaEnv(control="ee")
    first, _, _ = follow(env, AlohaTransferExpert(), 3, 120)
    follow(env, AlohaTransferExpert(), 4, 30)
    after_another, _, _ = follow(env, AlohaTransferExpert(), 3, 120)
    assert np.array_equal(first["state"], after_another["state"])


@pytest.mark.parametrize(
    ("expert", "task", "steps"), [(AlohaTransferExpert, "transfer_cube", 300), (AlohaInsertionExpert, "insertion", 340)]
)
def test_the_experts_drive_by_poses_too(expert, task, steps):
    assert follow(AlohaEnv(task=task, control="ee", max_episode_steps=400), expert(), 5, steps)[2]


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


@pytest.mark.parametrize("seed", [0, 1])
def test_the_expert_inserts_the_peg(seed):
    env = AlohaEnv(task="insertion", max_episode_steps=400)
    _, rewards, success = follow(env, AlohaInsertionExpert(), seed, 400)
    assert success
    assert rewards[-1] == 4  # still held there


@pytest.mark.slow
@pytest.mark.parametrize(
    ("expert", "task"), [(AlohaTransferExpert, "transfer_cube"), (AlohaInsertionExpert, "insertion")]
)
def test_the_experts_succeed_for_all_of_twenty_seeds(expert, task):
    env = AlohaEnv(task=task, max_episode_steps=400)
    assert [seed for seed in range(100, 120) if not follow(env, expert(), seed, 330)[2]] == []


@pytest.mark.parametrize(
    ("expert", "task"), [(AlohaTransferExpert, "transfer_cube"), (AlohaInsertionExpert, "insertion")]
)
def test_the_experts_joints_never_jump(expert, task):
    env = AlohaEnv(task=task)
    for seed in range(8):
        observation, _ = env.reset(seed=seed)
        plan = np.vstack([observation["state"][:14], expert().plan(env)])
        assert np.abs(np.diff(plan, axis=0))[:, env.noisy_actions].max() < 0.05


def test_inverse_kinematics_comes_back_to_the_joints_it_came_from(env):
    arm = arm_kinematics(env.model, "left")
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
                assert (info["diverged"], info["success"], set(info["measures"].values())) == (True, False, {0.0})
                assert np.isfinite(env.observe()["state"]).all()
                diverged = True
            if terminated or truncated:
                break
        if diverged:
            break
    assert diverged
    env.reset(seed=0)
    assert env.advance(START)[1] is False
