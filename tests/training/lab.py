"""A small training, run in a process of its own so that it can be killed. Reads its settings from `SETTINGS`.

OUT        the run's directory
STEPS      how many
KILL_AT    step after which the process kills itself, or None
PART       "step": right after the optimizer's step; "write": while the checkpoint of that step is half written
FULL_AT    step after which no file may grow beyond a few bytes, as on a full disk, or None
OPTIONS    further training arguments
EMA        decay or None
"""

import json
import os
import resource
import signal
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import PretrainedConfig, PreTrainedModel, TrainerCallback, TrainingArguments, set_seed

from menura.config.schema import ProcessorConfig
from menura.data import compute_statistics
from menura.errors import CheckpointError
from menura.features import Features, VectorFeature
from menura.processing.processor import Processor
from menura.training.trainer import MenuraTrainer

SETTINGS: dict[str, Any] = globals().get("SETTINGS", {})
D, T, A = 3, 4, 2


class ToyConfig(PretrainedConfig):
    model_type = "toy"

    def __init__(self, chunk_size: int = T, dropout: float = 0.2, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.chunk_size = chunk_size
        self.dropout = dropout


class ToyPolicy(PreTrainedModel):
    """With dropout (random numbers at every step) and a batch norm (buffers)."""

    config_class = ToyConfig

    def __init__(self, config: ToyConfig) -> None:
        super().__init__(config)
        self.body = torch.nn.Sequential(
            torch.nn.Linear(D, 16), torch.nn.BatchNorm1d(16), torch.nn.ReLU(), torch.nn.Dropout(config.dropout)
        )
        self.head = torch.nn.Linear(16, T * A)
        self.post_init()

    def forward(self, state, actions=None, is_pad=None):
        predicted = self.head(self.body(state)).unflatten(-1, (T, A))
        if actions is None:
            return predicted
        error = (predicted - actions).abs()
        return {"loss": error.mean(), "first_step": error[:, 0].mean(), "largest": error.max()}

    def select_action(self, obs_dict):
        return self.forward(obs_dict["state"])


class ToyWindows(torch.utils.data.Dataset):
    """Rows of random numbers, gathered as `menura.data.windows` does."""

    def __init__(self, items: int = 53, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        self.state = rng.normal(size=(items, D)).astype(np.float32)
        self.actions = (self.state[:, None, :A] * np.arange(1, T + 1)[:, None]).astype(np.float32)

    def __len__(self) -> int:
        return len(self.state)

    def __getitems__(self, indices: list[int]) -> dict[str, Any]:
        rows = np.asarray(indices)
        return {
            "state": self.state[rows],
            "actions": self.actions[rows],
            "is_pad": np.zeros((len(rows), T), bool),
            "task": [""] * len(rows),
            "dataset_id": np.zeros(len(rows), np.int64),
        }


def toy_processor(dataset: ToyWindows, config: PretrainedConfig) -> Processor:
    features = Features(VectorFeature.of_width(D, "s"), VectorFeature.of_width(A, "a"), fps=10)
    statistics = {
        "toy": {"state": compute_statistics(dataset.state), "action": compute_statistics(dataset.actions[:, 0])}
    }
    return Processor.build(ProcessorConfig(), features, statistics, config, uses=("state", "actions"))


def toy_arguments(out: Path, **options: Any) -> TrainingArguments:
    given: dict[str, Any] = {
        "per_device_train_batch_size": 8,
        "max_steps": 10,
        "learning_rate": 1e-2,
        "lr_scheduler_type": "cosine",
        "warmup_steps": 3,
        "logging_steps": 4,
        "save_steps": 3,
        "report_to": "none",
        "use_cpu": True,
        "disable_tqdm": True,
        "dataloader_pin_memory": False,
        "logging_nan_inf_filter": False,
        "remove_unused_columns": False,
        "label_names": ["actions", "is_pad"],
    }
    return TrainingArguments(output_dir=str(out), **{**given, **options})


def toy_trainer(out: Path, ema: float | None = None, trainer: type = MenuraTrainer, **options: Any) -> MenuraTrainer:
    arguments = toy_arguments(out, **options)
    set_seed(arguments.seed)
    dataset, policy = ToyWindows(), ToyPolicy(ToyConfig())
    return trainer(
        policy,
        arguments,
        train_dataset=dataset,
        eval_dataset=ToyWindows(20, seed=1) if arguments.eval_strategy != "no" else None,
        processor=toy_processor(dataset, policy.config),
        ema_decay=ema,
    )


class KillAfterStep(TrainerCallback):
    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == self.step:
            os.kill(os.getpid(), signal.SIGKILL)


class DiskFullAfterStep(TrainerCallback):
    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_begin(self, args, state, control, **kwargs):
        if state.global_step == self.step:
            resource.setrlimit(resource.RLIMIT_FSIZE, (500, resource.RLIM_INFINITY))


class KilledWhileWriting(MenuraTrainer):
    """Dies when the policy and half of the training state of a checkpoint are on the disk."""

    step = 0

    def _save_rng_state(self, output_dir: str) -> None:
        if self.state.global_step == self.step:
            os.kill(os.getpid(), signal.SIGKILL)
        super()._save_rng_state(output_dir)


def main(settings: dict[str, Any]) -> None:
    torch.set_num_threads(1)
    out = Path(settings["OUT"])
    KilledWhileWriting.step = settings["KILL_AT"] if settings["PART"] == "write" else 0
    trainer = toy_trainer(out, settings["EMA"], KilledWhileWriting, max_steps=settings["STEPS"], **settings["OPTIONS"])
    if settings["KILL_AT"] is not None and settings["PART"] == "step":
        trainer.add_callback(KillAfterStep(settings["KILL_AT"]))
    if settings["FULL_AT"] is not None:
        trainer.add_callback(DiskFullAfterStep(settings["FULL_AT"]))
    try:
        trainer.resume()
    except CheckpointError as error:
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        out.with_suffix(".error").write_text(str(error))
        sys.exit(3)
    trainer.save_model(str(out / "end"))
    log = [
        {key: value for key, value in entry.items() if "runtime" not in key and "second" not in key}
        for entry in trainer.state.log_history
        if "loss" in entry
    ]
    (out / "end" / "log.json").write_text(json.dumps(log))


if SETTINGS:
    main(SETTINGS)
