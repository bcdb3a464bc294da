"""Every policy, in its tiny form, all the way: trained, evaluated, served, and equal everywhere."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

import menura
import menura.policies
from menura.components import load
from menura.conformance import check_run
from menura.policies.contract import Contract
from menura.policies.needs import config_parameters

NAMES = sorted(path.parent.name for path in Path(menura.policies.__file__).parent.glob("*/modeling_*.py"))

DATASET = """
import numpy as np
from menura.data import Episode

CAMERAS = {cameras}

class Seen:
    def __len__(self):
        return 3

    def episode(self, index):
        rng = np.random.default_rng(index)
        goal = rng.uniform(-1, 1, 2)
        steps = np.linspace(0, 1, 20)[:, None]
        position = steps * goal
        return Episode(
            state=np.concatenate([position, np.broadcast_to(goal, (20, 2))], 1).astype(np.float32),
            action=np.clip(goal - position, -0.1, 0.1).astype(np.float32),
            images={{c: rng.integers(0, 256, (20, 32, 40, 3), np.uint8) for c in CAMERAS}},
            task="go to the goal",
            fps=10,
        )
"""
ENVIRONMENT = """
import gymnasium
import numpy as np

CAMERAS = {cameras}

class SeenEnv(gymnasium.Env):
    action_space = gymnasium.spaces.Box(-1, 1, (2,), np.float32)
    observation_space = gymnasium.spaces.Dict({{
        "state": gymnasium.spaces.Box(-np.inf, np.inf, (4,), np.float32),
        "images": gymnasium.spaces.Dict({{c: gymnasium.spaces.Box(0, 255, (32, 40, 3), np.uint8) for c in CAMERAS}}),
    }})
    metadata = {{"render_fps": 10}}
    max_episode_steps = 6
    task = "go to the goal"

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.position, self.goal = np.zeros(2), self.np_random.uniform(-1, 1, 2)
        return self.observation(), {{"success": False}}

    def observation(self):
        state = np.concatenate([self.position, self.goal]).astype(np.float32)
        images = {{c: np.full((32, 40, 3), int(100 + 100 * self.position[0]), np.uint8) for c in CAMERAS}}
        return {{"state": state, "images": images, "task": self.task}}

    def step(self, action):
        self.position = self.position + np.clip(action, -0.1, 0.1)
        success = bool(np.abs(self.position - self.goal).max() < 0.05)
        return self.observation(), float(success), success, False, {{"success": success}}
"""


#: Those whose parts others have too, and which take longest.
SLOW = {"octo", "openvla", "pi05", "pi0_fast", "rdt"}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow) if name in SLOW else name for name in NAMES]
)
def test_trained_evaluated_and_served(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    section = yaml.safe_load(
        (Path(menura.__file__).parent / "configs" / "policy" / "tiny" / f"{name}.yaml").read_text()
    )
    policy_class = load("policy", section["class"], tmp_path)
    sees = "image" in Contract.of(policy_class).keys and "camera_names" in config_parameters(policy_class.config_class)
    cameras = repr(("front", "wrist") if sees else ())
    for kind, text in (("dataset", DATASET), ("env", ENVIRONMENT)):
        (tmp_path / kind).mkdir()
        (tmp_path / kind / f"seen_{kind}.py").write_text(text.format(cameras=cameras))
    (tmp_path / "configs" / "task").mkdir(parents=True)
    task = {
        "datasets": [{"class": "Seen"}],
        "env": {"class": "SeenEnv"},
        "policy": f"tiny/{name}",
        "training": {
            "max_steps": 2,
            "per_device_train_batch_size": 4,
            "save_strategy": "no",
            "report_to": "none",
            "warmup_steps": 0,
        },
    }
    (tmp_path / "configs" / "task" / "seen.yaml").write_text(yaml.safe_dump(task))
    monkeypatch.setenv("MENURA_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)

    trained = menura.train("seen", output_dir="run")
    results = menura.evaluate("run", episodes=2, num_envs=2, num_workers=1, videos=0, progress=False)
    assert trained.metrics["steps"] == (0 if name in ("random", "replay", "zero") else 2)  # nothing to train
    assert len(results.episodes) == 2
    failed = [(result.name, result.message) for result in check_run("run") if not result.ok]
    assert failed == []
