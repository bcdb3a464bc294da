"""A killed training goes on as if nothing had happened."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import safetensors.torch
import torch

from menura.errors import CheckpointError
from menura.training.checkpoints import checkpoints

SETTINGS: dict[str, dict[str, Any]] = {
    "averaged weights, accumulation": {"EMA": 0.99, "OPTIONS": {"gradient_accumulation_steps": 3}},
    "plateau": {"OPTIONS": {"eval_strategy": "steps", "eval_steps": 2, "lr_scheduler_type": "reduce_lr_on_plateau"}},
}


def weights(run: Path) -> dict[str, torch.Tensor]:
    return safetensors.torch.load_file(run / "end" / "model.safetensors")


def assert_same_end(run: Path, reference: Path) -> None:
    expected, got = weights(reference), weights(run)
    assert expected.keys() == got.keys()
    for name, tensor in expected.items():
        assert torch.equal(got[name], tensor), name
    logs = [json.loads((path / "end" / "log.json").read_text()) for path in (run, reference)]
    assert logs[0] == logs[1]


def kill_and_go_on(in_lab: Callable[..., int], run: Path, kills: list[tuple[int, str]], **settings: Any) -> None:
    for step, part in kills:
        assert in_lab(run, KILL_AT=step, PART=part, **settings) == -9
    assert in_lab(run, **settings) == 0


@pytest.mark.parametrize("name", SETTINGS)
def test_killed_training_ends_with_the_same_weights(in_lab: Callable[..., int], tmp_path: Path, name: str) -> None:
    """Killed while writing a checkpoint, in the middle of an epoch, and while writing the last one. Dropout is on."""
    settings = SETTINGS[name]
    assert in_lab(tmp_path / "whole", **settings) == 0
    kills = [(6, "write"), (8, "step"), (10, "write")]
    kill_and_go_on(in_lab, tmp_path / "killed", kills, **settings)
    assert_same_end(tmp_path / "killed", tmp_path / "whole")
    assert [path.name for path in checkpoints(tmp_path / "killed")] == [
        "checkpoint-3",
        "checkpoint-6",
        "checkpoint-9",
        "checkpoint-10",
    ]


def test_killed_after_the_last_checkpoint_trains_no_step_more(in_lab: Callable[..., int], tmp_path: Path) -> None:
    assert in_lab(tmp_path / "whole") == 0
    assert in_lab(tmp_path / "again") == 0
    assert in_lab(tmp_path / "again") == 0
    assert_same_end(tmp_path / "again", tmp_path / "whole")


@pytest.mark.slow
@pytest.mark.parametrize("part", ["step", "write"])
@pytest.mark.parametrize("name", SETTINGS)
def test_every_kill_point(in_lab: Callable[..., int], tmp_path: Path, name: str, part: str) -> None:
    settings = SETTINGS[name]
    options = {**settings.get("OPTIONS", {}), "save_steps": 1 if part == "write" else 2}
    settings = {**settings, "OPTIONS": options}
    assert in_lab(tmp_path / "whole", **settings) == 0
    for step in range(1, 11):
        run = tmp_path / f"killed-{step}"
        kill_and_go_on(in_lab, run, [(step, part)], **settings)
        assert_same_end(run, tmp_path / "whole")


def test_a_checkpoint_holds_no_pickle(lab: ModuleType, tmp_path: Path) -> None:
    lab.toy_trainer(tmp_path, ema=0.9, max_steps=2).resume()
    files = {path.name for path in (tmp_path / "checkpoint-2").iterdir()}
    assert not [name for name in files if Path(name).suffix not in (".json", ".safetensors")]
    assert {
        "model.safetensors",
        "optimizer.safetensors",
        "scheduler.json",
        "process_0.json",
        "ema.safetensors",
    } <= files
    assert {"training_args.json", "trainer_state.json", "processor_config.json", "normalizer.safetensors"} <= files


def test_a_full_disk_leaves_the_last_checkpoint_and_says_so(in_lab: Callable[..., int], tmp_path: Path) -> None:
    run = tmp_path / "full"
    assert in_lab(run, FULL_AT=5) == 3
    message = run.with_suffix(".error").read_text()
    assert f"{run / 'checkpoint-6'}: expected to write a checkpoint, got: " in message
    assert f"Make room and run the same command again: {run / 'checkpoint-3'} is complete." in message
    assert sorted(path.name for path in run.iterdir()) == ["checkpoint-3"]
    assert in_lab(run) == 0
    assert in_lab(tmp_path / "whole") == 0
    assert_same_end(run, tmp_path / "whole")


def test_a_damaged_checkpoint_is_not_gone_on_from(lab: ModuleType, tmp_path: Path) -> None:
    lab.toy_trainer(tmp_path, max_steps=2).resume()
    (tmp_path / "checkpoint-2" / "scheduler.json").unlink()
    with pytest.raises(CheckpointError, match=r"expected scheduler\.json to resume from, got no such file"):
        lab.toy_trainer(tmp_path, max_steps=4).resume()


def test_only_the_newest_checkpoints_are_kept(lab: ModuleType, tmp_path: Path) -> None:
    lab.toy_trainer(tmp_path, max_steps=8, save_steps=2, save_total_limit=2).resume()
    assert [path.name for path in checkpoints(tmp_path)] == ["checkpoint-6", "checkpoint-8"]


def test_a_policy_whose_code_changed_is_not_gone_on_with(lab: ModuleType, tmp_path: Path) -> None:
    lab.toy_trainer(tmp_path, max_steps=2).resume()
    trainer = lab.toy_trainer(tmp_path, max_steps=4)
    trainer.model.extra = torch.nn.Linear(2, 2)
    with pytest.raises(
        CheckpointError, match=r"weights of ToyPolicy: expected all its weights .* extra\.weight, extra"
    ):
        trainer.resume()
