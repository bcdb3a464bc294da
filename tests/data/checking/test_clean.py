"""False alarms: data as it comes from simulators, from people and from other programs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import menura
from menura.data import open_dataset
from menura.data.checking import Report, check_dataset
from menura.data.episode import Float32
from menura.envs.rendering import choose_backend

LEROBOT = Path(__file__).parents[2] / "fixtures" / "lerobot"
HUMAN = Path(__file__).parents[4] / "shared" / "fixtures" / "robosuite_lift_human.hdf5"


def found(report: Report) -> set[tuple[str, str]]:
    return {(finding.severity, finding.kind) for finding in report.findings}


@given(noise=st.sampled_from([0.0, 2e-4, 2e-3]), slower=st.sampled_from([1, 2]), first=st.integers(0, 5))
@settings(max_examples=20)
def test_other_robots_and_rates(
    clean: Callable[[], list[Any]], check: Callable[..., Report], noise: float, slower: int, first: int
) -> None:
    """Coarser sensors, half the rate, fewer episodes."""
    rng = np.random.default_rng(0)
    takes = clean()[first:]
    for take in takes:
        state: Float32 = take.state + rng.normal(0, noise, take.state.shape).astype(np.float32) * [1, 1, 1, 1, 0.05]
        take.state, take.action = state[::slower], take.action[::slower]
        take.images = {name: frames[::slower] for name, frames in take.images.items()}
    assert found(check(takes)) == set()


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("lerobot_v3_video", set()),
        ("lerobot_v3_image", {("warning", "short")}),  # it has an episode of 9 frames at 20 fps
        ("lerobot_v3_many_files", set()),
        ("lerobot_v21", set()),
    ],
)
def test_what_lerobot_wrote(name: str, expected: set[tuple[str, str]], tmp_path: Path) -> None:
    """Generated numbers, so no robot moves so; but the files, their counts and their statistics are LeRobot's own."""
    assert found(check_dataset(LEROBOT / name, pictures="all", cache_dir=tmp_path)) == expected


@pytest.mark.skipif(not HUMAN.exists(), reason="the demonstrations that robosuite ships are not here")
def test_human_demonstrations(tmp_path: Path) -> None:
    """Three people's Lift at 20 Hz, the whole simulator's state: positions, velocities, contacts. The wrist's rx and ry
    were not used."""
    report = check_dataset(open_dataset(HUMAN, fps=20), cache_dir=tmp_path)
    assert [(f.kind, f.severity, f.dimensions) for f in report.findings] == [("constant", "note", ("rx", "ry"))]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("task", "expected"),
    [
        ("aloha_transfer", set()),
        ("metaworld_button_press_topdown", {("note", "gripper_still")}),  # a button is pressed with a closed hand
    ],
)
def test_recorded_experts(task: str, expected: set[tuple[str, str]], tmp_path: Path) -> None:
    choose_backend()  # before mujoco comes with the package
    pytest.importorskip("gym_aloha" if "aloha" in task else "metaworld")
    root = tmp_path / "data"
    overrides = ["--collect.num_workers=1", "--collect.cameras={top: [60, 80]}"] if task == "aloha_transfer" else []
    menura.collect(task, episodes=2, output_dir=root, overrides=overrides)
    assert found(check_dataset(root, pictures="all", cache_dir=tmp_path / "cache")) == expected
