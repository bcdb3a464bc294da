"""What the tests of robots share: a project with an environment of its own, which needs no simulator."""

from __future__ import annotations

from pathlib import Path

import pytest

#: A point on a line: `x` is moved by absolute targets or by differences; a camera that shows how often it was drawn.
POINT = """\
import time

import numpy as np

from menura.envs.base import Outcome, SimEnv
from menura.features import CameraFeature, Features, VectorFeature


class Point(SimEnv):
    def __init__(self, control="abs", max_episode_steps=1000, slow_s=0.0, breaks_at=None, bounded=True):
        names = ("x", "grip") if control == "abs" else ("dx", "grip")
        action = VectorFeature(names, grippers={"grip": (0.0, 1.0)})
        self.features = Features(
            VectorFeature(("x", "grip", "steps")), action, {"eye": CameraFeature(2, 3)}, 50.0, control_type=control
        )
        self.task = "come to 1"
        self.success_rule = "x at least 1"
        self.max_episode_steps = max_episode_steps
        self.noisy_actions = np.array([True, False])
        self.slow_s, self.breaks_at = slow_s, breaks_at
        self.executed = []
        self.closed = False
        self.declare_spaces([-2, 0], [2, 1]) if bounded else self.declare_spaces([-np.inf, 0], [np.inf, 1])

    def start(self, seed):
        self.x, self.grip, self.count, self.executed = seed / 1000, 0.0, 0, []

    def apply(self, action):
        if self.count == self.breaks_at:
            raise ZeroDivisionError("the solver diverged")
        time.sleep(self.slow_s)
        self.executed.append(action)
        self.x = float(action[0]) if self.features.control_type == "abs" else self.x + float(action[0])
        self.grip = float(action[1])
        self.count += 1
        return Outcome(0.0, self.x >= 1)

    def state(self):
        return np.array([self.x, self.grip, self.count], np.float32)

    def image(self, camera):
        return np.full((2, 3, 3), self.count % 256, np.uint8)

    def render(self):
        return np.zeros((8, 8, 3), np.uint8)

    def close(self):
        self.closed = True


class PointExpert:
    def reset(self, env):
        self.env = env.unwrapped
        self.asked = 0

    def act(self, observation):
        self.asked += 1
        return np.array([0.25, 1.0], np.float32)
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    for kind in ("env", "expert"):
        (tmp_path / kind).mkdir()
        (tmp_path / kind / f"point_{kind}.py").write_text(POINT)
    (tmp_path / "configs" / "env").mkdir(parents=True)
    (tmp_path / "configs" / "env" / "point.yaml").write_text("class: Point\n")
    return tmp_path
