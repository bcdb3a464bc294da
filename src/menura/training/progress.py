"""What a training shows while it runs."""

from __future__ import annotations

import time
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

_REDRAW_S = 0.25
_LINE_S = 30.0


class ProgressBar(TrainerCallback):
    """A bar with loss, samples per second and time left; a line now and then where the output is no terminal."""

    def __init__(self, console: Console, samples_per_step: int) -> None:
        self._console = console
        self._samples_per_step = samples_per_step
        self._progress: Progress | None = None
        self._bar = TaskID(0)
        self._loss = ""
        self._began = self._shown = 0.0
        self._first_step = 0

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._began = self._shown = time.monotonic()
        self._first_step = state.global_step
        if not state.is_world_process_zero or args.disable_tqdm or not self._console.is_terminal:
            return
        self._progress = Progress(
            TextColumn("training"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[numbers]}"),
            TimeRemainingColumn(compact=True),
            console=self._console,
            auto_refresh=False,
        )
        self._progress.start()
        self._bar = self._progress.add_task("", total=state.max_steps, completed=state.global_step, numbers="")

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        now = time.monotonic()
        if now - self._shown < (_LINE_S if self._progress is None else _REDRAW_S):
            return
        self._shown = now
        self._show(args, state)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        if logs and "loss" in logs:
            self._loss = f"loss {logs['loss']:.4g}  "
        if logs and "eval_loss" in logs:
            self._say(state, f"held-out loss {logs['eval_loss']:.4g}")
        if logs and "rollout_success_rate" in logs:
            low, high = logs["rollout_success_low"], logs["rollout_success_high"]
            self._say(state, f"{logs['rollout_success_rate']:.0%} succeed ({low:.0%} to {high:.0%} at 95 % confidence)")

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if self._progress is not None:
            self._show(args, state)
        self.close()

    def close(self) -> None:
        """Give the terminal back."""
        if self._progress is not None:
            self._progress.stop()
            self._progress = None

    def _say(self, state: TrainerState, text: str) -> None:
        self._console.print(f"step {state.global_step}: {text}", highlight=False, soft_wrap=True)

    def _show(self, args: TrainingArguments, state: TrainerState) -> None:
        steps = state.global_step - self._first_step
        rate = steps / max(time.monotonic() - self._began, 1e-9)
        numbers = f"{self._loss}{rate * self._samples_per_step:,.0f} samples/s"
        if self._progress is not None:
            self._progress.update(self._bar, completed=state.global_step, numbers=numbers)
            self._progress.refresh()
        elif state.is_world_process_zero and not args.disable_tqdm:
            left_s = (state.max_steps - state.global_step) / max(rate, 1e-9)
            line = f"step {state.global_step}/{state.max_steps}  {numbers}  {left_s / 60:.1f} min left"
            self._console.print(line, highlight=False)
