"""`training:` is `transformers.TrainingArguments`: each of its fields arrives, or is refused by name."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from transformers import TrainingArguments

from menura.config import load_task
from menura.config.yaml_tree import format_value
from menura.errors import ConfigError, ContractError
from menura.training.arguments import training_arguments

# Values other than the default, for the fields where one cannot be made up from the default and the type.
VALUES: dict[str, Any] = {
    "output_dir": "elsewhere",
    "lr_scheduler_type": "cosine",
    "optim": "sgd",
    "logging_strategy": "epoch",
    "eval_strategy": "epoch",
    "save_strategy": "epoch",
    "hub_strategy": "end",
    "include_for_metrics": ["loss"],
    "report_to": ["none"],
    "debug": "underflow_overflow",
    "optim_target_modules": ["head"],
    "include_num_input_tokens_seen": "all",
    "liger_kernel_config": {"rope": True},
    "accelerator_config": {"even_batches": False},
    "load_best_model_at_end": True,
    "log_level": "error",
    "log_level_replica": "error",
    "torch_compile_backend": "eager",
    "torch_compile_mode": "default",
    "trackio_static_space_id": False,
    "ddp_backend": "gloo",
    "fsdp": "full_shard",
    "deepspeed": "ds.json",
    "tf32": True,
    "parallelism_config": {"dp_replicate_size": 2},
}
# What a field needs beside it.
BESIDE: dict[str, dict[str, Any]] = {
    "load_best_model_at_end": {"eval_strategy": "epoch", "save_strategy": "epoch"},
    "dataloader_prefetch_factor": {"dataloader_num_workers": 3},
    "bf16": {"use_cpu": True},
    "bf16_full_eval": {"use_cpu": True},
}
# What only one value of makes sense in Menura, with the refused one.
ONLY: dict[str, Any] = {
    "remove_unused_columns": True,
    "label_names": ["labels"],
    "train_sampling_strategy": "group_by_length",
    "label_smoothing_factor": 0.1,
}
# What TrainingArguments itself refuses, or changes, on a machine without the device, the package or the processes.
ELSEWHERE = {"tf32", "ddp_backend", "fsdp", "fsdp_config", "deepspeed", "parallelism_config"}


def another(field: dataclasses.Field[Any]) -> Any:
    """A value that is not the default."""
    if field.name in VALUES:
        return VALUES[field.name]
    annotation, default = str(field.type), field.default
    if isinstance(default, bool):
        return not default
    if isinstance(default, int):
        return default + 3
    if isinstance(default, float):
        return default / 2 or 0.25
    for kind, value in {"bool": True, "float": 0.5, "dict": {"num_cycles": 1}, "int": 2}.items():
        if kind in annotation and "str" not in annotation.replace("dict[str", ""):
            return value
    return {"num_cycles": 1} if "dict" in annotation else "x"


FIELDS = {field.name: another(field) for field in dataclasses.fields(TrainingArguments) if field.name not in ONLY}
Task = Callable[[dict[str, Any]], Any]


@pytest.fixture
def task(tmp_path: Path) -> Task:
    """A task whose `training:` is what is given and no default."""

    def load(training: dict[str, Any]) -> Any:
        (tmp_path / "configs" / "task").mkdir(parents=True, exist_ok=True)
        file = tmp_path / "configs" / "task" / "x.yaml"
        given = format_value({"base": None, **training})
        file.write_text(f"policy: mlp\ntraining: {given}\n")
        return load_task(file)

    return load


def test_the_configuration_accepts_every_field_and_keeps_its_value(task: Task) -> None:
    given = {name: value for name, value in FIELDS.items() if name != "num_train_epochs"}  # or max_steps, not both
    assert len(given) > 100
    assert task(given).config.training == given


def test_every_field_arrives_with_its_value(task: Task, tmp_path: Path) -> None:
    alone = {*BESIDE, "fp16", "max_steps", "num_train_epochs"}
    together = {name: value for name, value in FIELDS.items() if name not in alone | ELSEWHERE}
    groups = [together, *({name: FIELDS[name], **BESIDE.get(name, {})} for name in sorted(alone))]
    seen: set[str] = set()
    for group in groups:
        arguments = training_arguments(task(group), tmp_path / "run")
        seen |= group.keys()
        for name, value in group.items():
            expected = str(tmp_path / "run") if name == "output_dir" else value  # which `train` takes from it
            got = getattr(arguments, name)
            if name == "accelerator_config":
                got, expected = got.even_batches, False
            elif name == "debug":
                got = got[0]
            elif name == "report_to":
                expected = []
            assert got == expected, name
    assert seen | ELSEWHERE == FIELDS.keys()


def test_what_menura_cannot_use_is_refused_by_name(task: Task) -> None:
    with pytest.raises(ConfigError) as caught:
        task(ONLY)
    assert [problem.rpartition(" (")[0] for problem in caught.value.problems] == [
        "training.remove_unused_columns: expected false, got true. Batches hold what the policy's forward names",
        "training.label_names: expected [actions, is_pad], got [labels]. These are what a policy is trained on",
        "training.train_sampling_strategy: expected 'random', got 'group_by_length'. "
        "Write a trainer of your own for another order of samples",
        "training.label_smoothing_factor: expected 0, got 0.1. The policy computes its own loss",
    ]


OPTIONS: list[dict[str, Any]] = [
    {"bf16": True},
    {"torch_compile": True, "torch_compile_backend": "eager"},
    {"gradient_accumulation_steps": 2, "bf16": True},
    {"optim": "adafactor", "lr_scheduler_type": "linear"},
    {"max_steps": -1, "num_train_epochs": 1.0},
    {"dataloader_num_workers": 1, "dataloader_prefetch_factor": 3, "dataloader_in_order": False},
    {"save_strategy": "best", "eval_strategy": "steps", "eval_steps": 2, "metric_for_best_model": "loss"},
]


@pytest.mark.parametrize("options", OPTIONS, ids=lambda options: next(iter(options)))
def test_trainers_own_options_train(lab: ModuleType, tmp_path: Path, options: dict[str, Any]) -> None:
    trainer = lab.toy_trainer(tmp_path, **{"max_steps": 4, "save_strategy": "no", **options})
    before = {name: weight.clone() for name, weight in trainer.model.named_parameters()}
    trainer.resume()
    assert trainer.state.global_step == (7 if "num_train_epochs" in options else 4)  # 53 items in batches of 8
    assert all(torch.isfinite(weight).all() for weight in trainer.model.parameters())
    assert any(not torch.equal(weight, before[name]) for name, weight in trainer.model.named_parameters())


def test_every_loader_option_reaches_the_loader(lab: ModuleType, tmp_path: Path) -> None:
    options = {
        "dataloader_num_workers": 1,
        "dataloader_prefetch_factor": 3,
        "dataloader_persistent_workers": True,
        "dataloader_in_order": False,
        "dataloader_drop_last": True,
        "dataloader_multiprocessing_context": "spawn",
    }
    loader = lab.toy_trainer(tmp_path, **options).get_train_dataloader()
    assert (loader.num_workers, loader.prefetch_factor, loader.persistent_workers) == (1, 3, True)
    assert loader.in_order is False
    assert loader.multiprocessing_context.get_start_method() == "spawn"
    assert len(loader) == 53 // 8


def test_gradient_checkpointing_of_a_policy_that_has_none(lab: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(ContractError, match=r"training\.gradient_checkpointing: expected a policy that supports it"):
        lab.toy_trainer(tmp_path, gradient_checkpointing=True)
