"""Checkpoints of a Trainer: whole or absent, without pickle, and gone on from exactly."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from torch import nn
from transformers import PreTrainedModel, Trainer
from transformers.trainer_callback import ExportableState

from menura.checkpoint.adapters import has_adapters, load_adapters, load_base
from menura.checkpoint.manifest import MANIFEST_FILE, Manifest, check_hashes
from menura.errors import CheckpointError
from menura.policies.channels_last import lay_out_as_parameters
from menura.training.checkpoints import TRAINER_STATE, checkpoints, keep_newest, written_whole
from menura.training.ema import WeightAverage
from menura.training.scalars import ScalarMeans
from menura.training.state import load_tree, random_state, save_tree, set_random_state

WritePolicy = Callable[[Path, PreTrainedModel], None]


class ExactTrainer(Trainer):
    """A Trainer that, killed at any moment and resumed, ends on the CPU with the weights it would have had.

    Attributes:
        write_policy: writes a policy, its processor and what proves them into a directory.
        averages: the averaged weights, which are those evaluated and saved; None without.
    """

    # Declared narrower by Trainer than they are used there.
    model: Any
    args: Any
    state: Any
    optimizer: Any
    lr_scheduler: Any
    train_dataset: Any

    write_policy: WritePolicy
    averages: WeightAverage | None = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._train_scalars = ScalarMeans()

    def averaged_weights(self) -> AbstractContextManager[None]:
        """Inside, the policy has the weights it is evaluated and saved with."""
        return nullcontext() if self.averages is None else self.averages.applied()

    def load_best(self) -> None:
        """Give the policy the weights of the best checkpoint, if one was chosen."""
        if self.state.best_model_checkpoint is not None:
            self._load_best_model()

    def _load_best_model(self) -> None:
        if has_adapters(self.model):
            load_adapters(self.model, Path(self.state.best_model_checkpoint))
        else:
            super()._load_best_model()
        self.averages = None  # what was saved is the average already

    def save_checkpoint(self) -> Path:
        """Write `checkpoint-<step>`: a policy that can be evaluated by itself, and all that is needed to go on."""
        run, state = Path(self.args.output_dir), self.state
        final = run / f"checkpoint-{state.global_step}"
        self.store_flos()
        if state.best_global_step and (run / f"checkpoint-{state.best_global_step}").exists():
            state.best_model_checkpoint = str(run / f"checkpoint-{state.best_global_step}")
        elif state.best_global_step == state.global_step:
            state.best_model_checkpoint = str(final)
        saves = self.args.should_save
        with written_whole(final, first=saves, wait=self.accelerator.wait_for_everyone) as directory:
            if not self.args.save_only_model:
                self._save_optimizer_and_scheduler(str(directory))
                self._save_scaler(str(directory))
                self._save_rng_state(str(directory))
            if saves:
                self._collect_callback_states()
                state.save_to_json(str(directory / TRAINER_STATE))
            self.save_model(str(directory), _internal_call=True)  # last: its manifest holds the hash of every file
        if self.args.push_to_hub:
            self._push_from_checkpoint(str(final))
        if saves:
            best = Path(state.best_model_checkpoint) if state.best_model_checkpoint else None
            keep_newest(run, self.args.save_total_limit, best)
        return final

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        self.save_checkpoint()

    def _collect_callback_states(self) -> None:
        for callback in [*self.callback_handler.callbacks, self.control]:
            if isinstance(callback, ExportableState):
                self.state.stateful_callbacks[type(callback).__name__] = callback.state()

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        directory = Path(output_dir or self.args.output_dir)
        if not self.args.should_save:
            return
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "training_args.json").write_text(self.args.to_json_string(), encoding="utf-8")
        policy = self.accelerator.unwrap_model(self.model, keep_torch_compile=False)
        if state_dict is not None:  # gathered from shards: the policy here holds but a part
            policy = type(policy)(policy.config)
            policy.load_state_dict(state_dict)
        with self.averaged_weights():
            self.write_policy(directory, policy)

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        directory = Path(output_dir)
        if self.is_deepspeed_enabled or self.is_fsdp_enabled:
            super()._save_optimizer_and_scheduler(output_dir)  # sharded: their own formats
        elif self.args.should_save:
            save_tree(directory, "optimizer", self.optimizer.state_dict())
            save_tree(directory, "scheduler", self.lr_scheduler.state_dict())
            if self.averages is not None:
                save_tree(directory, "ema", self.averages.state())

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if checkpoint is None:
            return
        if self.is_deepspeed_enabled or self.is_fsdp_enabled:
            super()._load_optimizer_and_scheduler(checkpoint)
            return
        directory = Path(checkpoint)
        self.optimizer.load_state_dict(load_tree(directory, "optimizer"))
        lay_out_as_parameters(self.optimizer)
        self.lr_scheduler.load_state_dict(load_tree(directory, "scheduler"))
        if self.averages is not None:
            self.averages.load(load_tree(directory, "ema"))

    def _save_scaler(self, output_dir: str) -> None:
        if self.accelerator.scaler is not None and self.args.should_save:
            save_tree(Path(output_dir), "scaler", self.accelerator.scaler.state_dict())

    def _load_scaler(self, checkpoint: str | None) -> None:
        if self.accelerator.scaler is not None and checkpoint is not None:
            self.accelerator.scaler.load_state_dict(load_tree(Path(checkpoint), "scaler"))

    def _save_rng_state(self, output_dir: str) -> None:
        """Random generators, and the logging window as far as it is filled, of this process."""
        window = {
            "loss_sum": self._tr_loss,
            "last_logged_step": self._globalstep_last_logged,
            "scalars": self._train_scalars.state(),
        }
        save_tree(Path(output_dir), self._process_state, {"random": random_state(), "window": window})

    def _load_rng_state(self, checkpoint: str | None) -> None:
        """The last thing the Trainer restores: after its own counters were reset and the first batch was fetched."""
        if checkpoint is None:
            return
        state = load_tree(Path(checkpoint), self._process_state)
        set_random_state(state["random"])
        window = state["window"]
        self._tr_loss = window["loss_sum"].to(self.args.device)
        self._globalstep_last_logged = window["last_logged_step"]
        self._train_scalars.load(window["scalars"], self.args.device)

    @property
    def _process_state(self) -> str:
        return f"process_{self.args.process_index}"

    # ---- resume ----

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        policy: Any = self.model if model is None else model
        if not has_adapters(policy):
            super()._load_from_checkpoint(resume_from_checkpoint, model)
            return
        load_base(policy, Path(resume_from_checkpoint))
        load_adapters(policy, Path(resume_from_checkpoint))

    def _issue_warnings_after_load(self, load_result: Any) -> None:
        """Refuse what Trainer would warn of: a checkpoint that fills only a part of the policy."""
        tied = getattr(self.model, "all_tied_weights_keys", {})
        missing = [name for name in load_result.missing_keys if name not in tied]
        for what, names in (("all its weights", missing), ("no others", list(load_result.unexpected_keys))):
            if names:
                raise CheckpointError(
                    f"weights of {type(self.model).__name__}: expected {what} in the checkpoint, got it wrong for "
                    f"{', '.join(names[:3])}. The policy's code changed since; train into another output_dir."
                )

    def _run_epoch(self, *args: Any, **kwargs: Any) -> None:
        if self.state.global_step >= self.state.max_steps:
            # Killed between the last checkpoint and the run's end. Trainer itself would train one step more.
            self.control.should_training_stop = True
            return
        super()._run_epoch(*args, **kwargs)  # type: ignore[no-untyped-call]

    def resume(self) -> int:
        """Go on from the last complete checkpoint of the run, or begin; returns the number of steps done at the end."""
        found = checkpoints(Path(self.args.output_dir))
        if found and (found[-1] / MANIFEST_FILE).is_file():
            check_hashes(found[-1], Manifest.read(found[-1]))
        last = str(found[-1]) if found else self.args.resume_from_checkpoint
        return int(self.train(resume_from_checkpoint=last).global_step)
