"""A training of a task that may kill itself, run in a process of its own by the fixture `train_in_child`.

`SETTINGS`: `directory` to run in, `kill_at`: completed steps after which it dies, and what `menura.train` takes.
"""

import os
import signal
from typing import Any

from menura.training.run import train
from menura.training.trainer import MenuraTrainer

SETTINGS: dict[str, Any] = globals().get("SETTINGS", {})


def die_after(steps: int) -> None:
    """In the middle of the next step: its loss is computed, its weights are not."""
    compute = MenuraTrainer.compute_loss

    def compute_loss(self: MenuraTrainer, *args: Any, **kwargs: Any) -> Any:
        result = compute(self, *args, **kwargs)
        if self.state.global_step == steps:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    MenuraTrainer.compute_loss = compute_loss  # type: ignore[method-assign]


if SETTINGS:
    given = dict(SETTINGS)
    os.chdir(given.pop("directory"))
    os.environ["MENURA_CACHE"] = given.pop("cache")
    die_after(given.pop("kill_at"))
    train(**given)
