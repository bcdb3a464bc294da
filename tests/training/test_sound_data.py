"""Training refuses data with errors, unless told, and tells warnings in a line."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

import menura
from menura.cli.main import main
from menura.data.checking import check
from menura.errors import DataError

PROJECT = Path(__file__).with_name("project")
FAULTY = """\
from dataclasses import replace

import numpy as np

from dataset.reach_data import ReachData


class FaultyData(ReachData):
    def __init__(self, fault):
        super().__init__()
        self.fault = fault

    def episode(self, index):
        episode = super().episode(index)
        if index != 5:
            return episode
        if self.fault == "nan":
            episode.action[3, 1] = np.nan
        if self.fault == "backwards":
            return replace(episode, timestamps=-episode.timestamps)
        if self.fault == "gap":
            return replace(episode, timestamps=episode.timestamps + 2.0 * (np.arange(20) > 7))
        return episode
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(PROJECT, tmp_path / "project", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "project/dataset/faulty_data.py").write_text(FAULTY)
    monkeypatch.setenv("MENURA_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path / "project")
    return tmp_path / "project"


def faulty(fault: str) -> list[str]:
    return [f"--datasets=[{{class: FaultyData, args: {{fault: {fault}}}}}]", "--training.max_steps=2"]


def test_errors_are_refused_before_the_store_is_built(project: Path) -> None:
    with pytest.raises(DataError, match=r"nan in action: action_1 \(episode 5, frame 3\).*--allow_bad_data"):
        menura.train("reach", output_dir="out", overrides=faulty("nan"))
    assert not list(project.parent.glob("cache/store/*"))


def test_errors_are_allowed_when_told(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["train", "reach", "-o", "out", *faulty("backwards")])
    assert ended.value.code == 2
    assert "time_backwards (episode 5, frames 1-19)" in capsys.readouterr().err
    with pytest.raises(SystemExit) as ended:
        main(["train", "reach", "-o", "out", "--allow_bad_data", *faulty("backwards")])
    assert not ended.value.code
    assert "Data 'FaultyData': time_backwards" in capsys.readouterr().err
    assert (project / "out/config.json").exists()


def test_warnings_are_told_in_one_line(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    menura.train("reach", output_dir="out", overrides=faulty("gap"))
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("Data ")]
    assert "time_gap (episode 5, frame 8)" in line
    assert line.endswith("`menura data check` says more.")


def test_the_same_data_is_checked_once(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    menura.train("reach", output_dir="out", overrides=["--training.max_steps=2"])

    def never(*_: object) -> None:
        raise AssertionError("checked again")

    monkeypatch.setattr(check, "_Checking", never)
    menura.train("reach", output_dir="again", overrides=["--training.max_steps=2"])
