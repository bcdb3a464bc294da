"""A policy that is shown a recording: its answers against the recorded actions, whatever it remembers or draws."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from menura.config import ProcessorConfig
from menura.data.episode import Episode, Float32
from menura.data.readers.base import Reader
from menura.errors import FeatureMismatch
from menura.evaluation.offline import FILE_NAME, PAGE, evaluate_offline
from menura.features import CameraFeature, Features, Rotation, VectorFeature
from menura.meta_policy import MetaPolicy
from menura.policies.contract import build_policy
from menura.policies.mlp.modeling_mlp import MLPPolicy
from menura.processing.normalizer import Rows
from menura.processing.processor import Processor
from menura.serving.background import serving
from menura.serving.server import PolicyServer

QUATERNION = ("qw", "qx", "qy", "qz")
FEATURES = Features(
    VectorFeature(("x", "y")),
    VectorFeature(("a", "b", *QUATERNION), rotations=(Rotation(QUATERNION, "quat_wxyz"),)),
    fps=10,
)


class Recording(Reader):
    """Episodes of 7 and 5 frames; the quaternion's sign changes from frame to frame."""

    name = "recording"

    def __init__(self, features: Features = FEATURES, answers: list[Float32] | None = None) -> None:
        self.features = features
        self.answers = answers

    def __len__(self) -> int:
        return 2

    def episode(self, index: int) -> Episode:
        random = np.random.default_rng(index)
        steps = (7, 5)[index]
        action = random.normal(size=(steps, 6)).astype(np.float32)
        if self.answers is not None:
            action = self.answers[index].copy()
            action[::2, 2:] *= -1
        return Episode(state=random.normal(size=(steps, 2)).astype(np.float32), action=action, fps=10)


def policy(features: Features = FEATURES, **args: Any) -> MetaPolicy:
    torch.manual_seed(0)
    made = build_policy(MLPPolicy, {"chunk_size": 4, "n_action_steps": 3, "hidden_size": 16, **args}, features)

    def rows(width: int) -> Rows:
        zeros, ones = np.zeros(width), np.ones(width)
        return Rows(zeros, ones, -ones, ones, -ones, ones)

    statistics = {"made": {"state": rows(features.state_dim), "action": rows(features.action_dim)}}
    processor = Processor.build(ProcessorConfig(), features, statistics, made.config, uses=("state",))
    return MetaPolicy(made, processor)


def own_answers(meta: MetaPolicy) -> list[Float32]:
    """What its session executes, one episode after the other."""
    answers = []
    for index in range(2):
        session = meta.session(1)
        states = Recording().episode(index).state
        answers.append(np.concatenate([session.select_action({"state": state[None]}) for state in states]))
    return answers


@pytest.mark.parametrize("n_obs_steps", [1, 2])
def test_who_recorded_the_episodes_repeats_them(n_obs_steps: int) -> None:
    meta = policy(n_obs_steps=n_obs_steps) if n_obs_steps > 1 else policy()
    found = evaluate_offline(meta, Recording(answers=own_answers(meta)))
    assert found.score < 1e-6  # a quaternion and its negative are the same
    assert [error.frames for error in found.errors.values()] == [7, 5]


def test_a_server_is_asked_as_a_policy_is() -> None:
    meta = policy(n_obs_steps=2)
    with serving(PolicyServer(meta, port=0)) as server:
        assert evaluate_offline(server.address, Recording(answers=own_answers(meta))).score < 1e-6


def test_errors_are_told_by_dimension_in_units_and_in_spreads() -> None:
    meta = policy()
    answers = own_answers(meta)
    for actions in answers:
        actions[:, 1] += 0.5
    found = evaluate_offline(meta, Recording(answers=answers))
    spread = np.concatenate(answers)[:, 1].std()
    np.testing.assert_allclose(found.absolute[:2], [0, 0.5], atol=1e-6)
    np.testing.assert_allclose(found.in_spreads[:2], [0, 0.5 / spread], rtol=1e-4, atol=1e-5)
    assert "Farthest: b " in str(found)
    assert "12 frames of 2 episodes" in str(found)


def test_who_always_answers_the_mean_is_off_by_one_spread() -> None:
    meta = policy(Features(FEATURES.state, VectorFeature(("a", "b")), fps=10))
    for parameter in meta.policy.parameters():
        parameter.data.zero_()
    values = [np.array([[1.0, -2], [-1, 2]] * 4, np.float32)[: (7, 5)[i] // 2 * 2] for i in range(2)]

    class Balanced(Recording):
        def episode(self, index: int) -> Episode:
            return Episode(state=np.zeros((len(values[index]), 2), np.float32), action=values[index], fps=10)

    found = evaluate_offline(meta, Balanced(meta.features))
    np.testing.assert_allclose(found.in_spreads, 1, rtol=1e-6)


def test_the_page_and_its_numbers(tmp_path: Path) -> None:
    found = evaluate_offline(policy(), Recording(), episodes=1, output_dir=tmp_path / "out")
    written = json.loads((tmp_path / "out" / FILE_NAME).read_text())
    assert written == found.to_dict()
    assert list(written["episodes"]) == ["0"]
    page = (tmp_path / "out" / PAGE).read_text()
    assert page.count('class="beside"') == page.count('class="curve"') == 6
    assert "MLPPolicy on recording" in page


def test_another_dataset_is_refused_by_its_dimensions() -> None:
    other = Features(VectorFeature(("x", "z")), FEATURES.action, fps=10)
    with pytest.raises(FeatureMismatch, match=r"(?s)dataset: expected what the policy was trained on.*state names"):
        evaluate_offline(policy(), Recording(other))


def test_a_camera_that_the_dataset_lacks_is_named() -> None:
    seen = Features(FEATURES.state, FEATURES.action, {"topp": CameraFeature(8, 8)}, fps=10)
    with pytest.raises(FeatureMismatch, match=r"dataset: expected the cameras .*\(top\).*did you mean topp"):
        seen.require_cameras(("top",), where="dataset", step="Name them: keys.")
