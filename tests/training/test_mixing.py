"""Two robots in one training: a layout, masks, each its own statistics, and each served as what it is."""

from __future__ import annotations

import pickle
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import menura
from menura.cli.main import main
from menura.config import load_task
from menura.conformance import check_run
from menura.data import open_dataset
from menura.errors import ConfigError, ContractError, DataError, FeatureMismatch
from menura.evaluation.results import Results
from menura.training.ingredients import gather

DATASETS = '''
import numpy as np
from menura.data import Episode
from menura.features import CameraFeature, Features, VectorFeature


class Arm:
    joints, cameras, scale = ("waist", "elbow", "wrist"), ("front",), 1.0

    def __init__(self, episodes=6, length=20):
        self.episodes, self.length = episodes, length
        names = VectorFeature(self.joints)
        cameras = {camera: CameraFeature(8, 8) for camera in self.cameras}
        self.features = Features(names, names, cameras, fps=10, control_type="abs", control_space="joint")

    def __len__(self):
        return self.episodes

    def episode(self, index):
        rng = np.random.default_rng((index, len(self.joints)))
        walk = self.scale * rng.normal(size=(self.length + 1, len(self.joints))).cumsum(axis=0) + 5
        frames = {
            camera: rng.integers(256, size=(self.length, 8, 8, 3), dtype=np.uint8) for camera in self.cameras
        }
        return Episode(walk[:-1], walk[1:], frames, fps=10, task="move")


class LongArm(Arm):
    """In another order, with a dimension and a camera more."""

    joints, cameras, scale = ("elbow", "waist", "hand", "wrist"), ("wrist_cam", "front"), 10.0


class Blind(Arm):
    joints, cameras = ("waist", "hand"), ()
'''

ENV = """
import numpy as np
from menura.envs.base import Outcome, SimEnv
from menura.features import CameraFeature, Features, VectorFeature


class ArmEnv(SimEnv):
    task, max_episode_steps, success_rule = "move", 5, "never"

    def __init__(self, joints=("waist", "elbow", "wrist"), cameras=("front",)):
        names = VectorFeature(tuple(joints))
        self.features = Features(names, names, {camera: CameraFeature(8, 8) for camera in cameras}, fps=10)
        self.noisy_actions = np.ones(len(joints), bool)
        self.declare_spaces([-1e9] * len(joints), [1e9] * len(joints))

    def start(self, seed):
        self.position = np.full(self.features.state_dim, 5, np.float32)

    def apply(self, action):
        self.position = action
        return Outcome(0.0, False)

    def state(self):
        return self.position

    def image(self, camera):
        return np.zeros((8, 8, 3), np.uint8)
"""

POLICY = '''
import torch
from torch import nn
from transformers import PretrainedConfig, PreTrainedModel


class PlainConfig(PretrainedConfig):
    def __init__(self, state_dim=3, action_dim=3, **kwargs):
        super().__init__(**kwargs)
        self.state_dim, self.action_dim = state_dim, action_dim


class Plain(PreTrainedModel):
    config_class = PlainConfig

    def __init__(self, config):
        super().__init__(config)
        self.net = nn.Linear(config.state_dim, config.action_dim)
        self.post_init()

    def forward(self, state, actions=None):
        predicted = self.net(state)
        return predicted if actions is None else {"loss": (predicted - actions).abs().mean()}

    def select_action(self, obs_dict):
        return self.forward(obs_dict["state"])


class Half(Plain):
    """Asks for the actions that are there, but not for the state."""

    def forward(self, state, actions=None, action_mask=None):
        return super().forward(state, actions)
'''

LAYOUT = """
layout:
  state: [waist, elbow, wrist, hand]
  action: [waist, elbow, wrist, hand]
  cameras: [front, wrist_cam]
"""

TASK = """
datasets:
  - {class: Arm, name: arm, weight: 1}
  - {class: LongArm, name: long, weight: 3}
%s
policy: {class: %s, args: %s}
env: {class: ArmEnv}
evaluation: {episodes: 2, num_envs: 2, num_workers: 1, videos: 0}
training:
  max_steps: 3
  per_device_train_batch_size: 8
  save_strategy: "no"
  report_to: none
"""

