"""`menura.train`, whole, on a user's project: a point that walks to a goal."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
import yaml
from filelock import FileLock
from transformers import ResNetConfig, ResNetModel

from menura.checkpoint import load_checkpoint
from menura.checkpoint.manifest import Manifest, check_hashes
from menura.cli.main import main
from menura.errors import CheckpointError, ConfigError, ContractError, FeatureMismatch
from menura.evaluation.evaluate import evaluate
from menura.training.interrupt import TrainingInterrupted
from menura.training.run import TrainResult, train

PROJECT = Path(__file__).with_name("project")
DRIVEN = """
import numpy as np
from menura.data import Episode
from menura.features import Features, VectorFeature


class Driven:
    features = Features(
        state=VectorFeature(("position", "goal"), object_names=("goal",)), action=VectorFeature(("step",)),
        fps=20, language=True, control_space="ee", control_type="delta",
    )

    def __len__(self):
        return 3

    def episode(self, index):
        rng = np.random.default_rng(index)
        return Episode(rng.normal(size=(9, 2)), rng.normal(size=(9, 1)), fps=20, task="drive to the goal")
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(PROJECT, tmp_path / "project", ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setenv("MENURA_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path / "project")
    return tmp_path / "project"


def reach(out: str = "out", **options: Any) -> TrainResult:
    """Train the toy task; options are overrides, but for `resume`, `blind`."""
    given = {key: options.pop(key) for key in ("resume", "blind") if key in options}
    overrides = [f"--{key.replace('__', '.')}={json.dumps(value)}" for key, value in options.items()]
    return train("reach", output_dir=out, overrides=overrides, **given)


def weights(directory: Path) -> dict[str, torch.Tensor]:
    return safetensors.torch.load_file(directory / "model.safetensors")


def assert_same_weights(a: Path, b: Path) -> None:
    mine, theirs = weights(a), weights(b)
    assert mine.keys() == theirs.keys()
    for name in mine:
        assert torch.equal(mine[name], theirs[name]), name


def test_a_run_is_a_checkpoint_and_so_are_its_checkpoints(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = train("reach", output_dir="out")
    assert result.directory == Path("out")
    assert result.metrics["steps"] == 30
    assert result.metrics["loss"] > 0
    assert result.metrics["largest"] > result.metrics["loss"]
    for directory in (Path("out"), Path("out/checkpoint-24"), Path("out/checkpoint-30")):
        checkpoint = load_checkpoint(directory, project=project)  # replays golden
        assert checkpoint.manifest.seed == 0
    assert_same_weights(Path("out"), Path("out/checkpoint-30"))
    assert not list(Path("out").glob(".tmp-*"))
    shown = capsys.readouterr().out
    for expected in ("reach", "12 episodes, 240 frames, 10 Hz", "424 parameters", "16 = 16 samples x 1 device", "30 ("):
        assert expected in shown
    assert "{'" not in shown, "no dictionary of Trainer's on the screen"


def test_default_directory(project: Path) -> None:
    assert train("reach", overrides=["--training.max_steps=1"]).directory == Path("runs/reach")
    assert train("reach", overrides=["--training.max_steps=1"], blind=True).directory == Path("runs/reach-blind")
    assert load_checkpoint("runs/reach-blind", project=project).processor.blind
    again = train("runs/reach-blind/run.yaml", output_dir="again")
    assert load_checkpoint(again.directory, project=project).processor.blind


def test_a_run_repeats_from_its_run_yaml(project: Path) -> None:
    reach("first")
    train("first/run.yaml", output_dir="second")
    assert_same_weights(Path("first"), Path("second"))


def test_a_finished_run_is_left_as_it_is(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = reach(training__max_steps=3)
    before = {path: path.stat().st_mtime_ns for path in Path("out").rglob("*") if path.name != ".lock"}
    again = reach(training__max_steps=3, evaluation__episodes=7)
    assert again.metrics == first.metrics
    assert before == {path: path.stat().st_mtime_ns for path in Path("out").rglob("*") if path.name != ".lock"}
    assert "out is finished already" in capsys.readouterr().out


def test_a_run_of_another_configuration_is_refused(project: Path) -> None:
    reach(training__max_steps=2)
    with pytest.raises(ConfigError) as error:
        reach(training__max_steps=3, policy__args__dropout=0.5, blind=True)
    assert str(error.value) == (
        "out: expected a run of this configuration, got one that differs in\n"
        "  policy.args.dropout: not given there, 0.5 here\n"
        "  processor.blind: False there, True here\n"
        "  training.max_steps: 2 there, 3 here\n"
        "Choose another output_dir, or resume=False (--no_resume), which sets the older run aside."
    )


def test_an_older_run_is_set_aside_not_destroyed(project: Path) -> None:
    reach(training__max_steps=2)
    old = weights(Path("out"))
    reach(training__max_steps=3, resume=False)
    assert weights(Path("out.1")).keys() == old.keys()
    assert yaml.safe_load(Path("out/run.yaml").read_text())["training"]["max_steps"] == 3


def test_a_directory_that_holds_something_else_is_refused(project: Path) -> None:
    Path("out").mkdir()
    Path("out/thesis.tex").touch()
    with pytest.raises(CheckpointError, match=re.escape("got one with 'thesis.tex'. Choose another output_dir.")):
        reach()
    assert [path.name for path in Path("out").iterdir() if path.suffix] == ["thesis.tex"]


def test_two_trainings_do_not_share_a_directory(project: Path) -> None:
    Path("out").mkdir()
    with FileLock("out/.lock"), pytest.raises(CheckpointError, match="expected to be the only training here"):
        reach()


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_asked_to_stop_it_writes_a_checkpoint_and_goes_on_later(
    project: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    asking = {"trainer": {"class": "AskingTrainer", "args": {"at_step": 17, "signal_name": name}}}
    with pytest.raises(TrainingInterrupted, match=re.escape("Stopped after step 17; out/checkpoint-17 is complete.")):
        reach(**asking)
    assert "Run the same again to go on." in capsys.readouterr().out
    reach(**asking)
    assert "goes on from  checkpoint-17" in capsys.readouterr().out
    reach("whole")
    assert_same_weights(Path("out"), Path("whole"))


def test_a_stopped_command_says_so_in_one_line(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asking = json.dumps({"class": "AskingTrainer", "args": {"at_step": 2}})
    with pytest.raises(SystemExit) as ended:
        main(["train", "reach", "--output_dir", "out", f"--trainer={asking}"])
    said = capsys.readouterr()
    assert (ended.value.code, said.err.strip()) == (130, "")
    assert said.out.splitlines()[-1] == (
        "Stopped after step 2; out/checkpoint-2 is complete. Run the same again to go on."
    )


def test_leftovers_of_a_killed_training_are_removed(project: Path) -> None:
    left = Path("out/.tmp-checkpoint-12")
    left.mkdir(parents=True)
    (left / "model.safetensors").write_bytes(b"half")
    reach(training__max_steps=2)
    assert not left.exists()


def test_rollouts_do_not_change_the_weights_and_choose_the_best(project: Path) -> None:
    reach("without", training__max_steps=24)
    rollouts = {"every": 8, "episodes": 6, "select_best": True}
    result = reach("with", training__max_steps=24, training__rollouts=rollouts)
    assert_same_weights(Path("without/checkpoint-24"), Path("with/checkpoint-24"))
    state = json.loads(Path("with/trainer_state.json").read_text())
    history = [
        (entry["step"], entry["rollout_success_rate"])
        for entry in state["log_history"]
        if "rollout_success_rate" in entry
    ]
    assert [step for step, _ in history] == [8, 16, 24]
    best = max(history, key=lambda entry: (entry[1], entry[0]))[0]
    assert state["best_global_step"] == best
    assert_same_weights(Path("with"), Path(f"with/checkpoint-{best}"))
    assert {"rollout_success_rate", "rollout_success_low", "rollout_success_high"} <= result.metrics.keys()
    rate = state["best_metric"]
    assert f"{rate:.1%} of 6 validation episodes succeeded after step {best}" in Path("with/README.md").read_text()
    assert "## Results" not in Path("without/README.md").read_text()
    results = json.loads(Path("with/rollouts/step-8/results.json").read_text())
    assert [episode["seed"] for episode in results["episodes"]] == [500_100_000 + i for i in range(6)]


def test_rollouts_history_survives_an_interruption(project: Path) -> None:
    options = {"training__rollouts": {"every": 8, "episodes": 2}, "training__ema": 0.9}
    asking = {"trainer": {"class": "AskingTrainer", "args": {"at_step": 13}}}
    with pytest.raises(TrainingInterrupted):
        reach(**options, **asking)
    reach(**options, **asking)
    reach("whole", **options)
    assert_same_weights(Path("out"), Path("whole"))
    logs = [json.loads((Path(run) / "trainer_state.json").read_text())["log_history"] for run in ("out", "whole")]
    kept = [
        [
            (entry["step"], entry.get("loss"), entry.get("rollout_success_rate"))
            for entry in log
            if "loss" in entry or "rollout_success_rate" in entry
        ]
        for log in logs
    ]
    assert kept[0] == kept[1]


def test_held_out_episodes_give_an_evaluation_loss(project: Path) -> None:
    result = reach(training__eval_strategy="steps", training__eval_steps=10)
    assert result.metrics["eval_loss"] > 0
    assert result.metrics["eval_largest"] > result.metrics["eval_loss"]
    assert f"loss on held-out episodes was {result.metrics['eval_loss']:.4g} after" in Path("out/README.md").read_text()


def test_the_best_checkpoint_by_evaluation_loss_is_kept(project: Path) -> None:
    reach(
        training__eval_strategy="steps",
        training__eval_steps=6,
        training__save_steps=6,
        training__metric_for_best_model="loss",
        training__greater_is_better=True,  # so that it is not the last
        training__load_best_model_at_end=True,
        training__save_total_limit=1,
    )
    state = json.loads(Path("out/trainer_state.json").read_text())
    assert state["best_global_step"] == 6
    assert_same_weights(Path("out"), Path(f"out/checkpoint-{state['best_global_step']}"))


def test_several_datasets_are_mixed(project: Path) -> None:
    datasets = [{"class": "ReachData", "name": "a"}, {"class": "ReachData", "name": "b", "args": {"episodes": 5}}]
    reach(training__max_steps=3, datasets=datasets)
    assert load_checkpoint("out", project=project).processor.dataset_names == ("a", "b")


def test_whose_statistics_hold_in_the_environment_is_said(project: Path) -> None:
    """For rollouts before anything is trained, for an evaluation before the weights are read."""
    datasets = [{"class": "ReachData", "name": "near"}, {"class": "ReachData", "name": "far", "args": {"episodes": 5}}]
    options = {"training__max_steps": 2, "datasets": datasets, "training__rollouts": {"every": 2, "episodes": 1}}
    with pytest.raises(ConfigError, match=r"evaluation\.dataset: expected one of \['near', 'far'\].*got none"):
        reach(**options)
    with pytest.raises(ConfigError, match=r"got fur; did you mean far\?"):
        reach(evaluation__dataset="fur", **options)
    shutil.rmtree("out")
    reach(evaluation__dataset="far", **options)
    fast: dict[str, Any] = {"episodes": 1, "videos": 0, "progress": False}
    assert evaluate("out", **fast).asked == 1
    assert evaluate("out", dataset="near", **fast).asked == 1
    with pytest.raises(FeatureMismatch, match=r"dataset: expected one of \['near', 'far'\], got 'nea'"):
        evaluate("out", dataset="nea", **fast)
    reach("unsaid", training__max_steps=2, datasets=datasets)
    Path("unsaid/model.safetensors").unlink()
    with pytest.raises(FeatureMismatch, match="whose statistics turn actions into physical units, got none"):
        evaluate("unsaid", **fast)


def test_a_run_is_evaluated_where_it_was_moved_to(project: Path, tmp_path: Path) -> None:
    """Its environment stands in run.yaml; the project it was trained in is not there; what evaluating writes leaves
    the checkpoint as it is."""
    toy = Path(__file__).parents[1] / "evaluation" / "toy.py"
    Path("configs/env").mkdir()
    Path("configs/env/toy.yaml").write_text(
        yaml.safe_dump({"class": f"{toy}:ToyEnv", "args": {"max_episode_steps": 7}})
    )
    Path("dataset/driven.py").write_text(DRIVEN)
    task = {"datasets": [{"class": "Driven"}], "policy": {"class": "MLPPolicy", "args": {"hidden_size": 8}}}
    reach(training__max_steps=2, env="toy", **task)
    (tmp_path / "elsewhere").mkdir()
    moved = Path("out").rename(tmp_path / "elsewhere" / "moved")
    os.chdir(moved.parent)
    shutil.rmtree(project)
    fast: dict[str, Any] = {"episodes": 2, "progress": False}
    results = evaluate("moved", **fast)
    assert results.protocol["environment"]["max_episode_steps"] == 7
    assert (moved / "evaluation" / "results.json").is_file()
    check_hashes(moved, Manifest.read(moved))
    assert evaluate(moved, **fast).episodes == results.episodes


def test_a_trainer_must_be_one_of_ours(project: Path) -> None:
    Path("trainer/other.py").write_text("from transformers import Trainer\n\n\nclass Other(Trainer):\n    pass\n")
    with pytest.raises(ContractError, match=r"trainer Other: expected a subclass of menura\.training"):
        reach(trainer={"class": "Other"})


def test_no_torch_is_imported_before_a_wrong_task_is_refused() -> None:
    code = (
        "import sys; from menura.training.run import train\n"
        "try: train('no_such_task')\n"
        "except Exception as e: print(type(e).__name__, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["ConfigError", "False"]


@pytest.mark.parametrize("blind", [False, True])
def test_policies_that_see(project: Path, blind: bool) -> None:
    result = train("seen", output_dir="out", blind=blind)
    assert result.metrics["steps"] == 3
    checkpoint = load_checkpoint("out", project=project)
    assert checkpoint.processor.camera_names == ("left", "right")
    assert checkpoint.processor.required_cameras == (() if blind else ("left", "right"))


def test_an_encoder_of_a_directory_travels_whole(project: Path) -> None:
    settings = ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic")
    ResNetModel(settings).save_pretrained("resnet")
    encoder = "--image_encoder={class: VisionEncoder, args: {model: resnet, image_size: [16, 16]}}"
    train("seen", output_dir="out", overrides=["--policy.class=FeaturePolicy", encoder])
    before = load_checkpoint("out", project=project).processor.image_encoder
    shutil.rmtree("resnet")
    after = load_checkpoint("out", project=project).processor.image_encoder
    assert after is not None
    image = torch.rand(2, 3, 16, 20)
    assert torch.equal(after(image), before(image))


def test_a_run_can_be_read_by_whom_the_umask_allows(project: Path) -> None:
    reach(training__max_steps=2)
    Path("plain").touch()
    modes = {path.name: path.stat().st_mode for path in Path("out").rglob("*") if path.suffix == ".safetensors"}
    assert {"model.safetensors", "normalizer.safetensors", "golden.safetensors"} <= modes.keys()
    assert set(modes.values()) == {Path("plain").stat().st_mode}


def test_policies_with_an_image_encoder(project: Path) -> None:
    overrides = ["--policy.class=FeaturePolicy", "--image_encoder={class: MeanColour}"]
    train("seen", output_dir="out", overrides=overrides)
    assert load_checkpoint("out", project=project).policy.config.image_feature_dim == 6
