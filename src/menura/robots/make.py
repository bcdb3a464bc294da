"""Robots from `{class, args}`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from menura import components
from menura.clock import Clock
from menura.features import Features
from menura.robots.base import Robot, RobotError

_METHODS = ("connect", "disconnect", "get_observation", "send_action", "stopped", "over", "reset", "success")


def make_robot(
    config: components.Configured | Mapping[str, Any], project: Path | None = None, clock: Clock | None = None
) -> Robot:
    """The robot that `{class: …, args: …}` describes, not yet connected.

    Args:
        config: a ComponentConfig, as `menura.config.load_robot` gives it, or the mapping a YAML holds.
        project: where a user's own classes are looked for; the working directory by default. A class whose
            constructor has an argument `project`, with a default, is told it.
        clock: what the times of its observations are of; its own (real time) by default.

    Raises:
        ConfigError, ComponentError: no such class, or wrong arguments. RobotError: what it built is no robot.
    """
    robot = components.build("robot", config, project)
    check_interface(robot)
    if clock is not None:
        robot.clock = clock
    checked: Robot = robot
    return checked


def check_interface(robot: object) -> None:
    """Whether an object is a robot: its methods, `name` and `features`.

    Raises:
        RobotError: with what it lacks.
    """
    kind = type(robot).__name__
    missing = [method for method in _METHODS if not callable(getattr(robot, method, None))]
    if missing:
        raise RobotError(f"{kind}: expected a robot, got no {missing[0]}(). Derive it from menura.robots.Robot.")
    if not isinstance(getattr(robot, "name", None), str):
        raise RobotError(f"{kind}: expected the attribute name, a word. Set it in __init__.")
    if not isinstance(getattr(robot, "features", None), Features):
        raise RobotError(f"{kind}: expected the attribute features, a menura.features.Features. Set it in __init__.")
