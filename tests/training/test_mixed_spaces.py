"""Robots that differ, each encoded in its own space, in one layout of what is trained: from data to server and back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import menura
from menura.config import load_task
from menura.conformance import check_run
from menura.data import collate
from menura.errors import ConfigError
from menura.policies.check import check_policy
from menura.processing.processor import Processor
from menura.processing.rotations import convert
from menura.session import TemporalEnsemble
from menura.training.ingredients import Ingredients, gather

DATASETS = '''
import numpy as np

from menura.data import Episode
from menura.features import CameraFeature, Features, Rotation, VectorFeature
from menura.processing.rotations import compose, convert


class Hand:
    """Poses by quaternions, a gripper, two cameras; the action is the pose that follows."""

    names = ("x", "y", "qw", "qx", "qy", "qz", "gripper")
    rotation, representation, cameras, pull = ("qw", "qx", "qy", "qz"), "quat_wxyz", ("front", "wrist"), -0.2

    def __init__(self, episodes=6, length=12):
        self.episodes, self.length = episodes, length
        pose = VectorFeature(
            self.names,
            rotations=(Rotation(self.rotation, self.representation),) if self.rotation else (),
            grippers={"gripper": (0.0, 1.0)} if "gripper" in self.names else {},
        )
        cameras = {camera: CameraFeature(8, 8) for camera in self.cameras}
        self.features = Features(pose, pose, cameras, fps=10, control_space="ee", control_type="abs")

    def __len__(self):
        return self.episodes

    def episode(self, index):
        rng = np.random.default_rng((index, len(self.names)))
        at, turn = rng.uniform(-1, 1, 2), rng.uniform(-1, 1, 3)
        rows = []
        for step in range(self.length + 1):
            numbers = dict(zip("xy", at), gripper=float(step > 5))
            if self.rotation:
                turned = convert(turn.astype(np.float32), "axis_angle", self.representation)
                numbers |= dict(zip(self.rotation, turned))
            rows.append([numbers[name] for name in self.names])
            at, turn = at * (1 + self.pull), turn * (1 + self.pull)
        rows = np.array(rows, np.float32)
        frames = {
            camera: rng.integers(256, size=(self.length, 8, 8, 3), dtype=np.uint8) for camera in self.cameras
        }
        return Episode(rows[:-1], rows[1:], frames, fps=10, task="move")


class Wand(Hand):
    """The same rotation recorded otherwise and in another place, no gripper, one camera."""

    names = ("q_x", "q_y", "q_z", "y", "x")
    rotation, representation, cameras, pull = ("q_x", "q_y", "q_z"), "axis_angle", ("front",), 0.05


class Slide(Hand):
    """No rotation at all, and no camera."""

    names, rotation, cameras = ("y", "x"), (), ()
'''

SIX = ", ".join(f"q_6d_{place}" for place in range(6))
TASK = f"""
datasets:
  - {{class: Hand, name: hand}}
  - {{class: Wand, name: wand}}
  - {{class: Slide, name: slide}}
layout:
  state: [x, y, {SIX}, gripper]
  action: [gripper, x, y, {SIX}]
  cameras: [front, wrist]
policy:
  class: CNNMLPPolicy
  args: {{chunk_size: 4, n_action_steps: 2, hidden_size: 16, channels: 8, image_size: [16, 16]}}
processor:
  action_rotation: 6d
  state_rotation: 6d
training:
  max_steps: 3
  per_device_train_batch_size: 8
  save_strategy: "no"
  report_to: none
