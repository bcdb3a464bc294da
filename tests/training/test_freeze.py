"""What is frozen stays, and each part learns at its own rate."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import nn

from menura.config import load_task
from menura.errors import ConfigError
from menura.training.finetuning import freeze, keep_in_evaluation, with_rates
from menura.training.run import train


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
        self.head = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))


def trained(out: str, **options: Any) -> dict[str, torch.Tensor]:
    words = [f"--{key.replace('__', '.')}={json.dumps(value)}" for key, value in options.items()]
    train("reach", output_dir=out, overrides=words)
    return safetensors.torch.load_file(f"{out}/model.safetensors")


def test_frozen_parameters_stay(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    begin = trained("begin", training__max_steps=1, training__learning_rate=0.0)
    end = trained("end", training__max_steps=5, training__freeze=["net.0.*"])
    assert {name for name in end if torch.equal(begin[name], end[name])} == {"net.0.weight", "net.0.bias"}
    assert "264 of 424 parameters learn (62.3%)" in capsys.readouterr().out


def test_frozen_batch_norms_keep_their_statistics() -> None:
    net = Net()
    freeze(net, ["body.*"], "here")
    frozen, learning = net.body[1], net.head[1]
    before = frozen.running_mean.clone()
    net.train()
    net.head(net.body(torch.randn(8, 3)))
    assert torch.equal(frozen.running_mean, before)
    assert learning.running_mean.abs().sum() > 0
    assert [p.requires_grad for p in net.body.parameters()] == [False] * 4


@pytest.mark.parametrize("key", ["freeze", "learning_rates"])
def test_a_pattern_that_matches_nothing(project: Path, key: str) -> None:
    given = ["nett.0.*"] if key == "freeze" else {"nett.0.*": 1e-4}
    with pytest.raises(ConfigError, match=rf"training\.{key}: nett\.0\.\*: expected a pattern .*; did you mean net\.0"):
        trained("out", **{f"training__{key}": given})


def test_nothing_left_to_learn(project: Path) -> None:
    with pytest.raises(ConfigError, match=r"training\.freeze: expected to leave something that learns"):
        trained("out", training__freeze=["*"])


@pytest.mark.parametrize(
    ("training", "message"),
    [
        ("{freeze: backbone}", r"training\.freeze: expected a list of patterns .*, got 'backbone'"),
        ("{learning_rates: [1]}", r"training\.learning_rates: expected a mapping of patterns to rates"),
        ("{learning_rates: {'a.*': fast}}", r"a\.\*: expected a learning rate of at least 0, got 'fast'"),
        ("{freeze: [a], peft: {type: lora}}", r"training\.peft: expected no training\.freeze beside it"),
        (
            "{learning_rate: 1.0, learning_rats: {}}",
            r"learning_rats: no such field.*did you mean learning_rate",
        ),
    ],
)
def test_refused_before_torch(project: Path, training: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_task("reach", [f"--training={training}"])


def test_learning_rates(project: Path) -> None:
    begin = trained("begin", training__max_steps=1, training__learning_rate=0.0)
    end = trained(
        "end", training__max_steps=4, training__logging_steps=1, training__learning_rates={"net.0.*": 0.0, "*": 0.02},
        training__warmup_steps=0, training__lr_scheduler_type="linear",
    )  # fmt: skip
    assert {name for name in end if torch.equal(begin[name], end[name])} == {"net.0.weight", "net.0.bias"}
    log = json.loads(Path("end/trainer_state.json").read_text())["log_history"]
    assert [entry["learning_rate/*"] for entry in log if "loss" in entry] == pytest.approx([0.02, 0.015, 0.01, 0.005])
    assert {entry["learning_rate/net.0.*"] for entry in log if "loss" in entry} == {0.0}


def test_the_first_pattern_decides_and_beats_the_policys_own_groups() -> None:
    net = Net()
    freeze(net, ["head.0.*"], "here")
    groups = [
        {"params": list(net.body.parameters()), "lr": 1e-5, "weight_decay": 0.1},
        {"params": list(net.head.parameters()), "lr": 1e-3, "weight_decay": 0.0},
    ]
    split = with_rates(net, groups, {"body.0.*": 1e-6, "*.bias": 1e-4})
    named = {id(parameter): name for name, parameter in net.named_parameters()}
    told = [(sorted(named[id(p)] for p in g["params"]), g["lr"], g["weight_decay"], g.get("pattern")) for g in split]
    assert told == [
        (["body.1.weight"], 1e-5, 0.1, None),
        (["head.1.weight", "head.2.weight"], 1e-3, 0.0, None),
        (["body.0.bias", "body.0.weight"], 1e-6, 0.1, "body.0.*"),
        (["body.1.bias"], 1e-4, 0.1, "*.bias"),
        (["head.1.bias", "head.2.bias"], 1e-4, 0.0, "*.bias"),
    ]


def test_norms_of_what_learns_are_left_alone() -> None:
    net = Net()
    keep_in_evaluation(net)
    net.train()
    net.head(net.body(torch.randn(8, 3)))
    assert net.body[1].training


@pytest.mark.slow
def test_killed_and_resumed_ends_the_same(project: Path, train_in_child: Callable[..., int], tmp_path: Path) -> None:
    options = {"training__freeze": ["net.0.weight"], "training__learning_rates": {"net.3.*": 0.05}}
    whole = trained("whole", **options)
    words = [f"--{key.replace('__', '.')}={json.dumps(value)}" for key, value in options.items()]
    place = {"directory": str(project), "cache": str(tmp_path / "cache")}
    assert train_in_child(**place, kill_at=15, task="reach", output_dir="killed", overrides=words) == -9
    killed = trained("killed", **options)
    assert all(torch.equal(killed[name], value) for name, value in whole.items())
