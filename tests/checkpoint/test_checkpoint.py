"""A checkpoint is complete or absent, loads anywhere, and notices every change."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from menura import components
from menura.checkpoint import MANIFEST_FILE, load_checkpoint, save_checkpoint
from menura.checkpoint.golden import Golden
from menura.errors import CheckpointError, ComponentError, ContractError, StatisticsError
from menura.policies.contract import build_policy

FILES = {
    "README.md",
    "config.json",
    "golden.safetensors",
    "look.py",
    "menura.json",
    "model.safetensors",
    "normalizer.safetensors",
    "processor_config.json",
}


def edit_json(path: Path, **values: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


# --- what is written --------------------------------------------------------------------------------------------------


def test_holds_everything_and_no_pickle(saved) -> None:
    assert {path.name for path in saved.directory.iterdir()} == FILES
    for path in saved.directory.iterdir():
        assert not path.read_bytes().startswith((b"\x80\x02", b"\x80\x04", b"\x80\x05", b"PK\x03\x04")), path
    manifest = json.loads((saved.directory / MANIFEST_FILE).read_text())
    assert set(manifest["files"]) == FILES - {MANIFEST_FILE}
    assert manifest["seed"] == 7
    assert manifest["datasets"] == {"demos": "f" * 64}
    assert {"menura", "torch", "transformers", "python"} <= set(manifest["versions"])


def test_card_says_what_it_is(saved) -> None:
    card = (saved.directory / "README.md").read_text()
    for part in ("# Look", "demos (`ffffffffffff`)", "top, wrist at 16 × 16", "menura eval -m ."):
        assert part in card


def test_loads_equal(saved) -> None:
    checkpoint = load_checkpoint(saved.directory, project=saved.project)
    assert checkpoint.policy.training is False
    assert checkpoint.features == saved.processor.features
    assert checkpoint.processor.settings == saved.processor.settings
    for name, weight in saved.policy.state_dict().items():
        assert torch.equal(weight, checkpoint.policy.state_dict()[name])


def test_arguments_of_the_config_come_back(tmp_path: Path, helpers) -> None:
    project = tmp_path / "project"
    helpers.write_policy(project)
    class_ = components.load("policy", "Look", project)
    policy = build_policy(class_, {"chunk_size": 9, "n_action_steps": 5}, helpers.FEATURES)
    helpers.save(project, tmp_path / "out", policy=policy, processor=helpers.processor(policy.config))
    config = load_checkpoint(tmp_path / "out", project=project).policy.config
    assert (config.chunk_size, config.n_action_steps, config.camera_names) == (9, 5, ["top", "wrist"])


@pytest.mark.parametrize("kind", ["zscore", "minmax", "percentile", "identity"])
def test_the_normalization_comes_back(saved, tmp_path: Path, helpers, kind: str) -> None:
    config = SimpleNamespace(**(vars(helpers.CONFIG) | {"state": kind, "action": kind}))
    processor = helpers.processor(saved.policy.config, config=config)
    helpers.save_again(saved, tmp_path / "again", processor=processor)
    loaded = load_checkpoint(tmp_path / "again", project=saved.project).processor
    assert (loaded.settings.state, loaded.settings.action) == (kind, kind)


def test_saving_leaves_the_mode_and_the_random_state_alone(saved, tmp_path: Path, helpers) -> None:
    saved.policy.train()
    before = torch.get_rng_state()
    helpers.save_again(saved, tmp_path / "again")
    assert torch.equal(torch.get_rng_state(), before)
    assert saved.policy.training


def test_same_policy_same_checkpoint(saved, tmp_path: Path, helpers) -> None:
    """Its files' order is the same each time, too, not only mostly."""
    first = json.loads((saved.directory / MANIFEST_FILE).read_text())
    for again in ("a", "b", "c", "d"):
        helpers.save_again(saved, tmp_path / again)
        assert json.loads((tmp_path / again / MANIFEST_FILE).read_text()) == first