"""

MLP = ["--policy={class: MLPPolicy, args: {chunk_size: 4, n_action_steps: 2, hidden_size: 64}}", "--layout.cameras=[]"]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, content in {"dataset/robots.py": DATASETS, "configs/task/robots.yaml": TASK}.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content)
    monkeypatch.setenv("MENURA_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def ingredients(*overrides: str, **processor: Any) -> Ingredients:
    given = [f"--processor.{key}={value}" for key, value in processor.items()]
    return gather(load_task("robots", [*given, *overrides]), seed=0, hold_out=False)


def raw_observation(made: Ingredients, dataset: int, steps: list[int], history: int = 1) -> dict[str, Any]:
    """What the robot would have shown at these steps of its first episode."""
    episode = made.readers[dataset].episode(0)
    rows = np.array(steps) if history == 1 else np.maximum(np.array(steps)[:, None] + [-1, 0], 0)
    images = {camera: np.asarray(frames)[rows] for camera, frames in episode.images.items()}
    return {"state": episode.state[rows], "images": images, "task": ["move"] * len(steps)}


@pytest.mark.parametrize("history", [1, 2])
@pytest.mark.parametrize("action_type", ["recorded", "relative", "delta"])
def test_each_comes_back_as_it_was_recorded(
    project: Path, tmp_path: Path, action_type: str, history: int, assert_same_actions: Any
) -> None:
    made = ingredients(f"--policy.args.n_obs_steps={history}", action_type=action_type)
    made.processor.save_pretrained(tmp_path)
    loaded = Processor.from_pretrained(tmp_path)
    steps = [0, 3, 10]
    for number, part in enumerate(made.train.parts):  # type: ignore[union-attr]
        items = {**part.__getitems__(steps), "dataset_id": np.full(len(steps), number)}
        raw = raw_observation(made, number, steps, history)
        episode = made.readers[number].episode(0)
        recorded = episode.action[np.minimum(np.array(steps)[:, None] + np.arange(4), 11)]
        for processor in (made.processor, loaded):
            prepared = processor.prepare(raw, number)
            assert torch.equal(prepared["state"], torch.from_numpy(items["state"]))
            trained = processor.inputs(collate(items))
            assert trained["state"].shape[-1] == trained["actions"].shape[-1] == 9
            back = processor.actions(trained["actions"], number, observation=raw).numpy()
            assert_same_actions(back, recorded, made.readers[number].features.action)


@pytest.mark.parametrize("action_type", ["recorded", "relative"])
def test_what_a_robot_lacks_of_what_is_trained_is_masked_and_never_learnt(project: Path, action_type: str) -> None:
    made = ingredients(action_type=action_type)
    batch = made.processor.inputs(collate(made.train.__getitems__(range(0, 216, 5))))
    turns = [True] * 6
    expected = {
        0: ([True, True, *turns, True], [True, True, True, *turns], [True, True]),
        1: ([True, True, *turns, False], [False, True, True, *turns], [True, False]),
        2: ([True, True, *[False] * 7], [False, True, True, *[False] * 6], [False, False]),
    }
    for number, masks in expected.items():
        rows = batch["dataset_id"] == number
        assert rows.any()
        for key, mask in zip(("state_mask", "action_mask", "image_mask"), masks, strict=True):
            assert batch[key][rows].tolist() == [mask] * int(rows.sum())
        for key, mask in zip(("state", "actions"), masks, strict=False):
            assert not batch[key][rows][..., ~torch.tensor(mask)].any()
    wrong = {**batch, "actions": batch["actions"].masked_fill(~batch["action_mask"][:, None], 1e3)}
    wrong["state"] = batch["state"].masked_fill(~batch["state_mask"], 1e3)
    keys = ("state", "image", "actions", "is_pad", "state_mask", "action_mask", "image_mask")
    policy = made.policy.eval()
    losses = [policy(**{key: each[key] for key in keys})["loss"].item() for each in (batch, wrong)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def test_statistics_are_each_robots_own_of_what_is_trained(project: Path) -> None:
    made = ingredients(action_type="relative")
    for part in made.train.parts:  # type: ignore[union-attr]
        items = part.__getitems__(np.arange(len(part)))
        rows = items["actions"][~items["is_pad"]].astype(np.float64)
        statistics = part.statistics()["action"]
        assert statistics.mean == pytest.approx(rows.mean(0), abs=1e-6)
        assert statistics.std == pytest.approx(rows.std(0), abs=1e-6)
        assert part.statistics()["state"].mean == pytest.approx(items["state"].mean(0), abs=1e-6)


def test_each_robot_is_trained_saved_loaded_and_served_as_what_it_is(project: Path) -> None:
    relative = ["--processor.action_type=relative", "--evaluation.dataset=hand"]
    run = menura.train("robots", output_dir=project / "run", overrides=relative).directory
    made = ingredients(action_type="relative")
    for number, reader in enumerate(made.readers):
        meta = menura.MetaPolicy.from_pretrained(run, dataset=reader.name)
        assert isinstance(meta, menura.MetaPolicy)
        assert meta.features == reader.features
        assert meta.required_cameras == tuple(reader.features.cameras)
        raw = raw_observation(made, number, [0, 1, 2])
        chunks = meta.predict(raw)
        assert chunks.shape == (3, 4, reader.features.action_dim)
        queued, averaged = meta.session(3), meta.session(3, execution=TemporalEnsemble())
        assert np.array_equal(queued.select_action(raw), chunks[:, 0])
        np.testing.assert_allclose(averaged.select_action(raw), chunks[:, 0], atol=1e-6)
        assert np.array_equal(queued.select_action(raw_observation(made, number, [5, 6, 7])), chunks[:, 1])
        assert averaged.select_action(raw).shape == chunks[:, 0].shape
    for result in check_run(run):
        assert result.ok, result
    assert [result.message for result in check_policy("CNNMLPPolicy", project=project) if not result.ok] == []


def test_robots_learn_their_own_motions_in_one_policy(project: Path) -> None:
    short = {"max_steps": 500, "learning_rate": 3e-3, "per_device_train_batch_size": 32, "lr_scheduler_type": "cosine"}
    overrides = [*MLP, "--processor.action_type=relative", *(f"--training.{key}={short[key]}" for key in short)]
    run = menura.train("robots", output_dir=project / "run", overrides=overrides).directory
    made = ingredients(*MLP, action_type="relative")
    for number, reader in enumerate(made.readers):
        meta = menura.MetaPolicy.from_pretrained(run, dataset=reader.name)
        raw, episode = raw_observation(made, number, list(range(8))), reader.episode(0)
        recorded = episode.action[np.arange(8)[:, None] + np.arange(4)]
        at = [reader.features.action.names.index(name) for name in "xy"]
        missed = np.abs(meta.predict(raw) - recorded)[..., at].mean()
        assert missed < 0.2 * np.abs(episode.state[:8, None] - recorded)[..., at].mean(), reader.name


def test_a_layout_without_a_state_asks_for_it_only_where_actions_refer_to_it(project: Path) -> None:
    seeing = ["--layout.state=[]", "--datasets=[{class: Hand, name: hand}, {class: Wand, name: wand}]"]
    recorded, relative = (ingredients(*seeing, action_type=kind) for kind in ("recorded", "relative"))
    raw = raw_observation(relative, 1, [0, 2])
    assert "state" not in relative.processor.prepare(raw, 1)
    without = {key: value for key, value in raw.items() if key != "state"}
    meta = menura.MetaPolicy(recorded.policy, recorded.processor, dataset="wand")
    assert meta.predict(without).shape == (2, 4, 5)
    meta = menura.MetaPolicy(relative.policy, relative.processor, dataset="wand")
    assert meta.predict(raw).shape == (2, 4, 5)
    with pytest.raises(menura.MenuraError, match="expected 'state'"):
        meta.predict(without)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["--datasets.2.wrappers=[{class: Rename, args: {state: {x: across}}}]", "--processor.action_type=relative"],
            r"processor: dataset 'slide': .*expected 'x' of the action in the state, got \['y', 'across'\]"
            r".*\(.*robots.yaml:\d+|command line\)",
        ),
        (
            [
                "--processor.action_type=delta",
                "--datasets.1.wrappers=[{class: DeclareFeatures, args: {control_type: delta}}]",
            ],
            r"processor: dataset 'wand': .*expected recorded actions that are absolute",
        ),
        (["--processor.absolute_names=[griper]"], r"processor: absolute_names: .*'griper'; did you mean gripper"),
        (["--processor.action_reference={z: x}"], r"processor: action_reference: expected some of .*, got 'z'"),
        (
            ["--processor.action_rotation=null", "--processor.state_rotation=null"],
            r"layout.state: expected names of \['x', 'y', 'qw'.* got 'q_6d_0'",
        ),
        (
            ["--datasets=[{class: Slide, name: one}, {class: Slide, name: two}]"],
            r"processor: dataset 'one': rotations as 6d: expected a feature that says which dimensions are a rotation",
        ),
    ],
)
def test_what_a_robot_does_not_allow_is_told_before_anything_is_built(
    project: Path, overrides: list[str], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        ingredients(*overrides)
    assert not (project / "cache").exists()


def test_what_is_said_of_one_robot_does_not_concern_the_others(project: Path) -> None:
    said = {"absolute_names": "[q_x, q_y, q_z]", "action_reference": "{qw: qw}"}
    made = ingredients(action_type="relative", **said)
    names, of_wand = made.features.action.names, made.readers[1].episode(0)
    turns = [names.index(f"q_6d_{place}") for place in range(6)]
    hand, wand = (part.__getitems__([2])["actions"][0, 0] for part in made.train.parts[:2])  # type: ignore[union-attr]
    np.testing.assert_allclose(hand[turns], [1, 0, 0, 0, 1, 0], atol=0.3)  # a small turn away from the pose
    absolute = convert(of_wand.action[2, :3], "axis_angle", "6d")
    np.testing.assert_allclose(wand[turns], absolute, atol=1e-6)
    np.testing.assert_allclose(wand[names.index("x")], of_wand.action[2, 4] - of_wand.state[2, 4], atol=1e-6)
