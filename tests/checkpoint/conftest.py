"""A user's project with one image policy in one file, and checkpoints of it."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from menura import components
from menura.checkpoint import save_checkpoint
from menura.checkpoint.manifest import MANIFEST_FILE, digest, hash_files
from menura.config.schema import ProcessorConfig
from menura.features import CameraFeature, Features, VectorFeature
from menura.policies.contract import build_policy
from menura.processing.normalizer import Rows
from menura.processing.processor import Processor

POLICY = """
import torch
from torch import nn
from transformers import PretrainedConfig, PreTrainedModel

GAIN = 1.0


class LookConfig(PretrainedConfig):
    def __init__(self, state_dim=3, action_dim=2, chunk_size=4, n_action_steps=2, camera_names=None, image_size=16,
                 image_normalize="imagenet", **kwargs):
        super().__init__(**kwargs)
        self.state_dim = state_dim
        self.action_dim = action_dim
        self.chunk_size = chunk_size
        self.n_action_steps = n_action_steps
        self.camera_names = camera_names
        self.image_size = image_size
        self.image_normalize = image_normalize


class Look(PreTrainedModel):
    config_class = LookConfig

    def __init__(self, config):
        super().__init__(config)
        self.eye = nn.Linear(3 * len(config.camera_names), 8)
        self.body = nn.Linear(config.state_dim, 8)
        self.head = nn.Linear(16, config.chunk_size * config.action_dim)
        self.post_init()

    def forward(self, image, state, actions=None, is_pad=None):
        seen = self.eye(image.mean((-1, -2)).flatten(1))
        hidden = torch.cat([seen, self.body(state)], -1).tanh()
        predicted = GAIN * self.head(hidden).reshape(len(state), self.config.chunk_size, self.config.action_dim)
        if actions is None:
            return predicted
        return {"loss": (predicted - actions).abs().mean()}

    def select_action(self, obs_dict):
        return self(obs_dict["image"], obs_dict["state"])
"""

FEATURES = Features(
    state=VectorFeature(("x", "y", "cube"), object_names=("cube",)),
    action=VectorFeature(("dx", "dy")),
    cameras={"top": CameraFeature(24, 32), "wrist": CameraFeature(24, 32)},
    fps=10.0,
)
CONFIG = ProcessorConfig(action="minmax")


def statistics(width: int) -> Rows:
    data = np.random.default_rng(0).normal(1.0, 2.0, (200, width))
    q01, q99 = np.quantile(data, (0.01, 0.99), axis=0)
    return Rows(data.mean(0), data.std(0), data.min(0), data.max(0), q01, q99)


def observations(rows: int = 3, seed: int = 0) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    return {
        "state": rng.normal(1, 2, (rows, 3)).astype(np.float32),
        "images": {name: rng.integers(0, 256, (rows, 24, 32, 3), dtype=np.uint8) for name in ("top", "wrist")},
        "task": ["push the cube"] * rows,
    }


def rehash(directory: Path) -> None:
    """What someone does who edits a checkpoint and its manifest, too."""
    manifest = json.loads((directory / MANIFEST_FILE).read_text())
    manifest["files"] = hash_files(directory)
    manifest["digest"] = digest(manifest)
    (directory / MANIFEST_FILE).write_text(json.dumps(manifest))


@dataclass
class Saved:
    project: Path
    directory: Path
    policy: Any
    processor: Processor

    @property
    def source(self) -> Path:
        return self.project / "policy" / "look.py"


def write_policy(project: Path, source: str = POLICY) -> None:
    (project / "policy").mkdir(parents=True, exist_ok=True)
    (project / "policy" / "look.py").write_text(source)


def forget_project() -> None:
    """As in a new process: the project's modules are read again."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "policy"]:
        del sys.modules[name]


def edit(source: Path, old: str, new: str) -> None:
    """Change a file of the project, and make sure that Python sees that it is newer than what it compiled."""
    text = source.read_text()
    assert old in text
    modified = source.stat().st_mtime + 10
    source.write_text(text.replace(old, new))
    os.utime(source, (modified, modified))
    forget_project()


def processor(
    policy_config: Any, datasets: tuple[str, ...] = ("demos",), config: Any = CONFIG, **keywords: Any
) -> Processor:
    data = {name: {"state": statistics(3), "action": statistics(2)} for name in datasets}
    return Processor.build(config, FEATURES, data, policy_config, **keywords)


def save(project: Path, directory: Path, **overrides: Any) -> Saved:
    """A checkpoint of a fresh `Look`, or of what `overrides` give."""
    if "policy" in overrides:
        policy = overrides["policy"]
    else:
        torch.manual_seed(0)
        policy = build_policy(components.load("policy", "Look", project), {}, FEATURES)
    processor_ = overrides.get("processor") or processor(policy.config)
    values: dict[str, Any] = {
        "policy": policy,
        "processor": processor_,
        "features": FEATURES,
        "task": None,
        "datasets": {"demos": "f" * 64},
        "seed": 7,
        "golden": observations(),
    }
    save_checkpoint(directory, **(values | overrides))
    return Saved(project, directory, policy, processor_)


def save_again(saved: Saved, directory: Path, **overrides: Any) -> Saved:
    return save(saved.project, directory, **({"policy": saved.policy, "processor": saved.processor} | overrides))


# Smaller than their defaults, so that a test takes no time.
SMALL: dict[str, dict[str, Any]] = {
    "MLPPolicy": {"hidden_size": 8},
    "CNNMLPPolicy": {"image_size": 32},
    "ACTPolicy": {
        "chunk_size": 4,
        "n_action_steps": 4,
        "hidden_size": 32,
        "feedforward_size": 32,
        "n_heads": 2,
        "n_encoder_layers": 1,
        "backbone_widths": [16, 32],
        "backbone_depths": [1, 1],
    },
}


@pytest.fixture
def helpers() -> Any:
    return SimpleNamespace(
        CONFIG=CONFIG,
        FEATURES=FEATURES,
        POLICY=POLICY,
        SMALL=SMALL,
        edit=edit,
        forget_project=forget_project,
        observations=observations,
        processor=processor,
        rehash=rehash,
        save=save,
        save_again=save_again,
        write_policy=write_policy,
    )


@pytest.fixture
def saved(tmp_path: Path) -> Saved:
    project = tmp_path / "project"
    write_policy(project)
    return save(project, tmp_path / "out")
