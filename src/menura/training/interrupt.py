"""Ctrl-C and SIGTERM: finish the step, write a checkpoint, stop."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

_AGREE_EVERY = 10


class TrainingInterrupted(KeyboardInterrupt):
    """Training stopped because it was asked to, after it wrote a checkpoint. A command exits with 130."""


class StopWhenAsked(TrainerCallback):
    """Ends training after the step in which a signal came. A second signal is not caught any more."""

    def __init__(self) -> None:
        self.asked = False

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Signals are caught inside (in the main thread; elsewhere they are the caller's affair)."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

        def handle(number: int, frame: FrameType | None) -> None:
            self.asked = True
            for caught, handler in before.items():
                signal.signal(caught, handler)

        for number in before:
            signal.signal(number, handle)
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if self._all_asked(args, state) and state.global_step < state.max_steps:
            control.should_save = True
            control.should_training_stop = True

    def _all_asked(self, args: TrainingArguments, state: TrainerState) -> bool:
        """Whether any process was asked; several stop after the same step, and so look only now and then."""
        if args.world_size == 1:
            return self.asked
        if state.global_step % _AGREE_EVERY:
            return False
        asked = torch.tensor(float(self.asked), device=args.device)
        torch.distributed.all_reduce(asked, op=torch.distributed.ReduceOp.MAX)
        self.asked = bool(asked.item())
        return self.asked