SMALL = {
    "MLPPolicy": "{chunk_size: 4, n_action_steps: 2, hidden_size: 16, n_obs_steps: 2}",
    "CNNMLPPolicy": "{chunk_size: 4, n_action_steps: 2, hidden_size: 16, channels: 8, image_size: [16, 16]}",
    "ACTPolicy": "{chunk_size: 4, n_action_steps: 2, hidden_size: 16, n_heads: 2, feedforward_size: 16, "
    "n_encoder_layers: 1, n_decoder_layers: 1, latent_dim: 4, pretrained_backbone: null, image_size: [32, 32], "
    "backbone_widths: [16], backbone_depths: [1]}",
}


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    files = {"dataset/arms.py": DATASETS, "env/arm_env.py": ENV, "policy/plain.py": POLICY}
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content)
    monkeypatch.setenv("MENURA_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def task(project: Path, policy: str = "MLPPolicy", layout: str = LAYOUT, **replaced: str) -> str:
    text = TASK % (layout, policy, SMALL.get(policy, "{}"))
    for old, new in replaced.items():
        text = text.replace(old, new)
    (project / "configs" / "task").mkdir(parents=True, exist_ok=True)
    (project / "configs" / "task" / "mixed.yaml").write_text(text)
    return "mixed"


@pytest.mark.parametrize("policy", list(SMALL))
def test_each_robot_is_trained_saved_loaded_and_served_as_what_it_is(project: Path, policy: str) -> None:
    run = menura.train(task(project, policy), output_dir=project / "run").directory
    sees = policy != "MLPPolicy"
    for name, joints, cameras in (("arm", 3, ("front",)), ("long", 4, ("wrist_cam", "front"))):
        meta = menura.MetaPolicy.from_pretrained(run, dataset=name)
        reader = open_dataset({"class": "Arm" if name == "arm" else "LongArm"}, project=project)
        assert meta.features == reader.features
        assert set(meta.required_cameras) == (set(cameras) if sees else set())
        episode = reader.episode(0)
        state = episode.state[None, :2] if meta.n_obs_steps == 2 else episode.state[:1]
        images = {camera: np.asarray(frames[:1]) for camera, frames in episode.images.items()}
        actions = meta.predict({"state": state, "images": images, "task": ["move"]})
        assert actions.shape == (1, 4, joints)
        mean, spread = np.mean(episode.action), 10 * np.ptp(episode.action)
        assert (np.abs(actions - mean) < spread).all()  # in its own units
    for result in check_run(run):
        assert result.ok, result
    with pytest.raises(FeatureMismatch, match=r"expected one of .*'arm', 'long'"):
        menura.MetaPolicy.from_pretrained(run)


def test_each_robot_is_evaluated(project: Path) -> None:
    run = menura.train(task(project, "CNNMLPPolicy"), output_dir=project / "run").directory
    with pytest.raises(FeatureMismatch, match=r"expected one of .*'arm', 'long'"):
        menura.evaluate(run)
    for name, args in (
        ("arm", []),
        ("long", ["--env.args={joints: [elbow, waist, hand, wrist], cameras: [front, wrist_cam]}"]),
    ):
        with pytest.raises(SystemExit) as done:
            main(["eval", "-m", str(run), "--dataset", name, "-o", str(project / name), *args])
        assert done.value.code == 0
        assert len(Results.load(project / name / "results.json").episodes) == 2
        assert f"--dataset {name}" in (project / name / "report.html").read_text()


def test_each_robot_is_recorded(project: Path) -> None:
    name = task(project)
    run = menura.train(name, output_dir=project / "run").directory
    asked = {"policy": run, "episodes": 1, "keep_failures": True, "num_workers": 1}
    with pytest.raises(menura.MenuraError, match=r"expected one of \['arm', 'long'\]"):
        menura.collect(name, output_dir=project / "unsaid", **asked)
    recorded = menura.collect(name, output_dir=project / "recorded", overrides=["--evaluation.dataset=arm"], **asked)
    assert open_dataset(recorded.failures or recorded.directory).features.action.names == ("waist", "elbow", "wrist")


def test_each_robot_is_served(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = menura.train(task(project), output_dir=project / "run").directory
    words = ["serve", "-m", str(run), "--port", "0"]
    with pytest.raises(SystemExit) as refused:
        main(words)
    assert refused.value.code == 2
    assert "dataset: expected one of ['arm', 'long']" in capsys.readouterr().err
    command = [sys.executable, "-c", "from menura.cli.main import main; main()", *words, "--dataset", "long"]
    server = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        assert server.stderr is not None
        url = next(found[0] for line in server.stderr if (found := re.findall(r"ws://127.0.0.1:\d+", line)))
        policy = menura.MetaPolicy.from_pretrained(url)
        reader = open_dataset({"class": "LongArm"}, project=project)
        assert policy.features == reader.features
        state = reader.episode(0).state[None, :2]
        here = menura.MetaPolicy.from_pretrained(run, dataset="long")
        seen = {"state": state, "task": ["move"]}
        np.testing.assert_allclose(policy.predict(seen), here.predict(seen), rtol=1e-4)
    finally:
        server.terminate()
        server.wait()


def test_what_is_missing_is_zero_and_masked(project: Path) -> None:
    made = gather(load_task(task(project, "CNNMLPPolicy")), seed=0, hold_out=False)
    assert made.features.action.names == ("waist", "elbow", "wrist", "hand")
    assert list(made.features.cameras) == ["front", "wrist_cam"]
    batch = made.processor.inputs(menura.data.collate(made.train.__getitems__(range(0, 240, 5))))
    of_arm = batch["dataset_id"] == 0
    assert of_arm.any()
    assert (~of_arm).any()
    assert batch["action_mask"][of_arm].tolist() == [[True, True, True, False]] * int(of_arm.sum())
    assert batch["image_mask"][of_arm].tolist() == [[True, False]] * int(of_arm.sum())
    assert batch["state_mask"].dtype == batch["image_mask"].dtype == torch.bool
    assert batch["action_mask"][~of_arm].all()
    assert batch["image_mask"][~of_arm].all()
    assert not batch["state"][of_arm][:, 3].any()
    assert not batch["actions"][of_arm][..., 3].any()
    assert not batch["image"][of_arm][:, 1].any()
    assert batch["image"][of_arm][:, 0].any()
    assert batch["image"][~of_arm].flatten(2).any(dim=2).all()
    for chosen in (of_arm, ~of_arm):  # each by its own statistics
        assert abs(float(batch["actions"][chosen][..., :3].mean())) < 1
        assert 0.3 < float(batch["actions"][chosen][..., :3].std()) < 2


def test_dimensions_go_by_their_names(project: Path) -> None:
    made = gather(load_task(task(project)), seed=0, hold_out=False)
    long = made.train.parts[1]
    episode = made.readers[1].episode(0)
    item = long.__getitems__([3])
    order = [made.readers[1].features.action.names.index(name) for name in made.features.action.names]
    np.testing.assert_array_equal(item["actions"][0, 0], episode.action[3, order])
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(long)).__getitems__([3])["state"], item["state"])
    raw = {"state": episode.state[None, 2:4], "task": ["move"]}
    np.testing.assert_array_equal(made.processor.prepare(raw, 1)["state"].numpy()[0], item["state"][0])
    normalized = made.processor.action_normalizer.normalize(torch.from_numpy(item["actions"]), 1)
    np.testing.assert_allclose(made.processor.actions(normalized, 1)[0, 0], episode.action[3], rtol=1e-4)


