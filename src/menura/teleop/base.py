"""What a teleoperator is: someone or something that drives the robot in the policy's stead while it is engaged."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from menura import components
from menura.clock import Clock, WallClock
from menura.errors import ContractError
from menura.features import Features
from menura.robots.base import Float32, Robot, RobotObservation

_METHODS = ("begin", "connect", "disconnect", "sent", "act")


class Teleoperator:
    """What every teleoperator is derived from.

    Whoever drives the robot calls `begin` and `connect`, at every control tick `act` and then `sent`, and at the end
    `disconnect`.

    Attributes:
        name: in one word, as messages and recordings call it.
        features: what its actions mean: those of the robot it was begun with, unless it has its own.
        clock: what it knows the time by. Whoever drives the robot sets it before `connect`.
    """

    name: str = "teleoperator"
    features: Features
    clock: Clock = WallClock()

    def begin(self, robot: Robot) -> None:
        """Learn which robot it drives: what its actions mean, and within which limits.

        Raises:
            ContractError: it cannot drive this robot; the message says why.
        """
        self.features = robot.features

    def connect(self) -> None:
        """Reach the device. Calling it twice is as once."""

    def disconnect(self) -> None:
        """Let go of the device. Calling it twice is as once."""

    def sent(self, action: Float32 | None) -> None:
        """(A,) what the robot was sent at this tick, whoever drove; None: a new episode begins, nothing was sent yet.

        A takeover begins from there, so that nothing jumps.
        """

    def act(self, observation: RobotObservation) -> Float32 | None:
        """(A,) float32, what the robot is to do now, in its units; None: not engaged, and the policy drives.

        It never waits: an engaged teleoperator that has nothing new repeats what holds.
        """
        raise NotImplementedError


def make_teleop(
    config: components.Configured | Mapping[str, Any], project: Path | None = None, clock: Clock | None = None
) -> Teleoperator:
    """The teleoperator that `{class: …, args: …}` describes, not yet connected; arguments as of `make_robot`.

    Raises:
        ConfigError, ComponentError: no such class, or wrong arguments. ContractError: what it built is none.
    """
    teleop = components.build("teleop", config, project)
    missing = [method for method in _METHODS if not callable(getattr(teleop, method, None))]
    if missing:
        raise ContractError(
            f"{type(teleop).__name__}: expected a teleoperator, got no {missing[0]}(). "
            "Derive it from menura.teleop.Teleoperator."
        )
    if clock is not None:
        teleop.clock = clock
    checked: Teleoperator = teleop
    return checked
