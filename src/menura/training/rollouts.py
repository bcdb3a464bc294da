"""Rollouts in the environment while training."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from accelerate.utils import broadcast_object_list  # type: ignore[import-untyped]
from transformers import PreTrainedModel, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from menura.config.schema import RolloutsConfig
from menura.training.state import untouched_randomness

if TYPE_CHECKING:
    from menura.evaluation.results import Results
    from menura.training.trainer import MenuraTrainer


def training_results(state: TrainerState, config: RolloutsConfig | None) -> str | None:
    """Markdown for the model card: what the rollouts and the held-out episodes said of the weights that are left."""
    step = state.best_global_step or state.global_step
    found = {key: value for entry in state.log_history if entry["step"] == step for key, value in entry.items()}
    lines = []
    if config is not None and "rollout_success_rate" in found:
        rate, low, high = (found[f"rollout_success_{name}"] for name in ("rate", "low", "high"))
        lines.append(
            f"{rate:.1%} of {config.episodes} validation episodes succeeded after step {step} (95 % interval "
            f"{low:.1%} to {high:.1%}). "
            + ("The step was chosen by these episodes, so that the rate is too high; m" if config.select_best else "M")
            + "easure it on others: `menura eval -m .`."
        )
    if "eval_loss" in found:
        lines.append(f"The loss on held-out episodes was {found['eval_loss']:.4g} after step {step}.")
    return "\n\n".join(lines) or None


class Rollouts(TrainerCallback):
    """Evaluates the policy every `config.every` steps and after the last one, on the same validation episodes.

    The random generators, and so the weights, are those of a run without rollouts. The log gets the success rate and
    its 95 % interval. With `select_best` the step with the highest success rate is kept as a checkpoint and becomes
    the run's policy; of equal ones the latest, which saw the most data.
    """

    def __init__(
        self, trainer: MenuraTrainer, config: RolloutsConfig, evaluate: Callable[[PreTrainedModel, int], Results]
    ) -> None:
        self.trainer = trainer
        self.config = config
        self.evaluate = evaluate

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if state.global_step % self.config.every and state.global_step < state.max_steps:
            return
        numbers = self._run(state)
        should_log = control.should_log
        self.trainer.log(dict(numbers))
        control.should_log = should_log  # logging cleared it, but the loss of this step's window is still to be logged
        rate = numbers["rollout_success_rate"]
        if self.config.select_best and (state.best_metric is None or rate >= state.best_metric):
            state.best_metric = rate
            state.best_global_step = state.global_step
            control.should_save = True

    def _run(self, state: TrainerState) -> dict[str, float]:
        trainer = self.trainer
        numbers: list[Any] = [None]
        if state.is_world_process_zero:
            policy = trainer.accelerator.unwrap_model(trainer.model, keep_torch_compile=False)
            with untouched_randomness(), trainer.averaged_weights():
                policy.eval()
                results = self.evaluate(policy, state.global_step)
                policy.train()
            low, high = results.interval
            numbers[0] = {
                "rollout_success_rate": results.success_rate,
                "rollout_success_low": low,
                "rollout_success_high": high,
            }
        broadcast_object_list(numbers)  # no more than a copy where there is one process
        found: dict[str, float] = numbers[0]
        return found
