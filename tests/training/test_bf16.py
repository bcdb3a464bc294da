"""`bf16` computes in bfloat16 with float32 weights; convolutions lie channels-last; neither changes what is saved."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import nn

from menura.checkpoint import load_checkpoint
from menura.policies.channels_last import convolve_channels_last, lay_out_as_parameters
from menura.training.run import train


def words(options: dict[str, Any]) -> list[str]:
    return [f"--{key.replace('__', '.')}={json.dumps(value)}" for key, value in options.items()]


def test_forward_computes_in_bfloat16(lab: ModuleType, tmp_path: Path) -> None:
    trainer = lab.toy_trainer(tmp_path, bf16=True, max_steps=3, eval_strategy="steps", eval_steps=3)
    seen: set[torch.dtype] = set()
    trainer.model.head.register_forward_hook(lambda module, inputs, output: seen.add(output.dtype))
    assert trainer.resume() == 3
    assert seen == {torch.bfloat16}
    assert {p.dtype for p in trainer.model.parameters()} == {torch.float32}
    moments = [value for state in trainer.optimizer.state.values() for value in state.values() if value.dim()]
    assert {value.dtype for value in moments} == {torch.float32}
    seen.clear()
    trainer.model.select_action({"state": torch.zeros(2, 3)})  # it calls forward
    assert seen == {torch.float32}


def test_the_loss_falls_as_in_float32(lab: ModuleType, tmp_path: Path) -> None:
    losses = {}
    for bf16 in (False, True):
        trainer = lab.toy_trainer(tmp_path / str(bf16), bf16=bf16, max_steps=40, logging_steps=10)
        trainer.resume()
        losses[bf16] = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert losses[True] != losses[False]
    assert losses[True] == pytest.approx(losses[False], rel=0.03)
    assert losses[True][-1] < 0.8 * losses[True][0]


def test_a_run_verifies_in_float32(project: Path) -> None:
    train("reach", output_dir="out", overrides=words({"training__bf16": True, "training__max_steps": 4}))
    load_checkpoint("out", project=project)  # golden answers, of a select_action that calls forward


class Convolving(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Conv2d(3, 4, 3), nn.Conv1d(3, 4, 3), nn.Conv3d(3, 4, 3), nn.Linear(3, 4)])


def test_only_2d_convolutions_are_laid_out_anew() -> None:
    model = Convolving()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    convolve_channels_last(model)
    assert model.layers[0].weight.is_contiguous(memory_format=torch.channels_last)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(layer.weight.is_contiguous() for layer in list(model.layers)[1:])


def test_loaded_moments_lie_as_the_weights() -> None:
    model = Convolving()
    convolve_channels_last(model)
    optimizer = torch.optim.AdamW(model.parameters())
    model.layers[0](torch.randn(1, 3, 5, 5)).sum().backward()
    optimizer.step()
    saved = optimizer.state_dict()
    saved["state"] = {
        index: {name: value.contiguous() for name, value in state.items()} for index, state in saved["state"].items()
    }
    optimizer.load_state_dict(saved)
    lay_out_as_parameters(optimizer)
    weight = model.layers[0].weight
    assert optimizer.state[weight]["exp_avg"].stride() == weight.stride()


@pytest.mark.parametrize("bf16", [False, True])
@pytest.mark.slow
def test_a_killed_training_of_convolutions_ends_the_same(
    project: Path, bf16: bool, train_in_child: Callable[..., int], tmp_path: Path
) -> None:
    args = {
        "chunk_size": 4, "n_action_steps": 2, "hidden_size": 32, "n_heads": 2, "feedforward_size": 32,
        "n_encoder_layers": 1, "latent_dim": 4, "backbone_widths": [16, 32], "backbone_depths": [1, 1],
        "image_size": [32, 32],
    }  # fmt: skip
    options = words(
        {"policy": {"class": "ACTPolicy", "args": args}, "training__bf16": bf16, "training__max_steps": 6,
         "training__save_steps": 3, "training__ema": 0.9}
    )  # fmt: skip
    train("seen", output_dir="whole", overrides=options)
    place = {"directory": str(project), "cache": str(tmp_path / "cache")}
    assert train_in_child(**place, kill_at=5, task="seen", output_dir="killed", overrides=options) == -9
    train("seen", output_dir="killed", overrides=options)
    whole, killed = (safetensors.torch.load_file(f"{run}/model.safetensors") for run in ("whole", "killed"))
    assert all(torch.equal(killed[name], value) for name, value in whole.items())
    policy = load_checkpoint("whole", project=project).policy
    convolutions = [module for module in policy.modules() if isinstance(module, nn.Conv2d)]
    assert all(module.weight.is_contiguous(memory_format=torch.channels_last) for module in convolutions)
