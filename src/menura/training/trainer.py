"""The trainer: `transformers.Trainer` with Menura's batches, checkpoints without pickle, and an exact resume."""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from accelerate.optimizer import AcceleratedOptimizer  # type: ignore[import-untyped]
from accelerate.utils import DistributedType  # type: ignore[import-untyped]
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from transformers import PreTrainedModel, TrainingArguments
from transformers.trainer_callback import PrinterCallback, ProgressCallback, TrainerCallback

from menura.data import EpochSampler, ShardOrder, collate
from menura.errors import ConfigError, ContractError, TrainingError
from menura.policies.channels_last import convolve_channels_last
from menura.policies.contract import Contract, loss_and_logs, observation
from menura.processing.augmentation.base import Augmentations
from menura.processing.processor import Processor
from menura.training.checkpoints import checkpoints
from menura.training.ema import UpdateAverage, WeightAverage
from menura.training.finetuning import with_rates
from menura.training.loader import EpochLoader
from menura.training.saving import ExactTrainer, WritePolicy
from menura.training.scalars import ScalarMeans
from menura.training.state import untouched_randomness


class MenuraTrainer(ExactTrainer):
    """Trains one policy. Every field of `TrainingArguments` means what it means in `transformers`.

    Four things differ from `Trainer`: whole batches are gathered by `dataset.__getitems__` in an order that is a
    function of (seed, epoch, rank); `processor.inputs` and the policy's own signature make the arguments of `forward`;
    every scalar that `forward` returns beside the loss is averaged over the logging window; and a checkpoint is written
    whole or not at all, without pickle, so that a killed run resumes as if nothing had happened.

    A user's trainer derives from this class and is named in the task as `trainer: {class: …, args: …}`; `args` come in
    as keyword arguments. `compute_loss`, `create_optimizer` and the rest may be overridden as in any `Trainer`.

    Args:
        policy: what is trained.
        args: training arguments, as `menura.training.arguments` makes them.
        train_dataset: `menura.data.windows` or a `Mixture` of them.
        processor: makes model inputs of batches.
        eval_dataset: held-out windows; None when `eval_strategy` is "no".
        augmentations: change what the policy sees in training, never in evaluation; drawn from (seed, rank, step).
        shuffle_buffer: draw shard by shard, shuffled among so many frames (`ShardOrder`); None to draw from everywhere.
        learning_rates: pattern of parameter names -> their own rate (`menura.training.finetuning.with_rates`).
        ema_decay: averages the weights when given (`menura.training.ema`); the average is what is evaluated and saved.
        write_policy: writes a policy, its processor and what proves them into a directory.
        callbacks: further `transformers` callbacks.
    """

    # What a policy returns as loss is a mean over its batch: the Trainer divides it by the accumulation steps.
    loss_is_scaled_for_ga = False

    def __init__(
        self,
        policy: PreTrainedModel,
        args: TrainingArguments,
        *,
        train_dataset: Dataset[Any],
        processor: Processor,
        eval_dataset: Dataset[Any] | None = None,
        augmentations: Augmentations | None = None,
        shuffle_buffer: int | None = None,
        learning_rates: Mapping[str, float] | None = None,
        ema_decay: float | None = None,
        write_policy: WritePolicy | None = None,
        callbacks: list[TrainerCallback] | None = None,
    ) -> None:
        if args.gradient_checkpointing and not policy.supports_gradient_checkpointing:
            raise ContractError(
                f"training.gradient_checkpointing: expected a policy that supports it, got {type(policy).__name__}. "
                "Remove it, or derive the layers from transformers.modeling_layers.GradientCheckpointingLayer and set "
                "supports_gradient_checkpointing = True in the policy's class."
            )
        had_use_cache = hasattr(policy.config, "use_cache")
        super().__init__(
            model=policy,
            args=args,
            data_collator=collate,
            train_dataset=train_dataset,
            eval_dataset=eval_dataset,
            compute_metrics=getattr(policy, "compute_metrics", None),
            callbacks=callbacks,
        )
        if not had_use_cache:
            del policy.config.use_cache  # Trainer writes its own argument into every model's config
        self.remove_callback(ProgressCallback)
        self.remove_callback(PrinterCallback)
        convolve_channels_last(policy)
        self._bf16 = self._take_over_bf16()
        self.processor = processor.to(args.device)
        self.contract = Contract.of(type(policy))
        self.augmentations = augmentations
        self.shuffle_buffer = shuffle_buffer
        self.learning_rates = dict(learning_rates or {})
        self._rates_of_patterns: dict[str, float] = {}
        self._batches_of_step = (-1, 0)
        self.write_policy = write_policy or self._write_policy_alone
        if ema_decay is not None:
            if self.is_fsdp_enabled or self.is_deepspeed_enabled:
                raise ConfigError(
                    "training.ema: expected whole weights on every device, got FSDP or DeepSpeed. Remove it."
                )
            self.averages = WeightAverage(policy, ema_decay)
            self.add_callback(UpdateAverage(self.averages))
        self._plain = self._steps_plainly()
        self._eval_scalars = ScalarMeans()

    # ---- data and loss ----

    def get_train_dataloader(self) -> DataLoader:  # type: ignore[type-arg]
        args = self.args
        seed = args.seed if args.data_seed is None else args.data_seed
        order = self._order(seed)
        return EpochLoader(
            self.train_dataset,
            order,
            batch_size=self._train_batch_size,
            drop_last=args.dataloader_drop_last,
            collate=self.data_collator,
            seed=seed,
            num_workers=args.dataloader_num_workers,
            pin_memory=args.dataloader_pin_memory,
            persistent_workers=args.dataloader_persistent_workers,
            prefetch_factor=args.dataloader_prefetch_factor,
            in_order=args.dataloader_in_order,
            multiprocessing_context=args.dataloader_multiprocessing_context,
        )

    def _order(self, seed: int) -> EpochSampler | ShardOrder:
        args = self.args
        ranks = {"rank": args.process_index, "world_size": args.world_size}
        if self.shuffle_buffer is None:
            return EpochSampler(self.train_dataset, seed=seed, **ranks)
        streams, buffer = max(1, args.dataloader_num_workers), self.shuffle_buffer
        return ShardOrder(
            self.train_dataset, self._train_batch_size, seed=seed, buffer=buffer, streams=streams, **ranks
        )

    def _prepare_inputs(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """What `processor.inputs` makes of a collated batch, on the device; in training augmented."""
        batch = self.processor.inputs(inputs)
        if self.augmentations is None or not self.model.training:
            return batch
        step, number = self.state.global_step, 0
        if step == self._batches_of_step[0]:  # gradients of several batches are accumulated
            number = self._batches_of_step[1] + 1
        self._batches_of_step = (step, number)
        return self.processor.masked(self.augmentations(batch, (self.args.seed, self.args.process_index, step, number)))

    def training_step(
        self, model: nn.Module, inputs: dict[str, Any], num_items_in_batch: Tensor | int | None = None
    ) -> Tensor:
        if not self._plain:
            stepped: Tensor = super().training_step(model, inputs, num_items_in_batch)
            return stepped
        # What Trainer does, without walking all modules and dividing twice: 4 % of a small policy's time.
        if not model.training:
            model.train()
        batch = self._prepare_inputs(inputs)
        with self.autocast_smart_context_manager():
            loss = self.compute_loss(model, batch).float()
        if self.current_gradient_accumulation_steps > 1:
            loss = loss / self.current_gradient_accumulation_steps
        loss.backward()
        detached: Tensor = loss.detach()
        return detached

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """The policy's loss on a processed batch; its other scalars go to the log."""
        output = model(**self.contract.select(inputs))
        loss, scalars = loss_and_logs(output, self.contract.policy)
        (self._train_scalars if model.training else self._eval_scalars).add(scalars)
        return (loss, output) if return_outputs else loss

    def prediction_step(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        prediction_loss_only: bool,
        ignore_keys: list[str] | None = None,
    ) -> tuple[Any, Any, Any]:
        """(loss, predictions, labels) of a held-out batch.

        For a policy's `compute_metrics(EvalPrediction)`, predictions are what `select_action` answers, (B, T, A), and
        `label_ids` are (`actions`, `is_pad`), all in normalized units.
        """
        batch = self._prepare_inputs(inputs)
        with torch.no_grad(), self.compute_loss_context_manager():
            loss = self.compute_loss(model, batch).detach().float()
        if prediction_loss_only:
            return loss, None, None
        with torch.no_grad():
            predicted = self.model.select_action(observation(batch))
        return loss, predicted.detach(), (batch["actions"], batch["is_pad"])

    def floating_point_ops(self, inputs: Mapping[str, Any]) -> int:
        return 0  # Trainer's formula is that of a language model.

    # ---- optimizer and averaged weights ----

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """The optimizer of `training.optim`, over `policy.get_optim_groups(training_args)` where the policy has it.

        `training.learning_rates` come before the policy's own rates, and these before `training.learning_rate`.
        """
        policy: Any = self.model if model is None else model
        if self.optimizer is None and (self.learning_rates or hasattr(policy, "get_optim_groups")):
            groups = self._groups(policy)
            _check_groups(policy, groups)
            optimizer_class, options = self.get_optimizer_cls_and_kwargs(self.args, policy)
            self.optimizer = optimizer_class(with_rates(policy, groups, self.learning_rates), **options)
        return super().create_optimizer(model)

    def _groups(self, policy: Any) -> list[dict[str, Any]]:
        """The policy's own, else those of Trainer: with weight decay, and without (biases and norms)."""
        if hasattr(policy, "get_optim_groups"):
            return [dict(group) for group in policy.get_optim_groups(self.args)]
        decays = set(self.get_decay_parameter_names(policy))
        named = [(name, parameter) for name, parameter in policy.named_parameters() if parameter.requires_grad]
        return [
            {"params": [p for name, p in named if name in decays], "weight_decay": self.args.weight_decay},
            {"params": [p for name, p in named if name not in decays], "weight_decay": 0.0},
        ]

    def create_scheduler(self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None) -> Any:
        if self._plain and isinstance(self.optimizer, AcceleratedOptimizer):
            # The wrapper looks for an optional package on the disk twice a step: 6 % of a small policy's time.
            self.optimizer = self.optimizer.optimizer
        return super().create_scheduler(num_training_steps, optimizer)

    def _clip_grad_norm(self, model: nn.Module) -> Any:
        if self._plain:
            return nn.utils.clip_grad_norm_(model.parameters(), self.args.max_grad_norm)
        return super()._clip_grad_norm(model)  # type: ignore[no-untyped-call]

    def autocast_smart_context_manager(self, cache_enabled: bool | None = True) -> AbstractContextManager[Any]:
        """Inside, `forward` computes in bfloat16 where `bf16` says so; weights and optimizer are float32 all the same.

        accelerate would change the policy's own `forward` for good, so that a `select_action` that calls it answered
        otherwise than it does once it is loaded.
        """
        if self._bf16:
            return torch.autocast(self.args.device.type, torch.bfloat16)
        return nullcontext()

    def _take_over_bf16(self) -> bool:
        """Whether it is ours to see to bfloat16, and not FSDP's or DeepSpeed's; accelerate then leaves it alone."""
        ours = self.args.bf16 and not (self.is_fsdp_enabled or self.is_deepspeed_enabled)
        if ours:
            self.accelerator.native_amp = False
        return bool(ours)

    def _steps_plainly(self) -> bool:
        """One process, one device, no loss scaling: accelerate has nothing to add to PyTorch's own step."""
        args = self.args
        special = args.torch_empty_cache_steps is not None or "schedule_free" in args.optim or "lomo" in args.optim
        one = self.accelerator.distributed_type == DistributedType.NO and args.n_gpu <= 1
        return one and self.accelerator.scaler is None and not special

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        with untouched_randomness(), self.averaged_weights():
            return super().evaluate(*args, **kwargs)

    # ---- log ----

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        if "loss" in logs:
            self._require_finite(logs["loss"])
            logs.update(self._train_scalars.take(self.accelerator))
            logs.update(self._rates_of_patterns)
        elif "eval_loss" in logs:
            logs.update({f"eval_{name}": value for name, value in self._eval_scalars.take(self.accelerator).items()})
        super().log(logs, start_time)

    def _get_learning_rate(self) -> float:
        """Trainer asks before the scheduler goes on; the rates of `training.learning_rates` are of the same moment."""
        groups = self.optimizer.param_groups if self.learning_rates else ()
        self._rates_of_patterns = {f"learning_rate/{g['pattern']}": float(g["lr"]) for g in groups if "pattern" in g}
        return float(super()._get_learning_rate())

    def _require_finite(self, loss: float) -> None:
        if not math.isfinite(loss):
            last = checkpoints(Path(self.args.output_dir))
            raise TrainingError(
                f"loss: expected a finite number, got {loss} after step {self.state.global_step}. Lower "
                "training.learning_rate, or look for infinite values in the policy; "
                f"{f'{last[-1]} is the last checkpoint' if last else 'there is no checkpoint yet'}."
            )

    def _write_policy_alone(self, directory: Path, policy: PreTrainedModel) -> None:
        policy.save_pretrained(directory, save_original_format=False)
        self.processor.save_pretrained(directory)


def _check_groups(policy: nn.Module, groups: list[dict[str, Any]]) -> None:
    """Refuse groups that leave a trainable parameter out or hold one twice."""
    names = {id(p): name for name, p in policy.named_parameters() if p.requires_grad}
    for group in groups:
        group["params"] = [group["params"]] if isinstance(group["params"], Tensor) else list(group["params"])
    given = [id(p) for group in groups for p in group["params"]]
    forgotten = sorted(name for key, name in names.items() if key not in given)
    twice = sorted(names.get(key, "a frozen parameter") for key in set(given) if given.count(key) > 1)
    for what, found in (("every trainable parameter once", forgotten), ("no parameter twice", twice)):
        if found:
            raise ContractError(
                f"{type(policy).__name__}.get_optim_groups: expected {what}, got it wrong for {', '.join(found[:3])}"
                f"{f' and {len(found) - 3} more' if len(found) > 3 else ''}. Put each into exactly one group."
            )
