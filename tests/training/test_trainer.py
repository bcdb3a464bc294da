from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from menura.data import collate
from menura.errors import ContractError, TrainingError
from menura.training.trainer import MenuraTrainer


def losses_by_hand(lab: ModuleType, steps: int, accumulate: int = 1) -> tuple[list[dict[str, float]], dict[str, Any]]:
    """What a plain loop logs and learns on the toy task: AdamW, clipping at 1, no schedule."""
    torch.manual_seed(42)
    dataset, policy = lab.ToyWindows(48), lab.ToyPolicy(lab.ToyConfig(dropout=0.0))
    processor = lab.toy_processor(dataset, policy.config)
    trainer = toy(lab, Path("unused"), max_steps=steps)
    loader = trainer.get_train_dataloader()
    optimizer = torch.optim.AdamW(policy.parameters(), lr=1e-2, weight_decay=0.0)
    logged: list[dict[str, float]] = []
    batches: list[dict[str, Any]] = []
    for epoch in range(10):
        loader.set_epoch(epoch)
        batches.extend(loader)
    for step in range(steps):
        sums: dict[str, float] = {}
        for batch in batches[step * accumulate : (step + 1) * accumulate]:
            inputs = processor.inputs(batch)
            output = policy(inputs["state"], inputs["actions"], inputs["is_pad"])
            (output["loss"] / accumulate).backward()
            for name, value in output.items():
                sums[name] = sums.get(name, 0.0) + value.item() / accumulate
        torch.nn.utils.clip_grad_norm_(policy.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        logged.append(sums)
    return logged, policy.state_dict()


def toy(lab: ModuleType, out: Path, **options: Any) -> MenuraTrainer:
    arguments = lab.toy_arguments(
        out, **{"lr_scheduler_type": "constant", "warmup_steps": 0, "save_strategy": "no", **options}
    )
    torch.manual_seed(42)
    dataset, policy = lab.ToyWindows(48), lab.ToyPolicy(lab.ToyConfig(dropout=0.0))
    trainer: MenuraTrainer = MenuraTrainer(
        policy, arguments, train_dataset=dataset, processor=lab.toy_processor(dataset, policy.config)
    )
    return trainer


@pytest.mark.parametrize("accumulate", [1, 3])
def test_it_learns_and_logs_what_a_plain_loop_does(lab: ModuleType, tmp_path: Path, accumulate: int) -> None:
    trainer = toy(lab, tmp_path, max_steps=6, logging_steps=3, gradient_accumulation_steps=accumulate)
    trainer.resume()
    steps, weights = losses_by_hand(lab, 6, accumulate)
    entries = [entry for entry in trainer.state.log_history if "loss" in entry]
    assert [entry["step"] for entry in entries] == [3, 6]
    for entry, window in zip(entries, (steps[:3], steps[3:]), strict=True):
        for name in ("loss", "first_step", "largest"):
            assert entry[name] == pytest.approx(np.mean([step[name] for step in window]), rel=1e-5)
    # The body's biases stand before a batch norm: their gradients are rounding errors, which Adam makes steps of.
    for name in ("head.weight", "head.bias"):
        torch.testing.assert_close(trainer.model.state_dict()[name], weights[name], rtol=1e-4, atol=1e-5)


def test_the_plain_step_is_trainers_own(lab: ModuleType, tmp_path: Path) -> None:
    """What is left out of Trainer's step for one process on one device changes no bit."""
    plain, trainers_own = toy(lab, tmp_path, max_steps=5), toy(lab, tmp_path, max_steps=5)
    trainers_own._plain = False
    plain.resume()
    trainers_own.resume()
    for name, weight in plain.model.state_dict().items():
        assert torch.equal(weight, trainers_own.model.state_dict()[name]), name


def test_the_order_of_samples_is_a_function_of_seed_and_epoch(lab: ModuleType, tmp_path: Path) -> None:
    def epoch(number: int, seed: int, draws: int = 0) -> list[Any]:
        torch.manual_seed(123)
        torch.rand(draws)
        loader = toy(lab, tmp_path, data_seed=seed).get_train_dataloader()
        loader.set_epoch(number)
        return torch.cat([batch["state"] for batch in loader]).tolist()

    assert epoch(0, seed=1) == epoch(0, seed=1, draws=5)
    assert epoch(0, seed=1) != epoch(1, seed=1)
    assert epoch(0, seed=1) != epoch(0, seed=2)
    assert sorted(epoch(0, seed=1)) == sorted(epoch(1, seed=2)), "each item once"


def test_reading_data_does_not_move_the_random_generator(lab: ModuleType, tmp_path: Path) -> None:
    loader = toy(lab, tmp_path).get_train_dataloader()
    assert isinstance(loader, DataLoader)
    before = torch.get_rng_state()
    list(loader)
    assert torch.equal(torch.get_rng_state(), before)


def test_workers_read_the_same_batches(lab: ModuleType, tmp_path: Path) -> None:
    batches = [
        torch.cat([batch["state"] for batch in toy(lab, tmp_path, dataloader_num_workers=n).get_train_dataloader()])
        for n in (0, 2)
    ]
    assert torch.equal(batches[0], batches[1])


def test_a_loss_that_is_not_finite_ends_the_training(lab: ModuleType, tmp_path: Path) -> None:
    trainer = toy(lab, tmp_path, max_steps=10, logging_steps=2)
    trainer.model.head.weight.data[:] = float("inf")
    with pytest.raises(TrainingError, match=r"loss: expected a finite number, got (nan|inf) after step 2\. Lower "):
        trainer.resume()


def test_config_is_saved_as_it_was(lab: ModuleType, tmp_path: Path) -> None:
    assert not hasattr(toy(lab, tmp_path).model.config, "use_cache")


def groups_of(trainer: MenuraTrainer, groups: Any) -> None:
    type(trainer.model).get_optim_groups = groups  # type: ignore[attr-defined]


def test_a_policy_groups_its_parameters(lab: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def groups(policy: Any, args: Any) -> list[dict[str, Any]]:
        return [
            {"params": policy.body.parameters(), "lr": args.learning_rate / 10},
            {"params": policy.head.parameters()},
        ]

    monkeypatch.setattr(lab.ToyPolicy, "get_optim_groups", groups, raising=False)
    trainer = toy(lab, tmp_path, max_steps=1)
    trainer.create_optimizer()
    assert [group["lr"] for group in trainer.optimizer.param_groups] == [1e-3, 1e-2]
    trainer.resume()


@pytest.mark.parametrize(
    ("pick", "message"),
    [
        (lambda policy: [policy.head.weight], "every trainable parameter once, got it wrong for body.0.bias, body.0."),
        (lambda policy: [*policy.parameters(), policy.head.bias], "no parameter twice, got it wrong for head.bias."),
    ],
)
def test_groups_hold_every_parameter_once(
    lab: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pick: Any, message: str
) -> None:
    monkeypatch.setattr(
        lab.ToyPolicy, "get_optim_groups", lambda policy, args: [{"params": pick(policy)}], raising=False
    )
    with pytest.raises(ContractError) as error:
        toy(lab, tmp_path).create_optimizer()
    assert f"ToyPolicy.get_optim_groups: expected {message}" in str(error.value)


def test_a_policy_computes_metrics_of_its_actions(
    lab: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def compute_metrics(prediction: Any) -> dict[str, float]:
        actions, is_pad = prediction.label_ids
        assert prediction.predictions.shape == actions.shape == (20, 4, 2)
        assert is_pad.shape == (20, 4)
        return {"error": float(np.abs(prediction.predictions - actions).mean())}

    monkeypatch.setattr(lab.ToyPolicy, "compute_metrics", staticmethod(compute_metrics), raising=False)
    metrics = lab.toy_trainer(tmp_path, eval_strategy="steps").evaluate()
    assert metrics["eval_error"] > 0


def test_evaluation_uses_the_averaged_weights_and_gives_them_back(lab: ModuleType, tmp_path: Path) -> None:
    trainer = lab.toy_trainer(tmp_path, ema=0.9, eval_strategy="steps", max_steps=4)
    trainer.resume()
    own = {name: weight.clone() for name, weight in trainer.model.state_dict().items()}
    averaged = trainer.evaluate()["eval_loss"]
    for name, weight in trainer.model.state_dict().items():
        assert torch.equal(weight, own[name])
    trainer.averages = None
    assert trainer.evaluate()["eval_loss"] != averaged


def test_bfloat16_and_compile_arguments_reach_trainer(lab: ModuleType, tmp_path: Path) -> None:
    trainer = toy(lab, tmp_path, max_steps=2, bf16=True, optim="sgd", max_grad_norm=0.0, full_determinism=False)
    trainer.resume()
    assert trainer.accelerator.mixed_precision == "bf16"
    assert isinstance(trainer.optimizer, torch.optim.SGD)


@pytest.mark.parametrize("accumulate", [1, 2])
def test_augmentations_draw_by_seed_rank_step_and_batch(
    lab: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, accumulate: int
) -> None:
    """No two batches of a training alike, and none like another rank's."""
    drawn: list[tuple[int, ...]] = []

    def augmentations(batch: dict[str, Any], seed: tuple[int, ...]) -> dict[str, Any]:
        drawn.append(tuple(seed))
        return batch

    trainer = lab.toy_trainer(tmp_path, max_steps=3, seed=7, gradient_accumulation_steps=accumulate, save_strategy="no")
    trainer.augmentations = augmentations
    trainer.train()
    assert drawn == [(7, 0, step, number) for step in range(3) for number in range(accumulate)]
    monkeypatch.setattr(type(trainer.args), "process_index", 1)
    trainer.model.train()
    trainer._prepare_inputs(collate(trainer.train_dataset.__getitems__([0, 1])))
    assert drawn[-1][:2] == (7, 1)
