"""Relative and delta actions, and other rotations, from the dataset to the environment and the server."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from menura.config import load_task
from menura.conformance import check_run
from menura.data import collate
from menura.errors import ConfigError, FeatureMismatch
from menura.evaluation.evaluate import evaluate
from menura.meta_policy import MetaPolicy
from menura.policies.check import check_policy
from menura.training.ingredients import Ingredients, gather
from menura.training.run import train

PROJECT = Path(__file__).with_name("pose")


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(PROJECT, tmp_path / "pose", ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setenv("MENURA_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path / "pose")
    return tmp_path / "pose"


def ingredients(*overrides: str, **processor: Any) -> Ingredients:
    few = ["--datasets.0.args={episodes: 5}", *(f"--processor.{key}={value}" for key, value in processor.items())]
    return gather(load_task("pose", [*few, *overrides]), seed=0, hold_out=False)


SPACES = [
    {"action_type": "recorded", "action_rotation": "null"},
    {"action_type": "recorded", "action_rotation": "6d"},
    {"action_type": "relative", "action_rotation": "null"},
    {"action_type": "relative", "action_rotation": "6d"},
    {"action_type": "delta", "action_rotation": "quat_xyzw", "state_rotation": "6d"},
]


@pytest.mark.parametrize("spaces", SPACES, ids=lambda spaces: " ".join(spaces.values()))
@pytest.mark.parametrize("history", [1, 2])
def test_what_was_trained_comes_back_as_it_was_recorded(
    project: Path, spaces: dict[str, str], history: int, assert_same_actions: Any
) -> None:
    made = ingredients(f"--policy.args.n_obs_steps={history}", **spaces)
    part: Any = made.train
    indices = np.array([0, 7, 28, 29, 60])
    batch = part.__getitems__(indices)
    trained = made.processor.inputs(collate(batch))
    episodes = [made.readers[0].episode(part.episode_of(int(index))) for index in indices]
    steps = batch["timestep"]
    seen = steps if history == 1 else np.maximum(steps[:, None] + [-1, 0], 0)
    raw = {"state": np.stack([episode.state[rows] for episode, rows in zip(episodes, seen, strict=True)])}
    back = made.processor.actions(trained["actions"], observation=raw).numpy()
    chunk = np.minimum(steps[:, None] + np.arange(6), 29)
    recorded = np.stack([episode.action[rows] for episode, rows in zip(episodes, chunk, strict=True)])
    assert_same_actions(back, recorded, made.features.action)
    assert np.array_equal(batch["is_pad"], steps[:, None] + np.arange(6) > 29)
    assert trained["state"].shape[-1] == made.policy.config.state_dim
    assert trained["actions"].shape[-1] == made.policy.config.action_dim


@pytest.mark.parametrize("spaces", SPACES[2:], ids=lambda spaces: " ".join(spaces.values()))
def test_statistics_are_those_of_all_windows(project: Path, spaces: dict[str, str]) -> None:
    part: Any = ingredients(**spaces).train
    batch = part.__getitems__(np.arange(len(part)))
    rows = batch["actions"][~batch["is_pad"]].astype(np.float64)
    statistics = part.statistics()["action"]
    assert statistics.count == len(rows)
    for name, expected in (
        ("mean", rows.mean(0)),
        ("std", rows.std(0)),
        ("min", rows.min(0)),
        ("max", rows.max(0)),
        ("q01", np.quantile(rows, 0.01, axis=0)),
        ("q99", np.quantile(rows, 0.99, axis=0)),
    ):
        assert getattr(statistics, name) == pytest.approx(expected, abs=1e-6)
    assert part.statistics()["state"].mean == pytest.approx(batch["state"].mean(0), abs=1e-5)


def test_statistics_of_other_spaces_are_not_taken_from_the_cache(project: Path) -> None:
    relative, delta, again = (
        ingredients(action_type=kind).processor.action_normalizer.tables["std"]
        for kind in ("relative", "delta", "relative")
    )
    assert not np.allclose(relative, delta)
    assert np.array_equal(relative, again)


def test_a_short_training_on_relative_actions_solves_the_task_and_proves_itself(project: Path) -> None:
    train("pose", output_dir="out")
    results = evaluate("out", output_dir="evaluation", episodes=16, videos=0)
    assert results.success_rate > 0.5
    assert [(check.ok, check.message) for check in check_run("out")] == [(True, "")] * 6
    meta = MetaPolicy.from_pretrained("out", project=project)
    assert isinstance(meta, MetaPolicy)
    assert meta.features.action_dim == 7
    assert meta.policy.config.action_dim == 10
    with pytest.raises(FeatureMismatch, match="expected 'state'"):
        meta.predict({"task": [""]})


def test_queued_actions_belong_to_the_state_they_were_predicted_from(project: Path) -> None:
    made = ingredients(action_type="delta", action_rotation="null")
    meta = MetaPolicy(made.policy, made.processor)
    session = meta.session(1)
    states = made.readers[0].episode(0).state
    chunk = meta.predict({"state": states[:1]})[0]
    taken = [session.select_action({"state": states[step][None]})[0] for step in range(3)]
    assert np.array_equal(np.stack(taken), chunk[:3])  # n_action_steps


def test_what_the_data_does_not_allow_is_told_with_its_place(project: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"processor: .*one rotation of the state for .*'turn_x'.*\(configs/task/pose.yaml:\d+\)"
    ):
        ingredients(action_reference="{}")
    with pytest.raises(ConfigError, match=r"processor: action_reference: .*did you mean qw"):
        ingredients(action_reference="{turn_x: qww}")


def test_what_is_wrong_with_the_section_is_told_with_the_line_that_was_written(project: Path) -> None:
    flat = "processor:\n  action_rotation: 6d\n"
    task = project / "configs/task/pose.yaml"
    text = task.read_text()
    start, end = text.index("processor:"), text.index("evaluation:")
    task.write_text(text[:start] + flat + text[end:])
    undeclared = (
        "--datasets.0.wrappers=[{class: DeclareFeatures, args: {action: {rotations: []}, state: {rotations: []}}}]"
    )
    with pytest.raises(ConfigError, match=r"^processor: rotations as 6d: .*\(configs/task/pose\.yaml:\d+\)$"):
        ingredients(undeclared)


def test_masks_of_another_width_are_refused_before_a_store_is_built(project: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^processor\.state_mask: expected \d+ values, one a .*, got 2 \(command"):
        ingredients(state_mask="[true, false]")
    assert not (tmp_path / "cache").exists()


def test_check_policy_builds_it_for_what_is_trained(project: Path) -> None:
    results = check_policy("MLPPolicy", project=project)
    assert [result.message for result in results if not result.ok] == []


def test_a_blind_policy_sees_no_goal_in_any_representation(project: Path) -> None:
    made = ingredients(blind="true", state_rotation="6d")
    part: Any = made.train
    state = made.processor.inputs(collate(part.__getitems__([0, 40])))["state"]
    assert state.shape == (2, 3 + 6 + 1 + 3 + 6)
    assert (state[:, 10:] == 0).all()
    assert (state[:, :10] != 0).any()


def test_each_dataset_of_a_mixture_keeps_its_own_statistics_of_what_is_trained(
    project: Path, assert_same_actions: Any
) -> None:
    long, short = (f"{{class: PoseData, name: s{steps}, args: {{episodes: 3, steps: {steps}}}}}" for steps in (30, 9))
    made = gather(load_task("pose", [f"--datasets=[{long}, {short}]"]), seed=0, hold_out=False)
    part = made.train.parts[1]  # type: ignore[union-attr]
    raw = {"state": made.readers[1].episode(0).state[:2]}
    batch = made.processor.inputs({**collate(part.__getitems__([0, 1])), "dataset_id": torch.tensor([1, 1])})
    back = made.processor.actions(batch["actions"], 1, observation=raw).numpy()
    assert_same_actions(back[0], made.readers[1].episode(0).action[:6], made.features.action)
    assert made.processor.action_normalizer.datasets == 2
