"""Perturbations: nothing but what they say is changed, as a function of the seed; what cannot be done is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from menura.envs import make_env
from menura.envs.base import SimEnv
from menura.envs.perturbation import Perturbation, perturbed
from menura.errors import ConfigError, EnvironmentFailure

PIXELS = {"class": "MetaWorld", "args": {"task": "reach", "cameras": {"view": [32, 40]}}}


def begun(word: str, env: SimEnv, seed: int = 3) -> SimEnv:
    made = perturbed(env, Perturbation.of([word]))
    made.reset(seed=seed)
    return made


def test_it_is_read_from_words_and_tells_what_it_changes() -> None:
    found = Perturbation.of(["noise=0.05", "latency=2", "light=0"])
    assert found.changes == {"noise": 0.05, "latency": 2}
    assert str(found) == "noise=0.05, latency=2"
    assert found.of_pictures == ["noise"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nois=0.05"], "got 'nois=0.05'; did you mean noise"),
        (["noise"], "expected a number >= 0 for noise, got ''"),
        (["noise=-1"], "expected a number >= 0"),
        (["noise=nan"], "expected a number >= 0"),
        (["latency=1.5"], "expected a whole number of steps >= 0"),
        (["noise=1", "noise=2"], "got noise twice"),
    ],
)
def test_what_makes_no_sense_is_refused(words: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Perturbation.of(words)


def test_without_any_change_it_is_the_environment_itself(point_env: Any) -> None:
    assert perturbed(point_env, Perturbation()) is point_env


def test_latency_delays_every_action_and_holds_the_first(point_env: Any) -> None:
    env = begun("latency=2", point_env)
    start = env.state()[0]
    moved = []
    for dx in (0.1, 0.2, 0.3, 0.0):
        env.advance(np.array([dx, 0], np.float32))
        moved.append(env.state()[0] - start)
    np.testing.assert_allclose(moved, np.cumsum([0.1, 0.1, 0.1, 0.2]), rtol=1e-5)
    env.reset(seed=3)  # nothing of the episode before is still on its way
    env.advance(np.array([0.3, 0], np.float32))
    assert env.state()[0] - start == pytest.approx(0.3, rel=1e-5)


def test_noise_of_the_state_is_of_the_size_asked_for_and_repeats_with_the_seed(point_env: Any) -> None:
    env = begun("state_noise=0.1", point_env)
    noises = []
    for seed in range(300):
        env.begin(seed)
        noises.append(env.state() - point_env.state())
    assert np.std(noises) == pytest.approx(0.1, rel=0.15)
    assert np.mean(noises) == pytest.approx(0, abs=0.02)
    env.begin(7)
    first = env.state()
    env.advance(np.zeros(2, np.float32))
    later = env.state()
    env.begin(7)
    env.advance(np.zeros(2, np.float32))
    assert np.array_equal(env.state(), later)  # whether or not it was looked at before
    assert not np.array_equal(first, later)


def test_success_measures_limit_and_protocol_are_those_of_the_environment(point_env: Any) -> None:
    env = begun("latency=1", point_env)
    assert (env.max_episode_steps, env.success_rule) == (point_env.max_episode_steps, point_env.success_rule)
    assert env.protocol() == {**point_env.protocol(), "perturbation": {"latency": 1}}
    assert env.unwrapped is point_env
    with pytest.raises(EnvironmentFailure, match=r"PointEnv: .*colour, noise, .*latency.*, got start_spread"):
        perturbed(point_env, Perturbation.of(["start_spread=0.5"]))


@pytest.mark.sim
@pytest.mark.parametrize("word", ["camera_shift=0.05", "light=0.8", "colour=0.3", "noise=0.05"])
def test_pictures_change_and_states_do_not(word: str) -> None:
    plain = make_env(PIXELS)
    plain.reset(seed=3)
    env = begun(word, make_env(PIXELS))
    image = env.image("view")
    assert np.array_equal(env.state(), plain.state())
    assert np.abs(image.astype(float) - plain.image("view")).mean() > 1
    env.reset(seed=4)
    assert not np.array_equal(env.image("view"), image)
    env.reset(seed=3)
    assert np.array_equal(env.image("view"), image)


@pytest.mark.sim
def test_starts_are_spread_wider() -> None:
    def spread(env: SimEnv) -> float:
        goals = []
        for seed in range(40):
            env.begin(seed)
            goals.append(env.unwrapped.full_state[-3:])  # type: ignore[attr-defined]  # MetaWorldEnv has one
        return float(np.ptp(goals, axis=0).max())

    args = {"class": "MetaWorld", "args": {"task": "reach"}}
    assert spread(perturbed(make_env(args), Perturbation.of(["start_spread=0.5"]))) > 1.3 * spread(make_env(args))