def test_the_loss_does_not_look_at_what_is_missing(project: Path) -> None:
    for name in SMALL:
        made = gather(load_task(task(project, name)), seed=0, hold_out=False)
        batch = made.processor.inputs(menura.data.collate(made.train.__getitems__(range(0, 240, 5))))
        changed = {key: value.clone() if isinstance(value, torch.Tensor) else value for key, value in batch.items()}
        changed["actions"][~batch["action_mask"][:, None].expand_as(batch["actions"])] = 1e3
        state_mask = batch["state_mask"] if batch["state"].dim() == 2 else batch["state_mask"][:, None]
        changed["state"][~state_mask.expand_as(batch["state"])] = 1e3
        if "image" in batch:
            changed["image"][~batch["image_mask"]] = 1e3
        losses = []
        for each in (batch, changed):
            torch.manual_seed(0)
            policy = made.policy.eval()
            keys = ("state", "image", "actions", "is_pad", "state_mask", "action_mask", "image_mask")
            named = {key: each[key] for key in keys if key in each and (key != "image" or name != "MLPPolicy")}
            if name == "MLPPolicy":
                named.pop("image_mask", None)
            losses.append(policy(**named)["loss"].item())
        assert losses[0] == pytest.approx(losses[1], rel=1e-4), name


def test_a_dataset_without_state_or_cameras_of_the_layout(project: Path) -> None:
    three = {"name: long, weight: 3}": "name: long, weight: 3}\n  - {class: Blind, name: blind, weight: 1}"}
    made = gather(load_task(task(project, "CNNMLPPolicy", **three)), seed=0, hold_out=True)
    batch = made.processor.inputs(menura.data.collate(made.train.__getitems__(range(0, len(made.train), 5))))
    blind = batch["dataset_id"] == 2
    assert not batch["image_mask"][blind].any()
    assert not batch["image"][blind].any()
    assert made.held_out is not None
    training = {(part.name, episode) for part in made.train.parts for episode in part.episodes.tolist()}
    held_out = {(part.name, episode) for part in made.held_out.parts for episode in part.episodes.tolist()}
    assert not training & held_out
    assert len(training | held_out) == 18


