"""`menura check run`: what was trained is what is evaluated is what is served; and what is not is named."""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from menura.checkpoint import load_checkpoint, save_checkpoint
from menura.config import load_task
from menura.conformance import check_run
from menura.data.statistics import compute_statistics
from menura.processing.normalizer import Normalizer
from menura.processing.processor import Processor
from menura.serving.client import Client
from menura.training.ingredients import gather
from menura.training.run import train

PROJECT = Path(__file__).parent / "training" / "project"
CHECKS = [
    "files, statistics and golden answers are those that were saved",
    "the datasets are those it was trained on",
    "the actions that are trained are those recorded",
    "training and evaluation give the policy the same inputs",
    "training and evaluation answer the same actions",
    "the server answers the same actions",
]
SHORT = ["--training.max_steps=2", "--training.save_strategy=no"]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(PROJECT, tmp_path / "project", ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setenv("MENURA_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path / "project")
    return tmp_path / "project"


def failure(run: str) -> tuple[str, str]:
    """The check that failed, which is the last one, and what it said."""
    results = check_run(run)
    assert [result.ok for result in results] == [True] * (len(results) - 1) + [False]
    return results[-1].name, results[-1].message


@pytest.mark.parametrize(
    ("task", "overrides"),
    [
        pytest.param("reach", [], id="state"),
        pytest.param("reach", ["--policy={class: MLPPolicy, args: {n_obs_steps: 2, hidden_size: 8}}"], id="history"),
        pytest.param("seen", [], id="two observations of two cameras"),
        pytest.param("seen", ["--policy.class=FeaturePolicy", "--image_encoder={class: MeanColour}"], id="encoder"),
    ],
)
def test_what_was_trained_passes(project: Path, task: str, overrides: list[str]) -> None:
    train(task, output_dir="out", overrides=[*SHORT, *overrides])
    results = check_run("out")
    assert [(result.name, result.ok, result.message) for result in results] == [(name, True, "") for name in CHECKS]


TIMED = """
from menura.policies.mlp.modeling_mlp import MLPPolicy


class Timed(MLPPolicy):
    def forward(self, state, timestep, actions=None, is_pad=None):
        return super().forward(state=state * (1 + timestep[:, None] / 10), actions=actions, is_pad=is_pad)

    def select_action(self, obs_dict):
        return self.forward(obs_dict["state"], obs_dict["timestep"])
"""


def test_a_policy_that_asks_for_the_step_passes(project: Path) -> None:
    (project / "policy" / "timed.py").write_text(TIMED)
    train("reach", output_dir="out", overrides=[*SHORT, "--policy={class: Timed, args: {hidden_size: 8}}"])
    assert [(result.ok, result.message) for result in check_run("out")] == [(True, "")] * len(CHECKS)


def test_another_dataset_is_named(project: Path) -> None:
    train("reach", output_dir="out", overrides=SHORT)
    source = project / "dataset" / "reach_data.py"
    source.write_text(source.read_text().replace("0.1, 0.1", "0.1, 0.2"))
    for name in [name for name in sys.modules if name.partition(".")[0] == "dataset"]:
        del sys.modules[name]  # as in a new process
    assert failure("out") == (
        CHECKS[1],
        "ReachData: expected the content it was trained on, got another. Train anew.",
    )


def saved_again(directory: str, change: Callable[[Any, Any], None]) -> str:
    """A copy of a run, changed and saved by all rules: with its own hashes and its own golden answers."""
    checkpoint, task = load_checkpoint(directory), load_task(f"{directory}/run.yaml")
    change(checkpoint.policy, checkpoint.processor)
    save_checkpoint(
        "changed",
        policy=checkpoint.policy,
        processor=checkpoint.processor,
        features=checkpoint.features,
        task=task,
        datasets=checkpoint.manifest.datasets,
        seed=checkpoint.manifest.seed,
        golden=gather(task, seed=0, hold_out=False).golden,
    )
    return "changed"


def test_another_normalizer_is_named(project: Path) -> None:
    train("reach", output_dir="out", overrides=SHORT)

    def shift(policy: Any, processor: Processor) -> None:
        rows = compute_statistics(np.random.default_rng(0).normal(3, 2, (50, 4)))
        processor.state_normalizer = Normalizer("zscore", rows, feature="state")

    name, message = failure(saved_again("out", shift))
    assert name == CHECKS[3]
    assert re.fullmatch(r"state: expected what training gives, got values up to \S+ away\.", message)


def test_another_normalizer_of_actions_is_named(project: Path) -> None:
    train("reach", output_dir="out", overrides=SHORT)

    def shift(policy: Any, processor: Processor) -> None:
        rows = compute_statistics(np.random.default_rng(0).normal(3, 2, (50, 2)))
        processor.action_normalizer = Normalizer("zscore", rows, feature="action")

    name, message = failure(saved_again("out", shift))
    assert name == CHECKS[4]
    assert re.fullmatch(
        r"actions: expected those of training, got up to \S+ away from evaluation \(step \d, dimension \d\)\.", message
    )


def test_other_cameras_are_named(project: Path) -> None:
    train("seen", output_dir="out", overrides=SHORT)

    def swap(policy: Any, processor: Processor) -> None:
        policy.config.camera_names = ["right", "left"]
        processor.settings = replace(processor.settings, camera_names=("right", "left"))

    name, message = failure(saved_again("out", swap))
    assert name == CHECKS[3]
    assert re.fullmatch(r"image: expected what training gives, got values up to \S+ away\.", message)


def test_a_file_that_was_changed_is_named(project: Path) -> None:
    train("reach", output_dir="out", overrides=SHORT)
    with open("out/normalizer.safetensors", "ab") as file:
        file.write(b"x")
    results = check_run("out")
    assert [result.ok for result in results] == [False]
    assert "normalizer.safetensors: expected sha256" in results[0].message


def test_without_a_run_what_there_is_is_checked(project: Path) -> None:
    train("seen", output_dir="out", overrides=SHORT)
    checkpoint = load_checkpoint("out")
    save_checkpoint(
        "bare",
        policy=checkpoint.policy,
        processor=checkpoint.processor,
        features=checkpoint.features,
        task=None,
        datasets=checkpoint.manifest.datasets,
        seed=0,
        golden=gather(load_task("out/run.yaml"), seed=0, hold_out=False).golden,
        converted="Converted from a book.",
    )
    assert [(result.name, result.ok, result.message) for result in check_run("bare")] == [
        (CHECKS[0], True, ""),
        (CHECKS[5], True, ""),
        ("not checked: training, for there is no run.yaml (a converted checkpoint has none)", True, ""),
    ]
    card = Path("bare/README.md").read_text()
    assert "converted from another program's checkpoint" in card
    assert "## Where it is from\n\nConverted from a book." in card
    assert "trained with Menura" not in card
    assert "trained with Menura" in Path("out/README.md").read_text()


def test_a_server_that_answers_something_else_is_named(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train("reach", output_dir="out", overrides=SHORT)
    infer = Client.infer
    monkeypatch.setattr(Client, "infer", lambda *args: {"actions": infer(*args)["actions"] + 1})
    name, message = failure("out")
    assert name == CHECKS[5]
    assert "got up to 1 away from the server" in message