def test_a_policy_that_forgot_post_init_loads(tmp_path: Path, helpers) -> None:
    project = tmp_path / "project"
    helpers.write_policy(project, helpers.POLICY.replace("        self.post_init()\n", ""))
    helpers.save(project, tmp_path / "out")
    load_checkpoint(tmp_path / "out", project=project)


def test_menuras_own_policy(tmp_path: Path, helpers) -> None:
    project = tmp_path / "empty"
    project.mkdir()
    policy = build_policy(components.load("policy", "MLPPolicy", project), {"hidden_size": 8}, helpers.FEATURES)
    processor = helpers.processor(policy.config, uses=("state",))
    golden = {"state": np.zeros((2, 3), np.float32)}
    helpers.save(project, tmp_path / "out", policy=policy, processor=processor, golden=golden)
    loaded = load_checkpoint(tmp_path / "out", project=project)
    assert type(loaded.policy) is type(policy)
    assert loaded.manifest.policy.module == "menura.policies.mlp.modeling_mlp"


def test_a_class_without_a_file_is_refused(saved, tmp_path: Path, helpers) -> None:
    class Local(type(saved.policy)):
        pass

    Local.__module__ = "__main__"
    saved.policy.__class__ = Local
    with pytest.raises(ContractError, match="expected a class defined in a file of its own"):
        helpers.save_again(saved, tmp_path / "again")
    assert not (tmp_path / "again").exists()


# --- where its code comes from ----------------------------------------------------------------------------------------


def without_menura(code: str, cache: Path) -> subprocess.CompletedProcess[str]:
    blocked = """
import importlib.abc, sys

class NoMenura(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "menura":
            raise ModuleNotFoundError(f"No module named {name!r}")

sys.meta_path.insert(0, NoMenura())
"""
    environment = {"PATH": "/usr/bin", "HF_HOME": str(cache), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, "-c", blocked + code], env=environment, capture_output=True, text=True, check=False
    )


def test_auto_model_loads_it_where_menura_is_not(saved, tmp_path: Path) -> None:
    expected = saved.policy.eval()(torch.ones(1, 2, 3, 16, 16), torch.ones(1, 3)).flatten().tolist()
    code = f"""
import torch
from transformers import AutoModel

model = AutoModel.from_pretrained({str(saved.directory)!r}, trust_remote_code=True)
answer = model.eval()(torch.ones(1, 2, 3, 16, 16), torch.ones(1, 3)).flatten().tolist()
assert all(abs(a - b) < 1e-5 for a, b in zip(answer, {expected!r})), answer
"""
    done = without_menura(code, tmp_path / "cache")
    assert done.returncode == 0, done.stderr


def test_auto_model_loads_menuras_own_policies_where_menura_is_not(tmp_path: Path, helpers) -> None:
    for name, args in helpers.SMALL.items():
        policy = build_policy(components.load("policy", name, tmp_path), args, helpers.FEATURES)
        processor = helpers.processor(policy.config)
        helpers.save(tmp_path, tmp_path / "out" / name, policy=policy, processor=processor)
    code = f"""
from transformers import AutoModel
for name in {list(helpers.SMALL)!r}:
    model = AutoModel.from_pretrained({str(tmp_path / "out")!r} + "/" + name, trust_remote_code=True)
    assert type(model).__name__ == name
    assert callable(model.select_action)
"""
    done = without_menura(code, tmp_path / "cache")
    assert done.returncode == 0, done.stderr


