"""`training:` of a task as `transformers.TrainingArguments`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import TrainingArguments

from menura.config.resolved import ResolvedTask
from menura.config.schema import RolloutsConfig
from menura.config.training import OWN_KEYS
from menura.errors import ConfigError
from menura.training.ema import DEFAULT_DECAY
from menura.training.reporting import install_command, installed
from menura.training.run_directory import is_main_process


def training_arguments(task: ResolvedTask, output_dir: Path) -> TrainingArguments:
    """The arguments of a run in `output_dir`.

    What a task leaves open is `TrainingArguments`' default, but for: `label_names` and `remove_unused_columns`, which
    batches of Menura need; `logging_nan_inf_filter`, which would hide a loss that is not finite;
    `dataloader_pin_memory`, of use with a GPU alone; `use_cpu` where there is nothing else, without which Trainer
    refuses bf16 there; `report_to`, TensorBoard where it is installed, else none, which is said.

    Raises:
        ConfigError: a value TrainingArguments refuses.
    """
    given = {key: value for key, value in task.config.training.items() if key not in OWN_KEYS}
    defaults: dict[str, Any] = {
        "logging_nan_inf_filter": False,
        "dataloader_pin_memory": torch.cuda.is_available() and not given.get("use_cpu", False),
        "report_to": "tensorboard",
        "use_cpu": not torch.accelerator.is_available(),
    }
    values = {**defaults, **given, "output_dir": str(output_dir)}
    values |= {"label_names": ["actions", "is_pad"], "remove_unused_columns": False}
    if values["report_to"] == "tensorboard" and not installed("tensorboard"):  # the default: a wish is refused earlier
        values["report_to"] = "none"
        if is_main_process():
            print(f"Nothing is logged to TensorBoard, which is not installed. `{install_command('tensorboard')}`")
    try:
        return TrainingArguments(**values)
    except (TypeError, ValueError, ImportError) as problem:
        raise ConfigError(f"training: TrainingArguments refuses it: {problem} ({task.locate('training')})") from problem


def ema_decay(task: ResolvedTask) -> float | None:
    """The largest decay of `training.ema` (true is the default one); None when there is none."""
    value = task.config.training.get("ema")
    if not value:
        return None
    return DEFAULT_DECAY if value is True else float(value)


def rollouts_config(task: ResolvedTask) -> RolloutsConfig | None:
    """`training.rollouts`; None when there is none.

    Raises:
        ConfigError: there is nothing to roll out in, or two ways to choose the best checkpoint.
    """
    value = task.config.training.get("rollouts")
    if not value:
        return None
    rollouts = RolloutsConfig.model_validate(value)
    where = task.locate("training.rollouts")
    if task.config.env is None:
        raise ConfigError(f"training.rollouts: expected an env to roll out in, got none. Add env to the task ({where})")
    if rollouts.select_best and task.config.training.get("load_best_model_at_end"):
        raise ConfigError(
            f"training.rollouts.select_best: expected one way to choose the best checkpoint, got "
            f"load_best_model_at_end too. Remove one ({where})"
        )
    return rollouts
