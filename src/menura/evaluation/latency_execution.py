"""How chunks are executed when answers take time: latency, controller and control rate, as asked for. Torch-free."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from menura.config import ComponentConfig, load_controller
from menura.control.controllers.make import make_controller
from menura.errors import ConfigError
from menura.evaluation.latency_model import LatencyModel

if TYPE_CHECKING:
    from menura.control.controllers.base import Controller
    from menura.evaluation.latency_session import LatencySession
    from menura.evaluation.messages import Description
    from menura.meta_policy import MetaPolicy
    from menura.served_policy import ServedPolicy

DEFAULT_CONTROLLER = "real_time_chunking"
#: All that Menura has, from what ignores the delay to what plans with it.
CONTROLLERS = (
    "newest",
    "oldest_first",
    "temporal_ensemble",
    "delay_compensated",
    "interpolating",
    "real_time_chunking",
)


@dataclass(frozen=True)
class DelayedExecution:
    """How predicted chunks are executed when answers take time; takes the place of `OpenLoop` and the like.

    Attributes:
        latency: of each inference.
        controller: what commands are made by: its name, as it was asked for.
        control_hz: rate of commands; None: the environment's.
        project: where a user's own controller is.
        overrides: of the controller, as on the command line: `["--controller.args.kind", "cubic"]`.
        config: what the name stands for.
    """

    latency: LatencyModel
    controller: str = DEFAULT_CONTROLLER
    control_hz: float | None = None
    project: Path | None = None
    overrides: Sequence[str] = ()
    config: ComponentConfig = field(init=False)

    def __post_init__(self) -> None:
        if self.control_hz is not None and not self.control_hz > 0:
            raise ConfigError(f"control_hz: expected a rate above 0, got {self.control_hz:g}.")
        object.__setattr__(self, "config", load_controller(self.controller, self.overrides, self.project))

    def describe(self, fps: float) -> dict[str, Any]:
        """The part of the protocol, for an environment of that rate."""
        return {
            "name": "delayed",
            "latency": str(self.latency),
            "control_hz": self.control_hz or fps,
            "controller": self.controller,
            "controller_args": dict(self.config.args),
        }

    def new_controller(self, n_action_steps: int | None = None) -> Controller:
        """One that knows no episode yet; `n_action_steps` is the policy's."""
        return make_controller(self.config, n_action_steps, self.project)

    def session(
        self, policy: MetaPolicy | ServedPolicy, num_envs: int, environment: Description, exact: bool = False
    ) -> LatencySession:
        """The state of `num_envs` episodes in that environment."""
        from menura.evaluation.latency_session import LatencySession

        return LatencySession(policy, self, num_envs, environment.max_episode_steps, exact)


def suffix_of(execution: object) -> str:
    """Of the directory of an evaluation, so that one with latency does not take the place of the one without."""
    return "latency" if isinstance(execution, DelayedExecution) else ""
