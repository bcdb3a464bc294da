"""PushT: what is seen, two rules of success, pictures without OpenGL, and an expert that tries out pushes."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from hypothesis import given, settings
from hypothesis import strategies as st

from menura.envs.experts.pusht import PushTExpert
from menura.envs.experts.pusht_geometry import GOAL, STATIONS, distance, error, outward, to_block, to_world, ways
from menura.envs.experts.pusht_physics import PushTPhysics
from menura.envs.pusht import PushTEnv
from menura.envs.recording import largest_action_step, record
from menura.errors import ContractError, EnvironmentFailure

pytest.importorskip("gym_pusht")
pytestmark = pytest.mark.sim


def put(env, pose, agent=(450.0, 450.0)):
    """Sets the block to a pose and the pusher far away."""
    env.sim.block.angle = float(pose[2])
    env.sim.block.position = (float(pose[0]), float(pose[1]))
    env.sim.agent.position = agent
    env.sim.space.reindex_shapes_for_body(env.sim.block)
    env.sim.space.reindex_shapes_for_body(env.sim.agent)


def walk(env, seed, steps=30):
    observation, _ = env.reset(seed=seed)
    rng = np.random.default_rng(seed)
    for _ in range(steps):
        observation = env.step(rng.uniform(0, 512, 2).astype(np.float32))[0]
    return observation["state"]


def test_the_state_is_the_packages_own():
    env = PushTEnv()
    observation, _ = env.reset(seed=3)
    assert env.observation_space.contains(observation)
    assert env.features.state.names == ("agent_x", "agent_y", "block_x", "block_y", "block_angle")
    assert env.features.state.object_names == ("block_x", "block_y", "block_angle")
    assert np.array_equal(observation["state"], env.sim.get_obs().astype(np.float32))
    assert (env.features.fps, env.features.control_space, env.features.control_type) == (10, "ee", "abs")
    assert (env.action_space.low.tolist(), env.action_space.high.tolist()) == ([0, 0], [512, 512])


def test_keypoints_are_the_corners_of_the_bars():
    env = PushTEnv(observed="keypoints", agent_velocity=True)
    state = env.reset(seed=3)[0]["state"]
    assert (len(state), len(env.features.state.object_names)) == (20, 16)
    assert env.features.state.names[-2:] == ("agent_vx", "agent_vy")
    corners = to_block(np.array([*env.sim.block.position, env.sim.block.angle]), state[2:18].reshape(8, 2))
    assert sorted(map(tuple, corners.round(2).tolist()))[0] == (-60, 0)
    assert distance(corners) == pytest.approx(np.zeros(8), abs=1e-3)


def test_without_the_block_the_state_is_the_pusher():
    env = PushTEnv(object_state=False)
    assert env.features.state.names == ("agent_x", "agent_y")
    assert env.features.state.object_names == ()


@pytest.mark.parametrize("observed", ["state", "keypoints"])
def test_an_episode_is_a_function_of_its_seed_alone(observed):
    used, fresh = PushTEnv(observed=observed), PushTEnv(observed=observed)
    walk(used, 4, 10)
    wanted = walk(fresh, 3)
    assert np.array_equal(walk(used, 3), wanted)
    assert not np.array_equal(used.reset(seed=4)[0]["state"], used.reset(seed=3)[0]["state"])


@pytest.mark.parametrize(
    ("offset", "coverage", "final_reward", "ended"),
    [(1.0, True, True, True), (3.0, False, True, False), (20.0, False, False, False)],
)
def test_the_two_rules_of_success(offset, coverage, final_reward, ended):
    for rule, success in (("coverage", coverage), ("final_reward", final_reward)):
        env = PushTEnv(success=rule, max_episode_steps=1)
        env.reset(seed=0)
        put(env, GOAL + np.array([offset, 0, 0]))
        reward, terminated, truncated, info = env.advance(np.array([450, 450], np.float32))
        assert (info["success"], terminated, truncated) == (success, ended, True)
        measures = info["measures"]
        assert measures["success_coverage"] == coverage == (measures["coverage"] > 0.95)
        assert measures["success_final_reward"] == final_reward == (reward >= 0.95)
        assert reward == pytest.approx(min(1.0, measures["coverage"] / 0.95))


def test_the_final_reward_counts_at_the_last_step_only():
    env = PushTEnv(success="final_reward", max_episode_steps=2)
    env.reset(seed=0)
    put(env, GOAL + np.array([3.0, 0, 0]))
    assert [env.advance(np.array([450, 450], np.float32))[3]["success"] for _ in range(2)] == [False, True]


def test_pictures_are_drawn_only_when_asked_for(monkeypatch):
    env = PushTEnv(cameras={"view": [96, 96]}, video_size=(120, 100))
    drawn = []
    draw = env.sim._draw
    monkeypatch.setattr(env.sim, "_draw", lambda: drawn.append(1) or draw())
    first = env.reset(seed=0)[0]["images"]["view"]
    env.advance(np.array([10, 10], np.float32))
    assert len(drawn) == 1
    assert env.features.cameras["view"].height == 96
    other = env.reset(seed=1)[0]["images"]["view"]
    again = env.reset(seed=0)[0]["images"]["view"]
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    assert env.render().shape == (120, 100, 3)


def test_gymnasium_accepts_it():
    check_env(PushTEnv(cameras={"view": [16, 24]}))


def test_what_is_unknown_is_told_the_nearest(point_env):
    with pytest.raises(EnvironmentFailure, match=r"PushTEnv.observed: .* got 'keypoint'; did you mean keypoints\?"):
        PushTEnv(observed="keypoint")
    with pytest.raises(EnvironmentFailure, match=r"PushTEnv.success: expected one of coverage, final_reward, got"):
        PushTEnv(success="reward")
    with pytest.raises(EnvironmentFailure, match=r"cameras: expected one of view, got 'top'"):
        PushTEnv(cameras={"top": [96, 96]})
    with pytest.raises(ContractError, match="PushTExpert: expected a PushTEnv, got PointEnv"):
        PushTExpert().reset(point_env)


@pytest.mark.parametrize("seed", [0, 6, 100_000])
def test_the_expert_covers_the_goal(seed):
    episode = record(PushTEnv(), PushTExpert(), seed=seed, extra_steps=0)
    assert episode.success
    assert largest_action_step(episode, np.ones(2, bool)) < 60
    again = record(PushTEnv(), PushTExpert(), seed=seed, extra_steps=0)
    assert np.array_equal(episode.action, again.action)


def test_the_expert_comes_back_from_noise():
    assert record(PushTEnv(), PushTExpert(), seed=1, noise=0.5, extra_steps=0).success


@pytest.mark.slow
def test_the_expert_succeeds_for_all_of_forty_seeds():
    env = PushTEnv()
    assert [seed for seed in range(200, 240) if not record(env, PushTExpert(), seed=seed).success] == []


def test_the_copy_of_the_physics_moves_as_the_environment_does():
    env = PushTEnv()
    env.reset(seed=2)
    physics = PushTPhysics()
    physics.place(np.array([*env.sim.block.position, env.sim.block.angle]), np.array(env.sim.agent.position))
    target = np.array(env.sim.block.position)  # straight into the block
    before = physics.pose
    for _ in range(10):
        env.advance(target.astype(np.float32))
        physics.act(target.astype(np.float32).astype(float))
    assert np.linalg.norm(physics.pose[:2] - before[:2]) > 5
    assert physics.pose == pytest.approx([*env.sim.block.position, env.sim.block.angle], abs=0.01)


POSES = st.tuples(st.floats(150, 360), st.floats(150, 360), st.floats(-3, 3)).map(np.array)
POINTS = st.tuples(st.floats(20, 490), st.floats(20, 490)).map(np.array)


@settings(max_examples=25, deadline=None)
@given(POSES, POINTS)
def test_ways_lead_to_their_stations_and_never_into_the_block(pose, agent):
    assert to_world(pose, to_block(pose, agent)) == pytest.approx(agent)
    outside = float(distance(to_block(pose, agent))) > 25
    for way in ways(pose, agent):
        assert way.points[-1] == pytest.approx(to_world(pose, STATIONS[way.station]))
        line = np.vstack([agent, way.points]) if outside else way.points
        between = np.concatenate([np.linspace(a, b, 20) for a, b in pairwise(line)] or [line])
        assert distance(to_block(pose, between)).min() > 15


@given(st.floats(-80, 80), st.floats(-40, 140))
def test_outward_leads_away_from_the_block(x, y):
    point = np.array([x, y])
    if float(distance(point)) > 1:
        assert distance(point + 0.5 * outward(point)) > distance(point)


def test_the_error_is_none_at_the_goal_and_does_not_count_turns():
    assert error(GOAL) == pytest.approx(0)
    assert error(GOAL + np.array([0, 0, 4 * np.pi])) == pytest.approx(0, abs=1e-6)
    assert error(GOAL + np.array([3, 4, 0])) == pytest.approx(5)
