"""`menura data …` as a user types it."""

from __future__ import annotations

import json
from pathlib import Path

import h5py
import numpy as np
import pytest

from menura.cli.main import main
from menura.data import Episode, Hdf5Writer, open_dataset
from menura.data.tools.writing import UNFINISHED
from menura.features import Features, VectorFeature


@pytest.fixture
def robomimic(tmp_path: Path) -> Path:
    """Three demonstrations, two of them for training."""
    rng = np.random.default_rng(0)
    path = tmp_path / "can.hdf5"
    with h5py.File(path, "w") as file:
        data = file.create_group("data")
        data.attrs["env_args"] = json.dumps({"env_name": "Can", "env_kwargs": {"control_freq": 20}})
        for number in range(3):
            demo = data.create_group(f"demo_{number}")
            demo.attrs["num_samples"] = 10 + number
            demo["actions"] = rng.uniform(-1, 1, (10 + number, 7))
            demo["obs/robot0_eef_pos"] = rng.normal(size=(10 + number, 3)).cumsum(axis=0)
            demo["obs/robot0_gripper_qpos"] = rng.normal(size=(10 + number, 2))
            demo["obs/agentview_image"] = rng.integers(0, 256, (10 + number, 16, 16, 3), np.uint8)
        file["mask/train"] = np.array([b"demo_0", b"demo_2"])
    return path


def run(*words: object) -> int:
    with pytest.raises(SystemExit) as ended:
        main([str(word) for word in words])
    return int(ended.value.code or 0)


def test_from_one_format_to_another_and_through_every_tool(
    robomimic: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    keys = "{state: [robot0_eef_pos], images: {front: agentview_image}}"
    made = tmp_path / "made"
    assert run("data", "convert", robomimic, "-o", made, "--keys", keys, "--args", "{mask: train}", "--lossless") == 0
    assert capsys.readouterr().out.strip() == str(made)
    assert open_dataset(made).lengths().tolist() == [10, 12]

    assert run("data", "info", made) == 0
    text = capsys.readouterr().out
    assert "format        LeRobotDataset v3.0\n" in text
    assert "episodes      2 of 10 to 12 frames" in text
    assert "camera front  16 x 16" in text
    assert run("data", "info", robomimic, "--json") == 0
    assert json.loads(capsys.readouterr().out)["frames"] == 33

    assert run("data", "stats", made, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    actions = np.concatenate([open_dataset(made).episode(index).action for index in range(2)])
    np.testing.assert_allclose(found["action"]["mean"], actions.mean(axis=0), rtol=1e-5)
    assert run("data", "stats", made) == 0
    assert "robot0_eef_pos_x" in capsys.readouterr().out

    assert run("data", "merge", made, made, "-o", tmp_path / "twice", "--lossless") == 0
    assert run("data", "trim", tmp_path / "twice", "-o", tmp_path / "short", "--start", 2) == 0
    assert run("data", "delete", tmp_path / "short", "--episodes", "0-1", "--in_place") == 0
    assert open_dataset(tmp_path / "short").lengths().tolist() == [8, 10]
    renamed = ("data", "rename", tmp_path / "short", "-o", tmp_path / "named", "--cameras", "front=view")
    assert run(*renamed, "--state", "robot0_eef_pos_x=x", "--state", "robot0_eef_pos_y=y") == 0
    features = open_dataset(tmp_path / "named").features
    assert list(features.cameras) == ["view"]
    assert features.state is not None
    assert features.state.names[:2] == ("x", "y")
    assert set(open_dataset(tmp_path / "named").tasks()) == {""}
    assert run("data", "rename", tmp_path / "named", "--in_place", "--tasks", "=lift the cube") == 0
    told = open_dataset(tmp_path / "named")
    assert set(told.tasks()) == {"lift the cube"}
    assert told.features.language
    assert run("data", "split", tmp_path / "twice", "-o", tmp_path / "parts", "--parts", "train=0.75,val=0.25") == 0
    assert [len(open_dataset(tmp_path / "parts" / name)) for name in ("train", "val")] == [3, 1]
    assert run("data", "convert", made, "-o", tmp_path / "own", "--to", "menura") == 0
    assert len(open_dataset(tmp_path / "own", format="menura")) == 2


def test_wrappers_on_the_way(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Measured times, which LeRobotDataset cannot keep, and control that the files do not say."""
    features = Features(state=VectorFeature(("x", "y")), action=VectorFeature(("x", "y")), fps=10)
    rng = np.random.default_rng(0)
    with Hdf5Writer(tmp_path / "measured", features) as writer:
        for _ in range(3):
            path = rng.normal(size=(31, 2)).cumsum(axis=0)
            times = np.arange(30) / 10 + rng.uniform(0, 0.02, 30)
            writer.add_episode(Episode(path[:-1], path[1:], fps=10, timestamps=times))
    assert run("data", "convert", tmp_path / "measured", "-o", tmp_path / "refused") == 2
    assert "timestamps: expected frame / fps" in capsys.readouterr().err
    declared = "{class: DeclareFeatures, args: {control_space: ee, control_type: delta}}"
    wrappers = ("--wrappers", f"[{{class: Resample, args: {{fps: 10}}}}, {declared}]")
    assert run("data", "convert", tmp_path / "measured", "-o", tmp_path / "made", *wrappers) == 0
    assert open_dataset(tmp_path / "made").features.control_type == "delta"
    capsys.readouterr()
    run("data", "check", tmp_path / "measured", "--json", "--wrappers", f"[{declared}]")
    findings = json.loads(capsys.readouterr().out)["findings"]
    assert "control_type" in [finding["kind"] for finding in findings]  # they look absolute


def test_info_says_that_a_dataset_is_unfinished(
    robomimic: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = tmp_path / "made"
    assert run("data", "convert", robomimic, "-o", made, "--lossless") == 0
    (made / UNFINISHED).write_text('{"source": "can", "digest": "0"}')
    capsys.readouterr()
    assert run("data", "info", made) == 0
    assert "of 'can': writing was interrupted; the same command goes on" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("info", "nowhere"), "nowhere: expected a file or a directory"),
        (("convert", "{source}", "-o", "out", "--to", "lerobt"), "did you mean lerobot"),
        (("convert", "{source}", "-o", "out", "--keys", "front"), "--keys: expected a mapping such as"),
        (("convert", "{source}", "-o", "out", "--wrappers", "Resample"), "--wrappers: expected a list such as"),
        (("convert", "{source}", "-o", "out", "--args", "{maks: train}"), "did you mean mask"),
        (("delete", "{source}", "-o", "out", "--episodes", "3;4"), "--episodes: expected numbers such as 3,7,10-12"),
        (("rename", "{source}", "-o", "out", "--state", "x"), "--state: expected old=new, got 'x'"),
        (("rename", "{source}", "-o", "out", "--cameras", "=x"), "--cameras: expected old=new, got '=x'"),
        (("split", "{source}", "-o", "out", "--parts", "a=b"), "--parts: expected shares such as"),
        (
            ("trim", "{source}", "--in_place", "--idle"),
            "in_place: expected one of ['lerobot', 'menura'], got robomimic",
        ),
    ],
)
def test_what_is_wrong_is_said_in_one_line(
    robomimic: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: tuple[str, ...],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run("data", *(word.replace("{source}", str(robomimic)) for word in words)) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert not (tmp_path / "out").exists()
