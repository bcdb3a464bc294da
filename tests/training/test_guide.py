"""The guide's two files, mended, through the whole of its last sentence: trained and evaluated as they are."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import menura

TESTS = Path(__file__).parents[1]
ENV = '''
import gymnasium
import numpy as np


class SeenEnv(gymnasium.Env):
    """Two cameras and three numbers; the action's sign is to be guessed."""

    metadata = {"render_fps": 5}
    max_episode_steps = 4
    observation_space = gymnasium.spaces.Dict(
        state=gymnasium.spaces.Box(-np.inf, np.inf, (3,), np.float32),
        images=gymnasium.spaces.Dict(
            left=gymnasium.spaces.Box(0, 255, (16, 20, 3), np.uint8),
            right=gymnasium.spaces.Box(0, 255, (16, 20, 3), np.uint8),
        ),
        task=gymnasium.spaces.Text(10),
    )
    action_space = gymnasium.spaces.Box(-1, 1, (2,), np.float32)

    def look(self):
        images = {name: self.np_random.integers(0, 256, (16, 20, 3), np.uint8) for name in ("left", "right")}
        return {"state": self.np_random.normal(size=3).astype(np.float32), "images": images, "task": "go"}

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return self.look(), {"success": False}

    def step(self, action):
        return self.look(), 0.0, False, False, {"success": bool(action[0] > 0)}
'''
SECTIONS = [
    "--datasets=[{class: SeenData}]",
    "--env={class: SeenEnv}",
    "--image_encoder={class: MeanColour}",
    "--evaluation={num_envs: 2, num_workers: 1}",
    "--training={max_steps: 6, per_device_train_batch_size: 8, warmup_steps: 0, report_to: none}",
    "--policy.args.hidden_size=16",  # of 2048, for the test's time
]
LOAD = """
import sys
sys.modules["menura"] = None  # any import of it fails
from safetensors.torch import load_file, save_file
from transformers import AutoModel
policy = AutoModel.from_pretrained(sys.argv[1], trust_remote_code=True).eval()
assert type(policy).__name__ == "MyCoolPolicy"
save_file({"actions": policy.select_action(load_file("obs.safetensors")).detach()}, "answer.safetensors")
"""


def test_the_guides_two_files_are_trained_evaluated_saved_and_loaded_without_menura(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = tmp_path / "project"
    shutil.copytree(TESTS / "guide" / "mended", project)
    for name in ("dataset/seen_data.py", "image_encoder/mean_colour.py"):
        (project / name).parent.mkdir()
        shutil.copy(TESTS / "training" / "project" / name, project / name)
    (project / "env").mkdir()
    (project / "env" / "seen_env.py").write_text(ENV)
    monkeypatch.chdir(project)
    monkeypatch.setenv("MENURA_CACHE", str(tmp_path / "cache"))

    run = menura.train("your_task", overrides=SECTIONS).directory
    assert run == Path("runs/your_task")
    results = menura.evaluate(run, episodes=3, videos=0, progress=False)
    assert len(results.episodes) == 3

    meta = menura.MetaPolicy.from_pretrained(run)
    config = meta.policy.config
    assert (config.image_feature_dim, config.state_dim, config.action_dim) == (6, 3, 2), "filled in from the data"
    assert (config.hidden_size, config.num_layers) == (16, 4), "the guide's YAML says 4 layers"
    obs = {"image": torch.randn(2, 6), "state": torch.randn(2, 3)}
    save_file(obs, "obs.safetensors")
    elsewhere = tmp_path / "elsewhere"
    shutil.move(run, elsewhere)
    shutil.rmtree(project / "policy")
    environment = {**os.environ, "HF_MODULES_CACHE": str(tmp_path / "modules"), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-c", LOAD, str(elsewhere)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert torch.equal(load_file("answer.safetensors")["actions"], meta.policy.select_action(obs))
    assert "menura" not in json.loads((elsewhere / "config.json").read_text())["auto_map"]["AutoModel"]
