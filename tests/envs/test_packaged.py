"""Every environment that comes with Menura, as its YAML has it: resets, steps, renders, closes; and does the same in
any number of processes, to the last bit.

Those whose package is not installed are skipped, with their reason. One YAML of each package is tried always, two also
in several processes; the others are `slow`.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Container, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import menura
from menura.components import BUILT_IN
from menura.config import load_env
from menura.data.episode import Float32
from menura.envs import make_env
from menura.envs.rendering import choose_backend
from menura.evaluation.messages import Description
from menura.evaluation.runner import open_pool, run_episodes
from menura.features import Features

pytestmark = pytest.mark.sim

FILES = sorted((Path(menura.__file__).parent / "configs" / "env").glob("*.yaml"))
#: Class -> the module that must be there.
PACKAGES = {
    "Aloha": "gym_aloha",
    "MetaWorld": "metaworld",
    "PushT": "gym_pusht",
    "GymRobotics": "gymnasium_robotics",
    "PandaGym": "panda_gym",
    "Robosuite": "robosuite",
    "DmControl": "dm_control",
    "Libero": "libero",
    "ManiSkill": "mani_skill",
    "SimplerEnv": "simpler_env",
    "RoboTwin": "sapien",
    "Calvin": "calvin_agent",
    "RoboCasa": "robocasa",
}
STEPS = 6
#: Their actions are torques or speeds, as the actuators take them: neither a pose nor a change of one.
ACTUATED = {"DmControl"}


def cases(classes: Container[str] = PACKAGES) -> Iterator[Any]:
    """All YAMLs; the first of each of `classes` is not slow."""
    tried: set[str] = set()
    for file in FILES:
        class_ = load_env(file).class_
        always = class_ in classes and class_ not in tried
        yield pytest.param(file.stem, id=file.stem, marks=[] if always else [pytest.mark.slow])
        tried.add(class_)


@pytest.fixture
def env(request: pytest.FixtureRequest) -> dict[str, Any]:
    """The environment of that name, with short episodes."""
    config = load_env(request.param)
    package = PACKAGES[config.class_]
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"the package {package} is not installed")
    choose_backend()
    return {"class": config.class_, "args": {**config.args, "max_episode_steps": STEPS}}


def test_every_class_has_a_yaml_and_is_known_here() -> None:
    classes = {load_env(file).class_ for file in FILES}
    assert classes == set(PACKAGES) == set(BUILT_IN["env"]) - {"Gym"}


@pytest.mark.parametrize("env", cases(), indirect=True)
def test_resets_steps_renders_and_closes(env: dict[str, Any]) -> None:
    made = make_env(env)
    observation, info = made.reset(seed=7)
    assert made.observation_space.contains(observation)
    assert info == {"seed": 7, "success": False}
    low, high = made.action_space.low, made.action_space.high  # type: ignore[attr-defined]
    assert (low < high).all()
    random = np.random.default_rng(0)
    for step in range(STEPS):
        observation, reward, terminated, truncated, info = made.step(middle(low, high, random.uniform(-0.2, 0.2)))
        assert made.observation_space.contains(observation)
        assert np.isfinite(observation["state"]).all()
        assert np.isfinite(reward)
        assert isinstance(info["success"], bool)
        assert truncated == (step == STEPS - 1)
        if terminated:
            break
    frame = made.render()
    assert frame.dtype == np.uint8
    assert frame.ndim == 3
    assert frame.std() > 1  # something is seen
    for camera, image in observation["images"].items():
        assert image.std() > 1, camera
    protocol = made.protocol()
    assert protocol["success_rule"]
    assert Features.from_dict(protocol["features"]) == made.features
    assert made.features.fps > 0
    assert made.noisy_actions.shape == (made.features.action_dim,)
    made.close()


def middle(low: Any, high: Any, share: Any) -> Float32:
    """An action near the middle of the bounds (A,), away by a share of their width."""
    low, high = np.nan_to_num(low, neginf=-1), np.nan_to_num(high, posinf=1)
    action: Float32 = ((low + high) / 2 + share * (high - low)).astype(np.float32)
    return action


class Reflex:
    """Stays near the middle, moved a little by everything it sees, so that one different bit changes an episode."""

    one_plan = False
    identity: dict[str, Any] = {"name": "reflex", "hash": "0"}  # noqa: RUF012
    execution: dict[str, Any] = {}  # noqa: RUF012

    def __init__(self, cameras: tuple[str, ...]) -> None:
        self.cameras = cameras
        self.seen: list[bytes] = []

    def check(self, environment: Description) -> None:
        self._bounds = np.array(environment.action_low), np.array(environment.action_high)

    def session(self, num_envs: int, environment: Description) -> Reflex:
        return self

    def reset(self, rows: Sequence[int] | None = None, seeds: Sequence[int] | None = None) -> None:
        pass

    def plan(self, obs: Mapping[str, Any], rows: Sequence[int]) -> list[Float32]:
        seen = obs["state"].astype(np.float64).sum(axis=1)
        self.seen.append(obs["state"].tobytes())
        for images in obs["images"].values():
            self.seen.append(images.tobytes())
            seen = seen + images.reshape(len(rows), -1).mean(axis=1)
        return [np.repeat(middle(*self._bounds, 0.02 * np.sin(10 * s))[None], 3, axis=0) for s in seen]


@pytest.mark.parametrize("env", cases({"Aloha", "MetaWorld"}), indirect=True)
def test_the_number_of_processes_changes_nothing(env: dict[str, Any]) -> None:
    made = make_env(env)
    cameras = tuple(made.features.cameras)
    made.close()
    outcomes, seen = [], []
    for workers in (1, 2, 4):
        policy = Reflex(cameras)
        with open_pool(env, num_envs=4, num_workers=workers) as pool:
            results = run_episodes(policy, pool, seeds=range(100, 105), num_envs=4, progress=False)
        outcomes.append((results.episodes, results.fingerprint))
        seen.append(policy.seen)
    assert outcomes[0] == outcomes[1] == outcomes[2]
    assert seen[0] == seen[1] == seen[2]
    assert_complete(results.protocol, cameras, actuated=env["class"] in ACTUATED)


def assert_complete(protocol: Mapping[str, Any], cameras: tuple[str, ...], actuated: bool) -> None:
    """Everything that shapes a success rate, but for the policy, is said."""
    environment = protocol["environment"]
    assert environment["versions"]
    assert environment["success_rule"]
    assert environment["max_episode_steps"] == STEPS
    features = Features.from_dict(environment["features"])
    assert actuated or features.control_space in ("joint", "ee")
    assert actuated == (features.control_type is None)
    assert features.fps > 0
    assert tuple(features.cameras) == cameras
    assert (protocol["episodes"], protocol["seeds"]["first"]) == (5, 100)
    assert {"execution", "stop_at_success", "success"} < protocol.keys()
