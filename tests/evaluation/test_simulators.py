"""The simulators themselves do the same in any number of processes, to the last bit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest

from menura.data.episode import Float32
from menura.envs.rendering import choose_backend
from menura.evaluation.messages import Description
from menura.evaluation.runner import open_pool, run_episodes
from menura.features import Features

pytestmark = pytest.mark.sim


class Reflex:
    """Stays near where it is, moved a little by everything it sees, so that one different bit changes an episode."""

    one_plan = False
    identity: dict[str, Any] = {"name": "reflex", "hash": "0"}  # noqa: RUF012
    execution: dict[str, Any] = {}  # noqa: RUF012

    def __init__(self, cameras: tuple[str, ...]) -> None:
        self.cameras = cameras
        self.seen: list[bytes] = []

    def check(self, environment: Description) -> None:
        self._width = Features.from_dict(environment.features).action_dim

    def session(self, num_envs: int, environment: Description) -> Reflex:
        return self

    def reset(self, rows: Sequence[int] | None = None, seeds: Sequence[int] | None = None) -> None:
        pass

    def plan(self, obs: Mapping[str, Any], rows: Sequence[int]) -> list[Float32]:
        seen = obs["state"].sum(axis=1)
        self.seen.append(obs["state"].tobytes())
        for images in obs["images"].values():
            self.seen.append(images.tobytes())
            seen = seen + images.reshape(len(rows), -1).mean(axis=1)
        base = np.zeros((len(rows), self._width)) if self.cameras else obs["state"][:, : self._width]
        return [np.repeat((row + 0.05 * np.sin(10 * s))[None], 5, axis=0) for row, s in zip(base, seen, strict=True)]


@pytest.mark.parametrize(
    ("package", "env", "cameras"),
    [
        ("gym_aloha", {"class": "Aloha", "args": {"max_episode_steps": 15}}, ()),
        (
            "metaworld",
            {"class": "MetaWorld", "args": {"cameras": {"view": [32, 32]}, "max_episode_steps": 15}},
            ("view",),
        ),
    ],
)
def test_the_number_of_processes_changes_nothing(package: str, env: dict[str, Any], cameras: tuple[str, ...]) -> None:
    backend = choose_backend()  # before mujoco comes with the package
    pytest.importorskip(package)
    if cameras and backend == "disabled":
        pytest.skip("nothing can be drawn here")
    outcomes, seen = [], []
    for workers in (1, 2, 4):
        policy = Reflex(cameras)
        with open_pool(env, num_envs=4, num_workers=workers) as pool:
            results = run_episodes(policy, pool, seeds=range(100, 105), num_envs=4, progress=False)
        outcomes.append(results.episodes)
        seen.append(policy.seen)
    assert outcomes[0] == outcomes[1] == outcomes[2]
    assert seen[0] == seen[1] == seen[2]
    assert all(episode.steps == 15 for episode in outcomes[0])
    assert_complete(results.protocol, cameras)


def assert_complete(protocol: Mapping[str, Any], cameras: tuple[str, ...]) -> None:
    """Everything that shapes a success rate, but for the policy, is said."""
    environment = protocol["environment"]
    assert {"mujoco", "gymnasium"} < environment["versions"].keys()
    assert environment["success_rule"]
    assert environment["max_episode_steps"] == 15
    features = Features.from_dict(environment["features"])
    assert features.control_space in ("joint", "ee")
    assert features.control_type in ("abs", "delta")
    assert features.fps > 0
    assert tuple(features.cameras) == tuple(environment["camera_poses"]) == cameras
    assert all(camera.render == "fast" for camera in features.cameras.values())
    assert (protocol["episodes"], protocol["seeds"]["first"]) == (5, 100)
    assert {"execution", "stop_at_success", "success"} < protocol.keys()