def test_the_copy_runs_only_when_trusted(saved, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    with pytest.raises(CheckpointError, match="trust_remote_code=True"):
        load_checkpoint(saved.directory, project=elsewhere)
    loaded = load_checkpoint(saved.directory, project=elsewhere, trust_remote_code=True)
    assert loaded.policy.__module__.startswith("transformers_modules")


@pytest.mark.parametrize("reference", ["runs/out/look.py:Look", "{out}/look.py:Look", "runs.out.look:Look"])
def test_a_manifest_cannot_name_its_own_code_as_the_projects(saved, helpers, reference: str) -> None:
    out = saved.project / "runs" / "out"
    out.parent.mkdir()
    saved.directory.rename(out)
    saved.source.unlink()
    manifest = json.loads((out / MANIFEST_FILE).read_text())
    edit_json(out / MANIFEST_FILE, policy=manifest["policy"] | {"reference": reference.format(out=out)})
    helpers.rehash(out)
    with pytest.raises(CheckpointError, match="which is not a file of the project"):
        load_checkpoint(out, project=saved.project)


def test_a_copy_that_needs_the_project_is_named(tmp_path: Path, helpers) -> None:
    project = tmp_path / "project"
    helpers.write_policy(project, "from policy.layers import nothing\n" + helpers.POLICY)
    (project / "policy" / "layers.py").write_text("nothing = None\n")
    helpers.save(project, tmp_path / "out")
    helpers.forget_project()
    with pytest.raises(CheckpointError, match=r"out/look\.py: expected Look, got: .* packages .*: policy"):
        load_checkpoint(tmp_path / "out", project=tmp_path, trust_remote_code=True)


def test_neighbours_travel(tmp_path: Path, helpers) -> None:
    project = tmp_path / "project"
    helpers.write_policy(project, "from .layers import nothing\n" + helpers.POLICY)
    (project / "policy" / "layers.py").write_text("nothing = None\n")
    helpers.save(project, tmp_path / "out")
    assert (tmp_path / "out" / "layers.py").exists()
    load_checkpoint(tmp_path / "out", project=tmp_path, trust_remote_code=True)


def test_a_trusted_copy_can_be_saved_and_loaded_again(saved, tmp_path: Path, helpers) -> None:
    (tmp_path / "elsewhere").mkdir()
    loaded = load_checkpoint(saved.directory, project=tmp_path / "elsewhere", trust_remote_code=True)
    helpers.save(saved.project, tmp_path / "again", policy=loaded.policy, processor=loaded.processor)
    load_checkpoint(tmp_path / "again", project=saved.project)


def test_a_broken_project_file_is_not_replaced_by_the_copy(saved, helpers) -> None:
    helpers.edit(saved.source, "import torch\n", "import torch, no_such_module\n")
    with pytest.raises(ComponentError, match="no_such_module"):
        load_checkpoint(saved.directory, project=saved.project, trust_remote_code=True)


# --- what is noticed --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(FILES))
def test_a_flipped_bit_is_named(saved, name: str) -> None:
    path = saved.directory / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=rf"{name}:\d*.* expected "):
        load_checkpoint(saved.directory, project=saved.project)


@pytest.mark.parametrize("name", sorted(FILES))
def test_a_missing_file_is_named(saved, name: str) -> None:
    (saved.directory / name).unlink()
    with pytest.raises(CheckpointError, match=name):
        load_checkpoint(saved.directory, project=saved.project)


def test_a_damaged_manifest_is_named(saved) -> None:
    path = saved.directory / MANIFEST_FILE
    path.write_text(path.read_text()[:-20])
    with pytest.raises(CheckpointError, match=r"menura\.json:\d+: expected JSON"):
        load_checkpoint(saved.directory, project=saved.project)


def test_an_edited_manifest_is_noticed(saved) -> None:
    edit_json(saved.directory / MANIFEST_FILE, seed=8)
    with pytest.raises(CheckpointError, match=r"menura\.json: expected sha256"):
        load_checkpoint(saved.directory, project=saved.project)


@pytest.mark.parametrize("edit", [{"format": 9}, {"policy": {"name": "Look"}}, {"surplus": 1}])
def test_another_manifest_is_refused(saved, helpers, edit: dict[str, Any]) -> None:
    edit_json(saved.directory / MANIFEST_FILE, **edit)
    helpers.rehash(saved.directory)
    with pytest.raises(CheckpointError, match=r"menura\.json"):
        load_checkpoint(saved.directory, project=saved.project)