def test_an_image_encoder_sees_nothing_where_there_is_no_camera(project: Path) -> None:
    (project / "image_encoder").mkdir()
    (project / "image_encoder" / "bright.py").write_text(
        "import torch\n\n\nclass Bright(torch.nn.Module):\n    feature_dim = 3\n\n"
        "    def forward(self, image):\n        return image.mean(dim=(2, 3)) + 1\n"
    )
    (project / "policy" / "seeing.py").write_text(
        POLICY.replace("Plain", "Seeing")
        .split("class Half")[0]
        .replace("state_dim=3,", "state_dim=3, image_feature_dim=6,")
        .replace("self.state_dim, ", "self.image_feature_dim = image_feature_dim\n        self.state_dim, ")
        .replace("nn.Linear(config.state_dim", "nn.Linear(config.image_feature_dim")
        .replace("forward(self, state,", "forward(self, image_features, image_mask=None, action_mask=None,")
        .replace("net(state)", "net(image_features)")
        .replace('obs_dict["state"]', 'obs_dict["image_features"]')
    )
    encoder = {"env: {class: ArmEnv}": "image_encoder: {class: Bright}\nenv: {class: ArmEnv}"}
    run = menura.train(task(project, "Seeing", **encoder), output_dir=project / "run").directory
    for result in check_run(run):
        assert result.ok, result
    made = gather(load_task(task(project, "Seeing", **encoder)), seed=0, hold_out=False)
    batch = made.processor.inputs(menura.data.collate(made.train.__getitems__(range(0, 240, 5))))
    of_arm = batch["dataset_id"] == 0
    assert not batch["image_features"][of_arm][:, 3:].any()
    assert (batch["image_features"][of_arm][:, :3] > 1).all()


@pytest.mark.parametrize(
    ("policy", "state", "mask"),
    [("Plain", "waist, elbow, wrist", "action_mask"), ("Half", "waist, elbow, wrist, hand", "state_mask")],
)
def test_a_policy_that_does_not_ask_is_refused(project: Path, policy: str, state: str, mask: str) -> None:
    layout = LAYOUT.replace("state: [waist, elbow, wrist, hand]", f"state: [{state}]")
    message = rf"{policy}.forward: expected a parameter '{mask}', for 'arm' lacks 'hand' of the layout"
    with pytest.raises(ContractError, match=message) as error:
        gather(load_task(task(project, policy, layout)), seed=0, hold_out=False)
    assert "configs/task/mixed.yaml:" in str(error.value)
    assert not (project / "cache").exists()


def test_a_policy_need_not_ask_for_what_all_have(project: Path) -> None:
    layout = LAYOUT.replace("state: [waist, elbow, wrist, hand]", "state: [waist, elbow, wrist]")
    made = gather(load_task(task(project, "Half", layout)), seed=0, hold_out=False)
    assert made.features.state_dim == 3


