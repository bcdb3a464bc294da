"""Training steps of image policies from the warm store: what bfloat16 and channels-last give, what the loader takes.

Prints one JSON line. `ratio` is (seconds of a step in plain float32 with convolutions channels-first) / (seconds of a
step as `bf16: true` trains it), one thread, the median over blocks in which the two take turns; both train the same
policy from the same weights on the same batches, and `losses` are the means of both over all steps. The rest is of the
Trainer itself with bf16: `samples_per_s`, and `loader_share`, the share of the time of a step that the training waits
for its next batch (`next` of the loader, everything from the store to tensors), at most 0.02 wanted.

    python benchmarks/train_step.py [--policy act|act_small|diffusion|diffusion_small] [--rounds 3] [--steps 2]
"""

from __future__ import annotations

import argparse
import copy
import itertools
import json
import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np
import torch
from torch import nn
from transformers import PreTrainedModel, TrainingArguments, set_seed

from menura import components
from menura.config import ProcessorConfig
from menura.data import Episode, Windows, collate, windows
from menura.policies.channels_last import convolve_channels_last
from menura.policies.contract import Contract, build_policy
from menura.policies.needs import Needs
from menura.processing.processor import Processor
from menura.training.memory import keep_freed_memory
from menura.training.trainer import MenuraTrainer

#: (class, arguments, cameras, (height, width), batch size, state and action width)
POLICIES: dict[str, tuple[str, dict[str, Any], int, tuple[int, int], int, int]] = {
    "act": ("ACTPolicy", {"image_size": [240, 320]}, 2, (240, 320), 8, 14),
    "act_small": (
        "ACTPolicy",
        {"image_size": [96, 96], "hidden_size": 128, "feedforward_size": 256, "n_encoder_layers": 2, "chunk_size": 20,
         "n_action_steps": 10, "backbone_widths": [32, 64, 128], "backbone_depths": [1, 1, 1]},
        1, (96, 96), 16, 7,
    ),
    "diffusion": ("DiffusionPolicy", {"image_size": [96, 96]}, 1, (96, 96), 64, 2),
    "diffusion_small": (
        "DiffusionPolicy", {"image_size": [96, 96], "unet_widths": [64, 128, 256]}, 1, (96, 96), 16, 2,
    ),
}  # fmt: skip


class RandomEpisodes:
    """Numbers and pixels of the right shapes."""

    def __init__(self, cameras: int, size: tuple[int, int], width: int, episodes: int = 4, steps: int = 120) -> None:
        self.cameras, self.size, self.width, self.episodes, self.steps = cameras, size, width, episodes, steps

    def __len__(self) -> int:
        return self.episodes

    def episode(self, index: int) -> Episode:
        rng = np.random.default_rng(index)
        frames = {
            f"camera_{i}": rng.integers(0, 256, (self.steps, *self.size, 3), np.uint8) for i in range(self.cameras)
        }
        numbers = rng.normal(size=(2, self.steps, self.width)).astype(np.float32)
        return Episode(state=numbers[0], action=numbers[1], images=frames, fps=50)


def make(name: str, cache: Path) -> tuple[PreTrainedModel, Windows, Processor, int]:
    class_name, args, cameras, size, batch_size, width = POLICIES[name]
    policy_class = components.load("policy", class_name, Path.cwd())
    set_seed(0)
    data_args = {"state_dim": width, "action_dim": width, "camera_names": [f"camera_{i}" for i in range(cameras)]}
    policy = build_policy(policy_class, {**args, **data_args})
    needs = Needs.of(policy.config)
    data = windows(
        RandomEpisodes(cameras, size, width),
        needs.observation_offsets,
        needs.action_offsets,
        image_size=size,
        cache_dir=cache,
        store="raw",
        progress=False,
    )
    processor = Processor.build(
        ProcessorConfig(),
        data.features,
        {data.name: data.statistics()},
        policy.config,
        uses=Contract.of(policy_class).keys,
    )
    return policy, data, processor, batch_size


