"""`training:`, checked against the fields of `transformers.TrainingArguments` as its source has them.

Importing the class would import torch; its source is found and read instead.
"""

from __future__ import annotations

import ast
import functools
import re
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from menura.config import finetuning
from menura.config.annotations import expected_by_annotation
from menura.config.messages import schema_problems
from menura.config.origins import RANK, Origin, Problems, Tree
from menura.config.schema import RolloutsConfig
from menura.config.yaml_tree import told
from menura.errors import did_you_mean, listed, near_or_known
from menura.source import module_file

OWN_KEYS = ("ema", "rollouts", *finetuning.KEYS)

# Least values that TrainingArguments itself only finds out about much later, if at all.
_AT_LEAST = {
    "per_device_train_batch_size": 1,
    "gradient_accumulation_steps": 1,
    "learning_rate": 0,
    "save_total_limit": 1,
}

# Fields that are about token sequences and columns, and that a trainer of Menura's has no use for: the one value each
# may have, and why. Any other would be left unread.
_ONLY: dict[str, tuple[Any, str]] = {
    "remove_unused_columns": (False, "Batches hold what the policy's forward names"),
    "label_names": (["actions", "is_pad"], "These are what a policy is trained on"),
    "train_sampling_strategy": ("random", "Write a trainer of your own for another order of samples"),
    "label_smoothing_factor": (0, "The policy computes its own loss"),
}

_UNSET_STEPS = -1  # of TrainingArguments: num_train_epochs decides


def choose_length(tree: Tree, problems: Problems) -> None:
    """Let the stronger of `max_steps` and `num_train_epochs` decide; TrainingArguments would ignore the second."""
    training = tree.value.get("training")
    if not isinstance(training, dict) or not {"max_steps", "num_train_epochs"} <= training.keys():
        return
    if training["max_steps"] == _UNSET_STEPS:
        tree.delete(("training", "max_steps"))
        return
    steps = tree.origin(("training", "max_steps"))
    epochs = tree.origin(("training", "num_train_epochs"))
    steps_rank, epochs_rank = (_rank(origin) for origin in (steps, epochs))
    if steps_rank == epochs_rank:
        problems.add("training.num_train_epochs", "max_steps is given too. Keep one of them", epochs)
    else:
        weaker = "max_steps" if steps_rank < epochs_rank else "num_train_epochs"
        tree.delete(("training", weaker))


def _rank(origin: Origin | None) -> int:
    return RANK[origin.kind] if origin is not None else -1


def check_training(tree: Tree, problems: Problems) -> None:
    """Report unknown keys, wrong types, wrong choices and values out of range."""
    training = tree.value.get("training")
    if not isinstance(training, dict):
        return  # the schema says so
    fields = training_fields()
    for key, value in training.items():
        message = _own_problem(key, value, tree, problems) if key in OWN_KEYS else _field_problem(key, value, fields)
        if message is not None:
            problems.add(f"training.{key}", message, tree.origin(("training", key)))


def _own_problem(key: str, value: Any, tree: Tree, problems: Problems) -> str | None:
    if value is None:
        return None
    if key in finetuning.KEYS:
        return finetuning.finetuning_problem(key, tree.value["training"])
    if key == "ema":
        good = isinstance(value, bool) or (isinstance(value, float) and 0 < value < 1)
        return None if good else f"expected true, false or a decay in (0, 1), got {told(value)}"
    if not isinstance(value, dict):
        return f"expected a mapping, got {told(value)}"
    if key == "rollouts":
        try:
            RolloutsConfig.model_validate(value)
        except ValidationError as error:
            schema_problems(error, tree, problems, model=RolloutsConfig, prefix=("training", "rollouts"))
        if tree.value.get("env") is None and ("env",) not in tree.origins:
            return "expected a task with an environment to evaluate in, got none. Add env"
    return None


def _field_problem(key: str, value: Any, fields: dict[str, str]) -> str | None:
    if key not in fields:
        return f"no such field of transformers.TrainingArguments{near_or_known(key, [*OWN_KEYS, 'base', *fields])}"
    annotation = fields[key]
    if (expected := expected_by_annotation(annotation, value)) is not None:
        return f"expected {expected}, got {told(value)}"
    choices = [choice for name in re.findall(r"\w+", annotation) for choice in _enum_choices(name)]
    if choices and isinstance(value, str) and value not in choices:
        return f"expected one of {listed(choices)}, got {told(value)}{did_you_mean(value, choices)}"
    if key in _ONLY and value != _ONLY[key][0]:
        only, why = _ONLY[key]
        return f"expected {told(only)}, got {told(value)}. {why}"
    if key == "max_steps" and isinstance(value, int) and value < 1:
        return f"expected at least 1, or give num_train_epochs instead, got {told(value)}"
    if key in _AT_LEAST and isinstance(value, (int, float)) and value < _AT_LEAST[key]:
        return f"expected a number of at least {_AT_LEAST[key]}, got {told(value)}"
    return None


@functools.lru_cache(maxsize=1)
def training_fields() -> dict[str, str]:
    """Every field of `TrainingArguments` with its annotation's text."""
    source = _transformers_source("training_args")
    start = source.index("\nclass TrainingArguments")
    end = source.index("\n    def ", start)
    body = ast.parse(source[start:end]).body[0]
    assert isinstance(body, ast.ClassDef)
    fields = {
        statement.target.id: ast.unparse(statement.annotation)
        for statement in body.body
        if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name)
    }
    return {name: annotation.strip("'\"") for name, annotation in fields.items()}


@functools.lru_cache(maxsize=32)
def _enum_choices(name: str) -> tuple[str, ...]:
    """The values of an enumeration of transformers; none when the name is none."""
    if not name[:1].isupper() or name in ("None", "Any", "Literal"):
        return ()
    for module in ("trainer_utils", "training_args"):
        found = re.search(rf"\nclass {name}\(ExplicitEnum\):\n((?:    .*\n|\n)*)", _transformers_source(module))
        if found is not None:
            return tuple(re.findall(r"^    [A-Z0-9_]+ = \"(.*)\"", found.group(1), flags=re.MULTILINE))
    return ()


@functools.lru_cache(maxsize=4)
def _transformers_source(module: str) -> str:
    file = module_file(f"transformers.{module}", ())
    return Path(file).read_text(encoding="utf-8") if file is not None else ""
