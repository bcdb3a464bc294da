import os
import signal

from menura.training.trainer import MenuraTrainer


class AskingTrainer(MenuraTrainer):
    """Presses Ctrl-C in the middle of a step."""

    def __init__(self, *args, at_step: int, signal_name: str = "SIGINT", **kwargs):
        super().__init__(*args, **kwargs)
        self.at_step = at_step
        self.signal = signal.Signals[signal_name]

    def training_step(self, *args, **kwargs):
        if self.state.global_step + 1 == self.at_step:
            os.kill(os.getpid(), self.signal)
        return super().training_step(*args, **kwargs)