class Steps:
    """Bare training steps of one policy, in one of two ways."""

    def __init__(self, policy: PreTrainedModel, bf16: bool) -> None:
        self.policy, self.bf16 = policy.train(), bf16
        self.contract = Contract.of(type(policy))
        if bf16:
            convolve_channels_last(policy)
        else:
            for convolution in (module for module in policy.modules() if isinstance(module, nn.Conv2d)):
                convolution.register_forward_pre_hook(lambda _, args: (args[0].contiguous(),))
        self.optimizer = torch.optim.AdamW(policy.parameters(), lr=1e-5, fused=True)
        self.seconds: list[float] = []
        self.losses: list[float] = []

    def run(self, batches: list[dict[str, Any]], *, counts: bool = True) -> None:
        began = time.perf_counter()
        for number, batch in enumerate(batches):
            torch.manual_seed(number)  # the same dropout and the same noise on both ways
            with torch.autocast("cpu", torch.bfloat16, enabled=self.bf16):
                loss = self.policy(**self.contract.select(batch))["loss"].float()
            loss.backward()
            nn.utils.clip_grad_norm_(self.policy.parameters(), 1.0)
            self.optimizer.step()
            self.optimizer.zero_grad()
            self.losses.append(float(loss.detach()))
        if counts:
            self.seconds.append((time.perf_counter() - began) / len(batches))


class TimedTrainer(MenuraTrainer):
    """Measures how long the training waits for each batch, and how long each step takes in all."""

    def get_batch_samples(self, epoch_iterator: Iterator[Any], num_batches: int, device: torch.device) -> Any:
        began = time.perf_counter()
        batches = super().get_batch_samples(epoch_iterator, num_batches, device)
        ended = time.perf_counter()
        self.__dict__.setdefault("waits", []).append((began, ended))
        return batches


def measure_trainer(name: str, cache: Path, steps: int) -> dict[str, float]:
    policy, data, processor, batch_size = make(name, cache)
    arguments = TrainingArguments(
        output_dir=str(cache / "run"), per_device_train_batch_size=batch_size, max_steps=steps + 2, bf16=True,
        learning_rate=1e-5, logging_steps=steps + 2, save_strategy="no", report_to="none", use_cpu=True,
        disable_tqdm=True, dataloader_pin_memory=False, logging_nan_inf_filter=False, remove_unused_columns=False,
        label_names=["actions", "is_pad"],
    )  # fmt: skip
    trainer = TimedTrainer(policy, arguments, train_dataset=data, processor=processor)
    trainer.train()
    waits: list[tuple[float, float]] = trainer.__dict__["waits"][1:]  # the first step warms up
    whole = [(after[0] - before[0]) for before, after in itertools.pairwise(waits)]
    waited = [ended - began for began, ended in waits[:-1]]
    step_s = statistics.median(whole)
    return {
        "samples_per_s": round(batch_size / step_s, 2),
        "loader_share": round(statistics.median(waited) / step_s, 4),
        "loader_ms": round(statistics.median(waited) * 1e3, 2),
    }


def measure(name: str, rounds: int, steps: int) -> dict[str, Any]:
    torch.set_num_threads(1)
    keep_freed_memory()
    with tempfile.TemporaryDirectory() as directory:
        policy, data, processor, batch_size = make(name, Path(directory))
        rng = np.random.default_rng(0)
        batches = [
            processor.inputs(collate(data.__getitems__(rng.permutation(len(data))[:batch_size]))) for _ in range(steps)
        ]
        plain, fast = Steps(copy.deepcopy(policy), bf16=False), Steps(policy, bf16=True)
        for each in (plain, fast):
            each.run(batches[:1], counts=False)
        for _ in range(rounds):
            for each in (plain, fast):
                each.run(batches)
        of_trainer = measure_trainer(name, Path(directory), max(2, rounds * steps // 2))
    return {
        "benchmark": "train_step",
        "policy": name,
        "ratio": round(statistics.median(a / b for a, b in zip(plain.seconds, fast.seconds, strict=True)), 3),
        "plain_s": round(statistics.median(plain.seconds), 4),
        "bf16_channels_last_s": round(statistics.median(fast.seconds), 4),
        "losses": [round(statistics.mean(each.losses), 4) for each in (plain, fast)],
        "batch_size": batch_size,
        **of_trainer,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--policy", choices=sorted(POLICIES), default="act")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=2)
    options = parser.parse_args()
    print(json.dumps(measure(options.policy, options.rounds, options.steps)))


if __name__ == "__main__":
    main()