@pytest.mark.parametrize(
    ("table", "stage"),
    [("state.mean", "processor inputs: state differs .* in 'y'"), ("action.max", "physical actions: 'dy' differs")],
)
def test_edited_statistics_are_caught_even_with_new_hashes(saved, helpers, table: str, stage: str) -> None:
    path = saved.directory / "normalizer.safetensors"
    tables = load_file(path)
    tables[table][0, 1] += 1
    save_file(tables, path)
    helpers.rehash(saved.directory)
    with pytest.raises(CheckpointError, match=stage):
        load_checkpoint(saved.directory, project=saved.project)


@pytest.mark.parametrize(("value", "got"), [(float("nan"), "nan"), (float("inf"), "inf")])
def test_statistics_that_are_not_finite(saved, helpers, value: float, got: str) -> None:
    path = saved.directory / "normalizer.safetensors"
    tables = load_file(path)
    tables["action.min"][0, 1] = value
    save_file(tables, path)
    helpers.rehash(saved.directory)
    with pytest.raises(StatisticsError, match=f"action .*min: expected finite numbers, got {got} in dimension 1"):
        load_checkpoint(saved.directory, project=saved.project)


def test_statistics_that_are_missing_or_too_narrow(saved, helpers) -> None:
    path = saved.directory / "normalizer.safetensors"
    tables = load_file(path)
    save_file({name: table for name, table in tables.items() if name != "state.std"}, path)
    helpers.rehash(saved.directory)
    with pytest.raises(StatisticsError, match=r"state\.std"):
        load_checkpoint(saved.directory, project=saved.project)
    save_file({name: table[:, :2].contiguous() for name, table in tables.items()}, path)
    helpers.rehash(saved.directory)
    with pytest.raises(StatisticsError, match="state statistics: expected width 3"):
        load_checkpoint(saved.directory, project=saved.project)


def test_a_changed_default_in_the_code_is_caught(saved, helpers) -> None:
    helpers.edit(saved.source, "GAIN = 1.0", "GAIN = 1.5")
    message = r"model outputs: expected the same actions .*look\.py is not the code it was saved with \(look\.py\)"
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(saved.directory, project=saved.project)


def test_changed_weights_are_caught_even_with_new_hashes(saved, helpers) -> None:
    path = saved.directory / "model.safetensors"
    weights = load_file(path)
    weights["head.weight"] *= 1.1
    save_file(weights, path, metadata={"format": "pt"})
    helpers.rehash(saved.directory)
    with pytest.raises(CheckpointError, match="model outputs"):
        load_checkpoint(saved.directory, project=saved.project)


def test_another_camera_order_is_caught(saved, helpers) -> None:
    edit_json(saved.directory / "processor_config.json", camera_names=["wrist", "top"])
    helpers.rehash(saved.directory)
    with pytest.raises(CheckpointError, match=r"expected camera_names \['wrist', 'top'\]"):
        load_checkpoint(saved.directory, project=saved.project)
    edit_json(saved.directory / "config.json", camera_names=["wrist", "top"])
    helpers.rehash(saved.directory)
    with pytest.raises(
        CheckpointError,
        match=r"processor inputs: image differs .* expected \['top', 'wrist'\], got \['wrist', 'top'\]",
    ):
        load_checkpoint(saved.directory, project=saved.project)


@pytest.mark.parametrize(
    "edit", [{"resize": "pad"}, {"image_normalize": "zero_one"}, {"state": "minmax"}, {"action": "zscore"}]
)
def test_another_processing_is_caught(saved, helpers, edit: dict[str, Any]) -> None:
    edit_json(saved.directory / "processor_config.json", **edit)
    helpers.rehash(saved.directory)
    with pytest.raises(CheckpointError, match=r"processor inputs|physical actions"):
        load_checkpoint(saved.directory, project=saved.project)


def test_an_unknown_key_of_the_processor_is_refused(saved, helpers) -> None:
    edit_json(saved.directory / "processor_config.json", resise="pad")
    helpers.rehash(saved.directory)
    with pytest.raises(CheckpointError, match="got 'resise'; did you mean resize"):
        load_checkpoint(saved.directory, project=saved.project)


