"""What is found, or forgiven, before the first step of a training."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from menura.errors import MenuraError
from menura.training.run import train

PROJECT = Path(__file__).with_name("project")


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(PROJECT, tmp_path / "project", ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setenv("MENURA_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path / "project")
    return tmp_path / "project"


def test_a_select_action_that_fails_is_found_before_the_first_step(project: Path) -> None:
    file = project / "policy" / "reach_policy.py"
    sound = file.read_text()
    broken = sound.replace('return self.forward(obs_dict["state"])', 'return obs_dict["state"][:, :1]')
    assert broken != sound
    file.write_text(broken)
    with pytest.raises(MenuraError, match=r"select_action: expected shape"):
        train("reach", output_dir="out")
    assert not list(Path("out").glob("tensorboard/*"))
    assert not list(Path("out").glob("checkpoint-*"))


def test_a_run_that_ended_before_its_first_checkpoint_is_begun_anew(project: Path) -> None:
    Path("out").mkdir()
    Path("out/run.yaml").write_text(json.dumps({"name": "reach", "training": {"max_steps": 7}}))
    assert train("reach", output_dir="out", overrides=["--training.max_steps=2"]).metrics["steps"] == 2
