"""Steps per second of the Trainer against a bare PyTorch loop that does the same work.

Prints one JSON line. Both train the same policy on batches of the same data, with fused AdamW, clipping at 1 and a
cosine schedule, one thread each. They take turns, a block of steps each, so that a busy machine hits both; `ratio` is
the median of (seconds of the bare block) / (seconds of the Trainer's block beside it).

    python benchmarks/trainer.py [--policy mlp|cnn_mlp] [--blocks 20] [--steps 50]
"""

from __future__ import annotations

import argparse
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
from transformers import PreTrainedModel, TrainerCallback, TrainingArguments, get_scheduler, set_seed

from menura import components
from menura.config import ProcessorConfig
from menura.data import Episode, Windows, collate, windows
from menura.policies.contract import Contract, build_policy
from menura.policies.needs import Needs
from menura.processing.processor import Processor
from menura.training.trainer import MenuraTrainer

#: As the two demonstration tasks have them: (class, arguments, state width, action width, image side, batch size).
POLICIES: dict[str, tuple[str, dict[str, Any], int, int, int | None, int]] = {
    "mlp": (
        "MLPPolicy",
        {"chunk_size": 50, "n_action_steps": 25, "hidden_size": 512, "num_layers": 2},
        21,
        14,
        None,
        64,
    ),
    "cnn_mlp": ("CNNMLPPolicy", {"chunk_size": 8, "n_action_steps": 4}, 4, 4, 84, 32),
}


class RandomEpisodes:
    """Numbers and pixels of the right shapes."""

    def __init__(self, state: int, action: int, side: int | None, episodes: int = 10, steps: int = 200) -> None:
        self.state, self.action, self.side, self.episodes, self.steps = state, action, side, episodes, steps

    def __len__(self) -> int:
        return self.episodes

    def episode(self, index: int) -> Episode:
        rng = np.random.default_rng(index)
        images = {}
        if self.side is not None:
            images["camera"] = rng.integers(0, 256, (self.steps, self.side, self.side, 3), np.uint8)
        return Episode(
            state=rng.normal(size=(self.steps, self.state)).astype(np.float32),
            action=rng.normal(size=(self.steps, self.action)).astype(np.float32),
            images=images,
            fps=50,
        )


def make(name: str, cache: Path) -> tuple[PreTrainedModel, Windows, Processor, int]:
    class_name, args, state, action, side, batch_size = POLICIES[name]
    policy_class = components.load("policy", class_name, Path.cwd())
    set_seed(0)
    dataset = RandomEpisodes(state, action, side)
    data = windows(dataset, action_offsets=range(args["chunk_size"]), cache_dir=cache, progress=False)
    policy = build_policy(policy_class, args, data.features)
    assert Needs.of(policy.config).action_offsets == tuple(range(args["chunk_size"]))
    processor = Processor.build(
        ProcessorConfig(),
        data.features,
        {data.name: data.statistics()},
        policy.config,
        uses=Contract.of(policy_class).keys,
    )
    return policy, data, processor, batch_size


def bare_loop(
    policy: PreTrainedModel, data: Windows, processor: Processor, batch_size: int, steps: int
) -> Iterator[None]:
    """One optimizer step at every `next`."""
    contract = Contract.of(type(policy))
    optimizer = torch.optim.AdamW(policy.parameters(), lr=1e-3, weight_decay=0.0, fused=True)
    schedule = get_scheduler("cosine", optimizer, num_warmup_steps=100, num_training_steps=steps)
    rng = np.random.default_rng(0)
    policy.train()
    while True:
        order = rng.permutation(len(data))
        for start in range(0, len(order) - batch_size + 1, batch_size):
            batch = processor.inputs(collate(data.__getitems__(order[start : start + batch_size])))
            policy(**contract.select(batch))["loss"].backward()
            torch.nn.utils.clip_grad_norm_(policy.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
            yield


class TakeTurns(TrainerCallback):
    """Times blocks of the Trainer's steps, and between them blocks of the bare loop's."""

    def __init__(self, bare: Iterator[None], steps: int) -> None:
        self.bare, self.steps = bare, steps
        self.seconds: list[tuple[float, float]] = []
        self.began: float | None = None

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step % self.steps:
            return
        trainer_s = None if self.began is None else time.perf_counter() - self.began
        began = time.perf_counter()
        for _ in itertools.islice(self.bare, self.steps):
            pass
        bare_s = time.perf_counter() - began
        if trainer_s is not None:  # the first block of each warms up
            self.seconds.append((bare_s, trainer_s))
        self.began = time.perf_counter()


def measure(name: str, blocks: int, steps: int) -> dict[str, Any]:
    total = (blocks + 1) * steps
    with tempfile.TemporaryDirectory() as directory:
        policy, data, processor, batch_size = make(name, Path(directory))
        bare = bare_loop(*make(name, Path(directory)), steps=total)
        arguments = TrainingArguments(
            output_dir=directory,
            per_device_train_batch_size=batch_size,
            dataloader_drop_last=True,
            max_steps=total,
            learning_rate=1e-3,
            lr_scheduler_type="cosine",
            warmup_steps=100,
            logging_steps=50,
            save_strategy="no",
            report_to="none",
            use_cpu=True,
            disable_tqdm=True,
            dataloader_pin_memory=False,
            logging_nan_inf_filter=False,
            remove_unused_columns=False,
            label_names=["actions", "is_pad"],
        )
        turns = TakeTurns(bare, steps)
        MenuraTrainer(policy, arguments, train_dataset=data, processor=processor, callbacks=[turns]).train()
    return {
        "benchmark": "trainer",
        "policy": name,
        "ratio": round(statistics.median(bare_s / trainer_s for bare_s, trainer_s in turns.seconds), 3),
        "trainer_ms": round(statistics.median(trainer_s for _, trainer_s in turns.seconds) / steps * 1e3, 3),
        "bare_ms": round(statistics.median(bare_s for bare_s, _ in turns.seconds) / steps * 1e3, 3),
        "blocks": len(turns.seconds),
        "steps": steps,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--policy", choices=sorted(POLICIES), default="mlp")
    parser.add_argument("--blocks", type=int, default=20)
    parser.add_argument("--steps", type=int, default=50)
    options = parser.parse_args()
    print(json.dumps(measure(options.policy, options.blocks, options.steps)))


if __name__ == "__main__":
    main()
