"""A training begins with the weights of another checkpoint, and says what became of each."""

from __future__ import annotations

import json
import runpy
import shutil
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from transformers import AutoModel

from menura import conversion
from menura.checkpoint import load_checkpoint
from menura.checkpoint.start import Start
from menura.errors import CheckpointError, ConfigError
from menura.features import Features, VectorFeature
from menura.training.init_from import Source, open_source, take_over
from menura.training.run import train


def trained(out: str, task: str = "reach", **options: Any) -> dict[str, torch.Tensor]:
    """The weights of a run that stands still, unless it is told to learn."""
    given = {"training__max_steps": 1, "training__learning_rate": 0.0, **options}
    words = [f"--{key.replace('__', '.')}={json.dumps(value)}" for key, value in given.items()]
    train(task, output_dir=out, overrides=words)
    file = Path(out) / "model.safetensors"
    return safetensors.torch.load_file(file) if file.is_file() else {}


@pytest.fixture
def source(project: Path) -> dict[str, torch.Tensor]:
    return trained("source", training__seed=7)


def test_all_of_it(source: dict[str, torch.Tensor], capsys: pytest.CaptureFixture[str]) -> None:
    own = trained("own")
    capsys.readouterr()
    begun = trained("begun", training__init_from="source")
    assert all(torch.equal(begun[name], value) for name, value in source.items())
    assert not torch.equal(own["net.0.weight"], begun["net.0.weight"])
    shown = capsys.readouterr().out
    assert "(a checkpoint of Menura):" in shown
    assert "taken      4 of 4 weights, 424 numbers" in shown
    assert "Statistics and everything else that normalizes are those of the new data." in shown
    start = Start.read(Path("begun"))
    assert start is not None
    assert start.whole
    assert start.source == str(Path("source").resolve())
    assert "4 weights taken" in Path("begun/README.md").read_text()
    assert Start.read(Path("begun/checkpoint-1")) == start


def test_what_does_not_fit_is_told(source: dict[str, torch.Tensor], capsys: pytest.CaptureFixture[str]) -> None:
    begun = trained("begun", training__init_from="source", policy__args={"chunk_size": 6})
    assert torch.equal(begun["net.0.weight"], source["net.0.weight"])
    shown = capsys.readouterr().out
    assert "taken      2 of 4 weights, 160 numbers" in shown
    assert "not taken  net.3.weight: (8, 32) there, (12, 32) here" in shown
    start = Start.read(Path("begun"))
    assert start is not None
    assert set(start.mismatched) == {"net.3.weight", "net.3.bias"}
    assert not start.whole


class Policy(torch.nn.Module):
    """Only names and shapes count."""

    class config:
        chunk_size = 5

    def __init__(self) -> None:
        super().__init__()
        self.action_head = torch.nn.Linear(4, 3)
        self.state_projection = torch.nn.Linear(2, 4)
        self.queries = torch.nn.Embedding(5, 4)
        self.both = torch.nn.Linear(3, 4, bias=False)
        self.fresh = torch.nn.Linear(1, 1)


def test_rows_by_name_and_steps_from_the_first() -> None:
    torch.manual_seed(0)
    policy: Any = Policy()
    own = {name: value.clone() for name, value in policy.state_dict().items()}
    weights = {
        "action_head.weight": torch.randn(2, 4), "action_head.bias": torch.randn(2),
        "state_projection.weight": torch.randn(4, 3), "state_projection.bias": torch.randn(4),
        "queries.weight": torch.randn(3, 4), "both.weight": torch.randn(2, 4), "gone.weight": torch.randn(1),
    }  # fmt: skip
    theirs = Features(VectorFeature(("x", "y", "grip")), VectorFeature(("y", "x")), fps=10)
    ours = Features(VectorFeature(("grip", "x")), VectorFeature(("x", "z", "y")), fps=10)
    start = take_over(policy, Source(Path("/there"), "of Menura", weights, {}, theirs, chunk_size=3), "there", ours)
    now = policy.state_dict()
    assert torch.equal(now["action_head.weight"][[0, 2]], weights["action_head.weight"][[1, 0]])
    assert torch.equal(now["action_head.weight"][1], own["action_head.weight"][1])
    assert torch.equal(now["state_projection.weight"], weights["state_projection.weight"][:, [2, 0]])
    assert torch.equal(now["queries.weight"][:3], weights["queries.weight"])
    assert torch.equal(now["queries.weight"][3:], own["queries.weight"][3:])
    assert start.matched == ("state_projection.bias",)
    assert start.resized["action_head.bias"] == "action 2 of 2 (x, y), 1 begin anew"
    assert start.resized["state_projection.weight"] == "state 2 of 3 (grip, x), 0 begin anew"
    assert start.resized["queries.weight"] == "steps 3 of 3, 2 begin anew"
    assert start.mismatched == {"both.weight": "(2, 4) there, (4, 3) here"}
    assert start.new == ("fresh.weight", "fresh.bias")
    assert start.unused == ("gone.weight",)


