"""What is found, or forgiven, before the first step of a training."""

from __future__ import annotations

import importlib.util
import json
import shutil
import sys
from pathlib import Path

import pytest
from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK

from menura.cli.main import main
from menura.config import load_task
from menura.errors import ConfigError, ContractError, DataError, MenuraError
from menura.training.arguments import training_arguments
from menura.training.reporting import _MODULES, require_integrations
from menura.training.run import train

PROJECT = Path(__file__).with_name("project")


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(PROJECT, tmp_path / "project", ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setenv("MENURA_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path / "project")
    return tmp_path / "project"


def test_a_select_action_that_fails_is_found_before_the_first_step(project: Path) -> None:
    file = project / "policy" / "reach_policy.py"
    sound = file.read_text()
    broken = sound.replace('return self.forward(obs_dict["state"])', 'return obs_dict["state"][:, :1]')
    assert broken != sound
    file.write_text(broken)
    with pytest.raises(MenuraError, match=r"select_action: expected shape"):
        train("reach", output_dir="out")
    assert not list(Path("out").glob("tensorboard/*"))
    assert not list(Path("out").glob("checkpoint-*"))


@pytest.mark.parametrize(
    ("sound", "broken", "message"),
    [
        (
            "self.post_init()",
            "self.post_init()\n        raise ContractError('not today')",
            "not today",
        ),
        (
            "def forward(self, state,",
            "def forward(self, depth, state,",
            "ReachPolicy.forward: the required parameter 'depth' is provided by nobody; expected one of "
            "task, actions, is_pad, timestep, dataset_id, state. Name one of these, or give the parameter a default.",
        ),
        (
            "def forward(self, state,",
            "def forward(self, observation_is_pad, state,",
            "ReachPolicy.forward: the required parameter 'observation_is_pad' is provided by nobody; expected one of "
            "task, actions, is_pad, timestep, dataset_id, state. Use a dataset that has it, or give the parameter a "
            "default.",
        ),
    ],
)
def test_what_is_wrong_with_a_policy_is_found_before_stores_are_built(
    project: Path, tmp_path: Path, sound: str, broken: str, message: str
) -> None:
    file = project / "policy" / "reach_policy.py"
    text = file.read_text()
    assert sound in text
    file.write_text("from menura.errors import ContractError\n" + text.replace(sound, broken))
    with pytest.raises(MenuraError) as caught:
        train("reach", output_dir="out")
    assert str(caught.value) == message
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize(
    ("dataset", "message"),
    [
        ("{path: half}", r"^Dataset .*half: .* \(of 'can'\) was interrupted.*\(configs/task/other.yaml:2\)$"),
        ("{path: made}", r"^Dataset .*made: expected files of one of .*\(configs/task/other.yaml:2\)$"),
        (
            "{class: ReachData, filter: {frames: state.yy > 0}}",
            r"^filter\.frames of 'ReachData': .*no such name: 'state.yy'.*\(configs/task/other.yaml:2\)$",
        ),
    ],
)
def test_what_is_wrong_with_the_data_is_told_with_its_line_before_torch_is_imported(
    project: Path, monkeypatch: pytest.MonkeyPatch, dataset: str, message: str
) -> None:
    Path("made").mkdir()
    Path("half").mkdir()
    Path("half/.menura-unfinished.json").write_text('{"source": "can"}')
    Path("configs/task/other.yaml").write_text(f"datasets:\n  - {dataset}\npolicy: {{class: ReachPolicy}}\n")
    monkeypatch.setitem(sys.modules, "menura.training.assembly", None)  # whoever imports it fails
    with pytest.raises(DataError, match=message):
        train("other")


@pytest.mark.parametrize(
    "line",
    [
        "self.post_init()",
        "predicted = self.net(state)",
        "error = (predicted - actions)",
        'return self.forward(obs_dict["state"])',
    ],
    ids=["__init__", "forward", "forward in training", "select_action"],
)
def test_an_error_of_the_policy_is_one_message_with_its_line(
    project: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, line: str
) -> None:
    file = project / "policy" / "reach_policy.py"
    lines = file.read_text().splitlines()
    (number,) = [number for number, text in enumerate(lines) if line in text]
    indent = len(lines[number]) - len(lines[number].lstrip())
    lines.insert(number, " " * indent + "raise ValueError('so not')")
    file.write_text("\n".join(lines))
    with pytest.raises(SystemExit) as ended:
        main(["train", "reach", "--output_dir", "out"])
    assert ended.value.code == 2
    assert capsys.readouterr().err.strip() == f"policy/reach_policy.py:{number + 1}: ValueError: so not"
    monkeypatch.setenv("MENURA_DEBUG", "1")
    with pytest.raises(ValueError, match="so not"):
        train("reach", output_dir="out")


def test_an_error_below_the_policy_has_the_policys_line(project: Path) -> None:
    file = project / "policy" / "reach_policy.py"
    file.write_text(file.read_text().replace("self.net(state)", "self.net(state[:, 1:])"))
    with pytest.raises(ContractError, match=r"^policy/reach_policy\.py:26: RuntimeError: mat1 and mat2 shapes"):
        train("reach", output_dir="out")


def test_a_run_that_ended_before_its_first_checkpoint_is_begun_anew(project: Path) -> None:
    Path("out").mkdir()
    Path("out/run.yaml").write_text(json.dumps({"name": "reach", "training": {"max_steps": 7}}))
    assert train("reach", output_dir="out", overrides=["--training.max_steps=2"]).metrics["steps"] == 2


@pytest.fixture
def nothing_to_report_to(monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.util.find_spec
    missing = ("wandb", "tensorboard", "tensorboardX", "mlflow", "azureml")
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name in missing else found(name, *rest)
    )


@pytest.mark.parametrize(
    ("asked", "messages"),
    [
        (
            "wandb",
            [
                "expected wandb to be installed, got no such package. "
                "Run `pip install 'menura[wandb]'`, or report to none"
            ],
        ),
        (
            "[tensorboard, mlflow, none]",
            [
                "expected tensorboard to be installed, got no such package. "
                "Run `pip install 'menura[tensorboard]'`, or report to none",
                "expected mlflow to be installed, got no such package. Run `pip install mlflow`, or report to none",
            ],
        ),
        (
            "wandbb",
            [
                "expected some of all, azure_ml, clearml, codecarbon, comet_ml, dagshub, dvclive, flyte, kubeflow, "
                "mlflow, neptune, none, swanlab, tensorboard, trackio, wandb, got 'wandbb'; did you mean wandb?"
            ],
        ),
    ],
)
@pytest.mark.usefixtures("nothing_to_report_to")
def test_what_a_training_cannot_be_reported_to_is_refused(project: Path, asked: str, messages: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        train("reach", output_dir="out", overrides=[f"--training.report_to={asked}"])
    assert list(caught.value.problems) == [f"training.report_to: {message} (command line)" for message in messages]
    assert not Path("out").exists()


@pytest.mark.usefixtures("nothing_to_report_to")
def test_the_default_is_left_out_where_it_is_not_installed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    packaged = load_task("aloha_transfer")
    require_integrations(packaged)
    assert training_arguments(packaged, tmp_path / "run").report_to == []
    said = "Nothing is logged to TensorBoard, which is not installed. `pip install 'menura[tensorboard]'`\n"
    assert capsys.readouterr().out == said


def test_every_integration_of_transformers_is_known() -> None:
    assert _MODULES.keys() == INTEGRATION_TO_CALLBACK.keys()
