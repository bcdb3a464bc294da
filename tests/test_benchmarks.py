"""The benchmarks run, and print one JSON line with a ratio. What they measure is nobody's business here."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"
SMALL = {
    "cli": ["--rounds", "1"],
    "open_dataset": ["--episodes", "30", "--frames", "4", "--rounds", "1"],
    "data_view": ["--episodes", "20", "--frames", "40", "--rounds", "1", "--play_s", "0.5"],
    "diffusion": ["--widths", "16", "32", "--rounds", "1"],
    "trainer": ["--blocks", "2", "--steps", "2"],
    "train_step": ["--policy", "act_small", "--rounds", "1", "--steps", "1"],
    "recording": ["--seconds", "0.2"],
    "windows_state": ["--turns", "1"],
    "windows_images": ["--rounds", "1", "--frames", "30"],
    "windows_video": ["--rounds", "1", "--frames", "30"],
    "build_store": ["--rounds", "1", "--files", "1", "--frames", "30"],
    "preflight": ["--rounds", "1"],
    "memory": ["--gigabytes", "1", "--batches", "2"],
    "policies": ["tiny/act", "--batches", "1", "--repeats", "2"],
    "evaluation_memory": ["--episodes", "4", "--num_envs", "2", "--steps", "5"],
    "rollouts": ["--episodes", "2", "--num_envs", "2", "--steps", "5", "--rounds", "1"],
    "serve": ["--rounds", "1", "--requests", "4", "--quiet_only"],
    "session": ["--steps", "100"],
    "control": ["--robot", "dummy", "--seconds", "0.3", "--record"],
}
#: Measured beside a peer, whose Python they are given.
PEERS = {"against_lerobot_eval"}


def test_every_benchmark_is_tried() -> None:
    assert {script.stem for script in BENCHMARKS.glob("[!_]*.py")} == set(SMALL) | PEERS


@pytest.mark.parametrize("name", SMALL)
def test_it_prints_one_line_with_a_ratio(name: str, tmp_path: Path) -> None:
    # Not imported here: mujoco would come before its backend is chosen.
    if name == "preflight" and importlib.util.find_spec("gym_aloha") is None:
        pytest.skip("needs gym_aloha, the environment of the demo task")
    if name in ("rollouts", "evaluation_memory") and importlib.util.find_spec("metaworld") is None:
        pytest.skip("needs metaworld, the environment of these benchmarks")
    command = [sys.executable, str(BENCHMARKS / f"{name}.py"), *SMALL[name]]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (line,) = done.stdout.splitlines()
    assert json.loads(line)["ratio"] > 0


@pytest.mark.parametrize("name", sorted(PEERS))
def test_without_its_peer_a_benchmark_says_what_it_needs(name: str) -> None:
    command = [sys.executable, str(BENCHMARKS / f"{name}.py")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "needs" in json.loads(done.stdout)["not_run"]
