"""`menura data check` as a user types it."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import numpy as np
import pytest

from menura.cli.data.check import _show
from menura.cli.main import main
from menura.data import Episode, LeRobotWriter, open_dataset
from menura.data.checking import Finding, Place, Report
from menura.data.checking.remedies import delete
from menura.features import CameraFeature, Features, VectorFeature


def write(root: Path, *, wrong: bool, camera: bool = True) -> Path:
    features = Features(
        state=VectorFeature(("x", "y")),
        action=VectorFeature(("vx", "vy")),
        cameras={"top": CameraFeature(16, 16)} if camera else {},
        fps=10,
    )
    rng = np.random.default_rng(0)
    with LeRobotWriter(root, features, video=False) as writer:
        for _ in range(3):
            turn = np.linspace(0, 6, 40) + rng.uniform(0, 6)
            images = {"top": rng.integers(0, 256, (40, 16, 16, 3), np.uint8)} if camera else {}
            speed = np.column_stack([-np.sin(turn), np.cos(turn)])
            writer.add_episode(Episode(np.column_stack([np.cos(turn), np.sin(turn)]), speed, images, fps=10))
    if wrong:
        stats = json.loads((root / "meta/stats.json").read_text())
        stats["action"]["mean"] = [100.0, 100.0]
        (root / "meta/stats.json").write_text(json.dumps(stats))
    return root


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MENURA_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("COLUMNS", "160")


def run(*words: object) -> int:
    with pytest.raises(SystemExit) as ended:
        main([str(word) for word in words])
    return int(ended.value.code or 0)


def test_sound_data(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = write(tmp_path / "data", wrong=False)
    assert run("data", "check", root) == 0
    out = capsys.readouterr().out
    assert out.startswith("data: 3 episodes, 120 frames: 0 errors, 0 warnings, 0 notes.")
    assert "(--full looks at all)" in out
    assert run("data", "check", root, "--full") == 0
    assert "--full" not in capsys.readouterr().out


def test_errors_are_told_with_their_remedy_and_exit_with_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = write(tmp_path / "data", wrong=True)
    assert run("data", "check", root) == 1
    out = capsys.readouterr().out
    assert "error    statistics: action: meta/stats.json are of other data" in out
    assert f"menura data convert {root} -o {root}_mended --to lerobot\n" in out
    assert "1 error," in out
    assert run("data", "check", root, "--json") == 1
    report = Report.from_dict(json.loads(capsys.readouterr().out))
    assert report.kinds == {"statistics"}


def test_a_remedy_can_be_pasted_whatever_the_width(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    root, still = tmp_path / "two words", {1, 3, 4, 5}
    features = Features(VectorFeature(("x", "y")), VectorFeature(("vx", "vy")), {"top": CameraFeature(16, 16)}, fps=10)
    with LeRobotWriter(root, features, video=False) as writer:
        for number in range(8):
            rng = np.random.default_rng(number)
            images = rng.integers(0, 256, (40, 16, 16, 3), np.uint8) * np.uint8(number not in still)
            path = rng.normal(size=(40, 2)).cumsum(axis=0)
            writer.add_episode(Episode(path, rng.normal(size=(40, 2)), {"top": images}, fps=10))
    assert run("data", "check", root) == 0
    lines = capsys.readouterr().out.splitlines()
    (command,) = [line.strip() for line in lines if "menura data delete" in line]
    assert command == f"menura data delete '{root}' -o '{root}_mended' --episodes 1,3-5"
    assert all(len(line) <= 60 for line in lines if line.startswith(" ") and "menura data" not in line)
    assert run(*shlex.split(command)[1:]) == 0
    assert len(open_dataset(f"{root}_mended")) == 4


def test_findings_of_one_kind_share_one_command(capsys: pytest.CaptureFixture[str]) -> None:
    def jump(dimension: str, episode: int) -> Finding:
        remedy = f"Look at these frames: {delete([Place(episode, (3, 4))])}"
        return Finding("jump", "warning", "jumps", remedy, 0.8, (Place(episode, (3, 4)),), "state", None, (dimension,))

    _show(Report("made", 9, 90, (jump("x", 3), jump("y", 5), jump("z", 3))), "made")
    out = capsys.readouterr().out
    assert out.count("Look at these frames") == 1
    assert "menura data delete made -o made_mended --episodes 3,5\n" in out


def test_what_is_no_dataset_exits_with_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("data", "check", tmp_path / "nothing") == 2
    assert "expected a file or a directory" in capsys.readouterr().err