@pytest.mark.parametrize(
    ("layout", "message"),
    [
        ("layout: {state: [], cameras: []}", r"layout.action: expected it, for the datasets differ: \['waist'"),
        (LAYOUT.replace("wrist, hand]", "wrist, hnad]"), r"got 'hnad'; did you mean hand"),
        (LAYOUT.replace("cameras: [front,", "cameras: [frnt,"), r"layout.cameras: .* got 'frnt'; did you mean front"),
        (
            LAYOUT.replace("action: [waist, elbow, wrist, hand]", "action: [waist, elbow, wrist]"),
            r"layout.action: expected every dimension of 'long', got none named 'hand'",
        ),
        ("", r"Say `layout:`"),
    ],
)
def test_a_layout_that_does_not_fit_is_told(project: Path, layout: str, message: str) -> None:
    with pytest.raises((ConfigError, FeatureMismatch), match=message):
        gather(load_task(task(project, layout=layout)), seed=0, hold_out=False)


def test_two_datasets_of_one_name_are_refused_before_anything_is_built(project: Path) -> None:
    unnamed = {"class: LongArm, name: long": "class: Arm", "class: Arm, name: arm": "class: Arm"}
    with pytest.raises(DataError, match=r"expected a name for each part, got 'Arm' twice"):
        gather(load_task(task(project, **unnamed)), seed=0, hold_out=False)
    assert not (project / "cache").exists()


def test_a_name_twice_is_found_in_the_configuration(project: Path) -> None:
    with pytest.raises(ConfigError, match=r"layout: .*'hand' twice .*mixed.yaml:\d"):
        load_task(task(project, layout=LAYOUT.replace("wrist, hand]", "hand, hand]")))


def test_other_names_by_rename(project: Path) -> None:
    renamed = {
        "class: Arm, name: arm": "class: Arm, wrappers: [{class: Rename, args: {state: {wrist: hand}, "
        "action: {wrist: hand}, cameras: {front: wrist_cam}}}], name: arm"
    }
    made = gather(load_task(task(project, "CNNMLPPolicy", **renamed)), seed=0, hold_out=False)
    assert made.processor.placements[0].masks["action_mask"].tolist() == [True, True, False, True]
    assert made.processor.placements[0].cameras == (False, True)


def test_a_filter_is_part_of_what_a_run_was_trained_on(project: Path) -> None:
    filtered = {"class: Arm, name: arm": "class: Arm, filter: {first: 3, frames: timestep > 4}, name: arm"}
    made = gather(load_task(task(project, **filtered)), seed=0, hold_out=False)
    plain = gather(load_task(task(project)), seed=0, hold_out=False)
    assert len(made.train.parts[0]) == 45
    assert made.fingerprints["arm"] != plain.fingerprints["arm"]
    assert made.fingerprints["long"] == plain.fingerprints["long"]


def test_augmentations_do_not_fill_what_is_missing(project: Path) -> None:
    noise = {
        "env: {class: ArmEnv}": "augmentations: [{class: StateNoise, args: {std: 1.0}}, "
        "{class: ColorJitter, args: {brightness: 0.9}}]\nenv: {class: ArmEnv}"
    }
    made = gather(load_task(task(project, "CNNMLPPolicy", **noise)), seed=0, hold_out=False)
    assert made.augmentations is not None
    batch = made.processor.inputs(menura.data.collate(made.train.__getitems__(range(0, 240, 5))))
    augmented = made.processor.masked(made.augmentations(batch, (0, 0, 0, 0)))
    of_arm = batch["dataset_id"] == 0
    assert not torch.equal(augmented["state"], batch["state"])
    assert not augmented["state"][of_arm][:, 3].any()
    assert not augmented["image"][of_arm][:, 1].any()


def test_what_is_wrong_in_episodes_left_out_is_no_error(project: Path) -> None:
    broken = DATASETS.replace("walk[1:]", "np.where(index == 3, np.nan, walk[1:])")
    (project / "dataset" / "arms.py").write_text(broken)
    with pytest.raises(DataError, match=r"Dataset 'arm': expected sound data.*leave episodes out by `filter:`"):
        gather(load_task(task(project)), seed=0, hold_out=False)
    without = {"name: ": "filter: {episodes: index != 3}, name: "}
    made = gather(load_task(task(project, **without)), seed=0, hold_out=False)
    assert made.train.parts[0].episodes.tolist() == [0, 1, 2, 4, 5]
