"""`menura data check` as a user types it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from menura.cli.main import main
from menura.data import Episode, LeRobotWriter
from menura.data.checking import Report
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
    assert "error  statistics  action: meta/stats.json are of other data" in out
    assert "menura data convert SRC -o DST --to lerobot" in out
    assert "1 error," in out
    assert run("data", "check", root, "--json") == 1
    report = Report.from_dict(json.loads(capsys.readouterr().out))
    assert report.kinds == {"statistics"}


def test_what_is_no_dataset_exits_with_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("data", "check", tmp_path / "nothing") == 2
    assert "expected a file or a directory" in capsys.readouterr().err
