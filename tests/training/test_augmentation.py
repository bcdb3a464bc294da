"""Augmentations in a training: what they change, that they are repeated exactly, and how they are refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from menura.errors import ConfigError
from menura.training.run import train

PROJECT = Path(__file__).with_name("project")
SHIFT = [{"class": "RandomShift", "args": {"pixels": 2}}, {"class": "ActionNoise"}]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(PROJECT, tmp_path / "project", ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setenv("MENURA_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path / "project")
    return tmp_path / "project"


def weights(out: str, augmentations: list[dict[str, Any]], *options: str, **given: Any) -> torch.Tensor:
    """Of the one layer, after a training of the task `seen`."""
    overrides = [f"--augmentations={json.dumps(augmentations)}", *options]
    result = train("seen", output_dir=out, overrides=overrides, **given)
    return safetensors.torch.load_file(result.directory / "model.safetensors")["net.weight"]


def test_a_training_is_augmented_and_goes_on_exactly(project: Path) -> None:
    plain, augmented = weights("plain", []), weights("augmented", SHIFT)
    assert not torch.equal(plain, augmented)
    assert torch.equal(augmented, weights("again", SHIFT))
    shutil.copytree("again", "stopped")
    for name in ("menura.json", "checkpoint-3"):  # as if it had been killed after its checkpoint of step 2
        path = Path("stopped", name)
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert torch.equal(augmented, weights("stopped", SHIFT))
    accumulated = [weights(out, SHIFT, "--training.gradient_accumulation_steps=2") for out in ("a", "b")]
    assert torch.equal(*accumulated)


def test_a_blind_policy_is_shown_nothing(project: Path) -> None:
    assert torch.equal(weights("plain", [], blind=True), weights("jitter", [{"class": "Cutout"}], blind=True))


def test_ones_own(project: Path) -> None:
    (project / "augmentation").mkdir()
    (project / "augmentation" / "darkness.py").write_text(
        "class Darkness:\n"
        "    def __init__(self, share: float = 1.0):\n"
        "        self.share = share\n"
        "    def __call__(self, batch, draw):\n"
        "        lit = draw.uniform((len(batch['image']), 1, 1, 1, 1, 1)) >= self.share\n"
        "        return {**batch, 'image': batch['image'] * lit}\n"
    )
    dark = weights("dark", [{"class": "Darkness"}], "--training.weight_decay=0")
    start = weights("start", [], "--training.weight_decay=0", "--training.learning_rate=1.0e-30")
    assert torch.equal(dark, start)  # weights of black pixels do not learn


@pytest.mark.parametrize(
    ("augmentation", "error", "message"),
    [
        ({"class": "RandomShif"}, ConfigError, "augmentations.0.class: .*did you mean RandomShift"),
        (
            {"class": "RandomShift", "args": {"pixel": 2}},
            ConfigError,
            "augmentations.0.args.pixel: no such argument of RandomShift; did you mean pixels",
        ),
        ({"class": "RandomCrop", "args": {"scale": 2.0}}, ConfigError, "RandomCrop.scale: expected 0 < low"),
        (
            {"class": "Cutout", "args": {"size": [0.4, 0.2]}},
            ConfigError,
            "Cutout.size: expected low ≤ high within 0 … 1",
        ),
    ],
)
def test_what_is_wrong_is_refused_before_training(
    project: Path, augmentation: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        weights("out", [augmentation])
