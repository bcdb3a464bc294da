"""Whatever was done with the data, a killed training goes on exactly."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
import yaml

from menura.training.run import train

DATASETS = """
import numpy as np
from menura.data import Episode
from menura.features import CameraFeature, Features, VectorFeature


class Arm:
    joints, cameras = ("waist", "elbow"), ("front",)

    def __init__(self):
        names = VectorFeature(self.joints)
        cameras = {camera: CameraFeature(8, 8) for camera in self.cameras}
        self.features = Features(names, names, cameras, fps=10, control_type="abs", control_space="joint")

    def __len__(self):
        return 6

    def episode(self, index):
        rng, length = np.random.default_rng((index, len(self.joints))), 12 + index
        walk = rng.normal(size=(length + 1, len(self.joints))).cumsum(axis=0)
        frames = {camera: rng.integers(256, size=(length, 8, 8, 3), dtype=np.uint8) for camera in self.cameras}
        return Episode(walk[:-1], walk[1:], frames, fps=10, task="move")


class LongArm(Arm):
    joints, cameras = ("elbow", "waist", "hand"), ("wrist_cam", "front")


class OtherArm(Arm):
    def episode(self, index):
        return super().episode(index + 10)
"""
FILTER = {"episodes": "length > 12", "frames": "timestep % 3 != 1"}
FAR = {"path": str(Path(__file__).parents[1] / "fixtures/lerobot/lerobot_v3_many_files")}
STREAM = {"store": "stream", "shuffle_buffer": 40}
LAYOUT = {"state": ["waist", "elbow", "hand"], "action": ["waist", "elbow", "hand"], "cameras": ["front", "wrist_cam"]}
SETTINGS: dict[str, dict[str, Any]] = {
    "filter": {"datasets": [{"class": "Arm", "filter": FILTER}]},
    "wrappers": {"datasets": [{"class": "Arm", "wrappers": [{"class": "Resample", "args": {"fps": 7}}]}]},
    "augmentation": {
        "datasets": [{"class": "Arm"}],
        "augmentations": [{"class": "RandomShift"}, {"class": "ColorJitter"}, {"class": "StateNoise"}],
    },
    "mixture": {"datasets": [{"class": "Arm", "weight": 3}, {"class": "OtherArm", "weight": 1, "filter": FILTER}]},
    "layout": {"datasets": [{"class": "Arm", "weight": 1}, {"class": "LongArm", "weight": 2}], "layout": LAYOUT},
    "spaces": {"datasets": [{"class": "Arm"}], "processor": {"action_type": "relative"}},
    "stream": {"datasets": [FAR], "data": STREAM},
    "stream, filter": {"datasets": [{**FAR, "filter": {"frames": "timestep % 3 != 1"}}], "data": STREAM},
}
TASK = {
    "policy": {
        "class": "CNNMLPPolicy",
        "args": {"chunk_size": 4, "n_action_steps": 4, "hidden_size": 16, "channels": 8, "image_size": [16, 16]},
    },
    "training": {
        "max_steps": 6,
        "per_device_train_batch_size": 16,  # an epoch is a few steps
        "save_steps": 2,
        "warmup_steps": 0,
        "report_to": "none",
        "use_cpu": True,
        "dataloader_num_workers": 0,
    },
}


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "dataset").mkdir()
    (tmp_path / "dataset" / "arms.py").write_text(DATASETS)
    (tmp_path / "configs" / "task").mkdir(parents=True)
    monkeypatch.setenv("MENURA_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def weights(out: Path) -> dict[str, torch.Tensor]:
    return safetensors.torch.load_file(out / "model.safetensors")


@pytest.mark.parametrize("name", SETTINGS)
def test_killed_with_any_way_of_data_it_ends_with_the_same_weights(
    project: Path, train_in_child: Callable[..., int], name: str
) -> None:
    (project / "configs/task/arms.yaml").write_text(yaml.safe_dump({**TASK, **SETTINGS[name]}))
    whole = weights(train("arms", output_dir="whole").directory)
    run = project / "killed"
    cache = str(project / "cache")
    assert train_in_child(directory=str(project), cache=cache, kill_at=5, task="arms", output_dir="killed") == -9
    assert sorted(path.name for path in run.glob("checkpoint-*")) == ["checkpoint-2", "checkpoint-4"]
    assert not (run / "menura.json").exists()
    resumed = weights(train("arms", output_dir="killed").directory)
    assert all(torch.equal(resumed[key], tensor) for key, tensor in whole.items())