@pytest.mark.parametrize("part", ["state", "action"])
def test_meanings_that_contradict_are_named(saved, helpers, part: str) -> None:
    features = json.loads((saved.directory / MANIFEST_FILE).read_text())["features"]
    features[part]["names"].append("more")
    edit_json(saved.directory / MANIFEST_FILE, features=features)
    helpers.rehash(saved.directory)
    with pytest.raises(CheckpointError, match=rf"got another in processor_config.json than .*: {part} names: .*'more'"):
        load_checkpoint(saved.directory, project=saved.project)


def test_code_that_needs_other_weights_is_named(saved, helpers) -> None:
    helpers.edit(saved.source, "self.post_init()", "self.more = nn.Linear(2, 2)\n        self.post_init()")
    with pytest.raises(
        CheckpointError, match=r"expected the weights of Look, got missing keys: more\.bias, more\.weight"
    ):
        load_checkpoint(saved.directory, project=saved.project)


# --- complete or absent -----------------------------------------------------------------------------------------------


def test_a_run_that_is_not_finished_names_its_newest_checkpoint(saved, tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    saved.directory.rename(run / "checkpoint-20")
    with pytest.raises(CheckpointError, match=r"a run that is not finished\. Use .*checkpoint-20"):
        load_checkpoint(run, project=saved.project)
    with pytest.raises(CheckpointError, match=r"no such directory\.$"):
        load_checkpoint(tmp_path / "nowhere", project=saved.project)


def test_what_may_be_a_repository_of_the_hub_is_told_how_to_get_it(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CheckpointError, match=r"no such directory\. .* `hf download someone/act --local-dir act`"):
        load_checkpoint("someone/act")
    (tmp_path / "runs").mkdir()
    with pytest.raises(CheckpointError, match=r"no such directory\.$"):
        load_checkpoint("runs/act")


def test_replaces_a_checkpoint_but_nothing_else(saved, helpers) -> None:
    helpers.save_again(saved, saved.directory, seed=8)
    assert load_checkpoint(saved.directory, project=saved.project).manifest.seed == 8
    (saved.directory / "notes.txt").write_text("mine")
    with pytest.raises(CheckpointError, match=r"also holds 'notes\.txt'"):
        helpers.save_again(saved, saved.directory, seed=9)
    assert (saved.directory / "notes.txt").read_text() == "mine"


def test_an_error_while_writing_leaves_the_old_one(saved, helpers) -> None:
    with pytest.raises(Exception, match="expected camera"):
        helpers.save_again(saved, saved.directory, golden={"state": np.zeros((1, 3)), "images": {}, "task": ["x"]})
    load_checkpoint(saved.directory, project=saved.project)
    assert [path.name for path in saved.directory.parent.iterdir() if path.name.startswith(".")] == []


@pytest.mark.slow
def test_sigkill_at_any_moment_leaves_the_old_or_the_new(saved) -> None:
    code = f"""
import sys
from pathlib import Path
from menura.checkpoint import load_checkpoint, save_checkpoint
directory = Path({str(saved.directory)!r})
loaded = load_checkpoint(directory, project=Path({str(saved.project)!r}))
from menura.checkpoint.golden import Golden
golden = Golden(directory / "golden.safetensors").observation()
print("ready", flush=True)
seed = 1000
while True:
    seed += 1
    save_checkpoint(directory, policy=loaded.policy, processor=loaded.processor, features=loaded.features, task=None,
                    datasets={{}}, seed=seed, golden=golden)
"""
    for attempt in range(4):
        process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        time.sleep(0.05 + 0.037 * attempt)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        load_checkpoint(saved.directory, project=saved.project)


# --- policies that sample, several datasets, an image encoder ---------------------------------------------------------

SAMPLING = """
    def select_action(self, obs_dict, generator=None):
        answer = self(obs_dict["image"], obs_dict["state"])
        noise = [torch.randn(answer.shape[1:], generator=g) for g in generator]
        return answer + torch.stack(noise)
"""
DRAWING = """
    def select_action(self, obs_dict):
        return self(obs_dict["image"], obs_dict["state"]) + torch.randn(1)
"""


@pytest.mark.parametrize("method", [SAMPLING, DRAWING])
def test_sampling_policies_are_replayed_with_their_seeds(tmp_path: Path, helpers, method: str) -> None:
    source = helpers.POLICY[: helpers.POLICY.index("    def select_action")] + method.lstrip("\n")
    project = tmp_path / "project"
    helpers.write_policy(project, source)
    helpers.save(project, tmp_path / "out")
    assert Golden(tmp_path / "out" / "golden.safetensors").samples
    for _ in range(2):
        load_checkpoint(tmp_path / "out", project=project)


def test_a_policy_that_does_not_sample_is_known(saved) -> None:
    assert not Golden(saved.directory / "golden.safetensors").samples


def test_several_datasets(saved, tmp_path: Path, helpers) -> None:
    processor = helpers.processor(saved.policy.config, datasets=("one", "two"))
    helpers.save_again(saved, tmp_path / "two", processor=processor)
    assert load_checkpoint(tmp_path / "two", project=saved.project).processor.dataset_names == ("one", "two")


ENCODER = """
import torch
from torch import nn


class Mean(nn.Module):
    def __init__(self, width=4):
        super().__init__()
        self.feature_dim = width
        self.layer = nn.Linear(3, width)

    def forward(self, pixels):
        return self.layer(pixels.mean((-1, -2)))
"""
FEATURE_POLICY = """
import torch
from torch import nn
from transformers import PretrainedConfig, PreTrainedModel


class SeenConfig(PretrainedConfig):
    def __init__(self, image_feature_dim=8, state_dim=3, action_dim=2, **kwargs):
        super().__init__(**kwargs)
        self.image_feature_dim = image_feature_dim
        self.state_dim = state_dim
        self.action_dim = action_dim


class Seen(PreTrainedModel):
    config_class = SeenConfig

    def __init__(self, config):
        super().__init__(config)
        self.head = nn.Linear(config.image_feature_dim + config.state_dim, config.action_dim)
        self.post_init()

    def forward(self, image_features, state, actions=None, is_pad=None):
        predicted = self.head(torch.cat([image_features, state], -1))
        return predicted if actions is None else {"loss": (predicted - actions).abs().mean()}

    def select_action(self, obs_dict):
        return self(obs_dict["image"], obs_dict["state"])
"""


def test_an_image_encoder_travels_with_its_weights_and_code(tmp_path: Path, helpers) -> None:
    project = tmp_path / "project"
    for folder, name, text in (("policy", "seen", FEATURE_POLICY), ("image_encoder", "mean", ENCODER)):
        (project / folder).mkdir(parents=True)
        (project / folder / f"{name}.py").write_text(text)
    encoder = components.load("image_encoder", "Mean", project)(width=4)
    policy = build_policy(components.load("policy", "Seen", project), {}, helpers.FEATURES, image_encoder_dim=4)
    spec = {"class": "Mean", "args": {"width": 4}}
    processor = helpers.processor(
        policy.config, uses=("image_features", "state"), image_encoder=encoder, image_encoder_spec=spec
    )
    helpers.save(project, tmp_path / "out", policy=policy, processor=processor)
    assert {"mean.py", "seen.py", "image_encoder.safetensors"} <= {path.name for path in (tmp_path / "out").iterdir()}
    for where, trust in ((project, False), (tmp_path, True)):
        loaded = load_checkpoint(tmp_path / "out", project=where, trust_remote_code=trust)
        assert loaded.processor.image_encoder is not None
        assert torch.equal(loaded.processor.image_encoder.layer.weight, encoder.layer.weight)


def test_save_checkpoint_is_public() -> None:
    assert save_checkpoint.__module__ == "menura.checkpoint.save"
