"""What the tests of environments share: toy environments, and reasons to skip."""

from __future__ import annotations

import importlib.util
from typing import Any

import gymnasium
import numpy as np
import pytest

from menura.envs.base import Outcome, SimEnv
from menura.envs.rendering import require_rendering
from menura.errors import EnvironmentFailure
from menura.features import CameraFeature, Features, VectorFeature


def needs(package: str) -> None:
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"the package {package} is not installed")


@pytest.fixture
def aloha() -> None:
    needs("gym_aloha")


@pytest.fixture
def metaworld() -> None:
    needs("metaworld")


@pytest.fixture
def drawing() -> None:
    try:
        require_rendering()
    except EnvironmentFailure as error:
        pytest.skip(str(error))


class PointEnv(SimEnv):
    """A point on a line that has to come to 1; counts the frames it draws."""

    def __init__(self, max_episode_steps: int = 20) -> None:
        self.features = Features(
            state=VectorFeature(("x", "goal"), object_names=("goal",)),
            action=VectorFeature(("dx", "grip")),
            cameras={"eye": CameraFeature(4, 6)},
            fps=10,
        )
        self.task = "come to the goal"
        self.success_rule = "within 0.1 of the goal"
        self.max_episode_steps = max_episode_steps
        self.noisy_actions = np.array([True, False])
        self.drawn = 0
        self.executed: list[np.ndarray[Any, Any]] = []
        self.declare_spaces([-1, 0], [1, 1])

    def start(self, seed: int) -> None:
        self.x = float(np.random.default_rng(seed).uniform(-0.5, 0.5))
        self.executed = []

    def apply(self, action: np.ndarray[Any, Any]) -> Outcome:
        self.executed.append(action)
        self.x += float(action[0])
        return Outcome(reward=-abs(1 - self.x), success=abs(1 - self.x) < 0.1)

    def state(self) -> np.ndarray[Any, Any]:
        return np.array([self.x, 1.0], np.float32)

    def image(self, camera: str) -> np.ndarray[Any, Any]:
        self.drawn += 1
        return np.full((4, 6, 3), int(np.clip(100 + 100 * self.x, 0, 255)), np.uint8)

    def render(self) -> np.ndarray[Any, Any]:
        return np.zeros((8, 8, 3), np.uint8)


@pytest.fixture
def point_env() -> PointEnv:
    return PointEnv()


class DictEnv(gymnasium.Env[Any, Any]):
    """Nested observation, an image, success in `info`: what a simulator of someone else's gives."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 25}  # noqa: RUF012

    def __init__(self, render_mode: str | None = None) -> None:
        self.render_mode = render_mode
        box = gymnasium.spaces.Box
        self.observation_space = gymnasium.spaces.Dict(
            {
                "agent": gymnasium.spaces.Dict({"qpos": box(-9, 9, (3,)), "hand": box(-9, 9, (1,))}),
                "cube": box(-9, 9, (2,)),
                "pixels": box(0, 255, (5, 7, 3), np.uint8),
            }
        )
        self.action_space = box(-2, 2, (2,), np.float64)

    def _look(self) -> dict[str, Any]:
        return {
            "agent": {"qpos": np.full(3, self.x, np.float32), "hand": np.array([0.5], np.float32)},
            "cube": np.array([1, 2], np.float32),
            "pixels": np.full((5, 7, 3), self.steps, np.uint8),
        }

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.x, self.steps = float(self.np_random.uniform()), 0
        return self._look(), {}

    def step(self, action: Any) -> Any:
        self.x, self.steps = self.x + float(action[0]), self.steps + 1
        return self._look(), 1.0, False, self.steps >= 6, {"is_success": self.steps >= 4}

    def render(self) -> Any:
        return np.full((5, 7, 3), 9, np.uint8)


@pytest.fixture
def dict_env_id() -> str:
    id = "MenuraTest/Dict-v0"
    if id not in gymnasium.registry:
        gymnasium.register(id, entry_point=DictEnv, max_episode_steps=10)
    return id