def test_what_could_mean_two_things_is_not_taken() -> None:
    policy: Any = torch.nn.ModuleDict({"x": torch.nn.Linear(1, 3, bias=False)})
    policy.config = Policy.config
    theirs = Features(VectorFeature(("a", "b")), VectorFeature(("b", "a")), fps=10)
    ours = Features(VectorFeature(("a", "b", "c")), VectorFeature(("a", "b", "c")), fps=10)
    source = Source(Path("/there"), "of Menura", {"x.weight": torch.zeros(2, 1)}, {}, theirs)
    start = take_over(policy, source, "there", ours)
    assert start.mismatched == {"x.weight": "(2, 1) there, (3, 1) here, where action and state could be meant"}


def test_names_that_differ_are_told() -> None:
    policy: Any = torch.nn.ModuleDict({"x": torch.nn.Linear(1, 2, bias=False)})
    policy.config = Policy.config
    theirs = Features(VectorFeature(("a", "b")), VectorFeature(("u", "v")), fps=10)
    ours = Features(VectorFeature(("a", "b")), VectorFeature(("v", "u")), fps=10)
    source = Source(Path("/there"), "of Menura", {"x.weight": torch.zeros(2, 1)}, {}, theirs)
    start = take_over(policy, source, "there", ours)
    assert start.notes == ("The names of its action differ, and were taken by position: u as v, v as u.",)


def test_a_directory_of_transformers(source: dict[str, torch.Tensor]) -> None:
    AutoModel.from_pretrained("source", trust_remote_code=True).save_pretrained("plain")
    begun = trained("begun", training__init_from={"path": "plain", "require": ["net.*"]})
    assert all(torch.equal(begun[name], value) for name, value in source.items())
    start = Start.read(Path("begun"))
    assert start is not None
    assert start.kind == "of transformers"
    assert "on trust" in start.notes[0]


def test_adapters_on_it_do_not_copy_it(source: dict[str, torch.Tensor], project: Path) -> None:
    lora = {"type": "lora", "r": 2}
    learning = {"training__learning_rate": 0.1, "training__max_steps": 4, "training__save_steps": 2}
    trained("tuned", training__init_from="source", training__peft=lora, **learning)
    assert not Path("tuned/base").exists()
    policy = load_checkpoint("tuned", project=project).policy
    assert torch.equal(policy.state_dict()["net.0.base_layer.weight"], source["net.0.weight"])
    # Adapters of adapters begin with the merged weights, and keep these, which lie nowhere else.
    trained("again", training__init_from="tuned", training__peft=lora)
    assert Path("again/base/model.safetensors").is_file()
    load_checkpoint("again", project=project)
    Path("source").rename("moved")
    with pytest.raises(CheckpointError, match=r"expected the weights its adapters were trained on in .*no such file"):
        load_checkpoint("tuned", project=project)
    trained("source", training__seed=8)
    with pytest.raises(CheckpointError, match="expected the weights its adapters were trained on"):
        load_checkpoint("tuned", project=project)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("nowhere", "expected a checkpoint, got no such directory: nowhere"),
        ({"path": "source", "require": ["net.*", "head.*"]}, r"expected .*source to hold all of head\.\*"),
        ({"path": "source", "requires": []}, "requires: no such key; did you mean require?"),
        (3, "expected the path of a checkpoint, or {path, require}, got 3"),
    ],
)
def test_what_is_refused(source: dict[str, torch.Tensor], given: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message.replace("?", r"\?").replace("{", r"\{")):
        trained("begun", training__init_from=given)


def test_another_architecture(source: dict[str, torch.Tensor]) -> None:
    with pytest.raises(
        ConfigError, match=r"expected weights of MLPPolicy in .*source, got none that fits: there net \(4\)"
    ):
        trained("begun", training__init_from="source", policy={"class": "MLPPolicy", "args": {"hidden_size": 8}})


def test_an_unfinished_run_says_where_its_checkpoint_lies(source: dict[str, torch.Tensor]) -> None:
    Path("source/menura.json").unlink()
    Path("source/config.json").unlink()
    with pytest.raises(CheckpointError, match="got a run that is not finished"):
        trained("begun", training__init_from="source")


def test_a_directory_of_lerobot(tmp_path: Path) -> None:
    fixture = Path(__file__).parents[1] / "fixtures" / "lerobot_act"
    made = runpy.run_path(str(fixture / "tensors.py"))
    directory = tmp_path / "lerobot"
    shutil.copytree(fixture / "object", directory)
    layout = made["unfolded"](json.loads((directory / "layout.json").read_text()))
    tensors = {name: torch.from_numpy(made["tensor"](name, shape)) for name, shape in layout.items()}
    safetensors.torch.save_file(tensors, directory / "model.safetensors")
    task: Any = None  # where a user's own classes are looked for, of which there are none
    source = open_source(str(directory), task, "here")
    assert source.kind == "of lerobot act, converted"
    assert source.trained is not None
    theirs = conversion.load_foreign(directory).policy
    policy = type(theirs)(theirs.config)
    start = take_over(policy, source, str(directory), source.trained)
    assert set(start.matched) == set(policy.state_dict())
    assert not start.whole, "the files hold other names"
    assert all(torch.equal(policy.state_dict()[name], value) for name, value in theirs.state_dict().items())
