"""`menura check robot`: what a robot says of itself, what it senses and when, and whether it takes what holds it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from menura.clock import Clock
from menura.config import load_robot
from menura.control.hold import hold_action
from menura.errors import MenuraError
from menura.policies.checking.result import CheckResult
from menura.robots.base import Robot, RobotError, RobotObservation
from menura.robots.make import make_robot
from menura.user_code import naming_users_line

_OBSERVATIONS = 50
#: How far a capture may lie ahead of the clock (s): it was read a moment before.
_AHEAD_S = 1e-3
#: A stream that comes at less than this share of the robot's fps is too slow.
_FAST_ENOUGH = 0.8


def check_robot(
    name: str,
    overrides: Sequence[str] = (),
    *,
    project: Path | None = None,
    hold: bool = False,
    clock: Clock | None = None,
) -> list[CheckResult]:
    """Builds a robot, connects it, reads it, and disconnects it: one result a stage, the first failure ends the list.

    Args:
        name, overrides: as of `menura.config.load_robot`.
        project: where the user's own classes are; the working directory by default.
        hold: also command it to stay where it is.
        clock: real time by default.

    Raises:
        ConfigError: no such robot, or wrong arguments.
    """
    project = project or Path.cwd()
    config = load_robot(name, overrides, project)
    results: list[CheckResult] = []
    robots: list[Robot] = []

    def build() -> str:
        robots.append(make_robot(config, project, clock))
        return robots[0].name

    if not _tried("builds", build, results, project):
        return results
    stages: list[tuple[str, Callable[[Robot], str]]] = [
        ("features", _features),
        ("limits", _limits),
        ("connects", _connects),
        ("observations", _observations),
        *([("holds", _holds)] if hold else []),
        ("disconnects", _disconnects),
        ("connects again", _connects),
    ]
    try:
        for stage, check in stages:
            if not _tried(stage, lambda check=check: check(robots[0]), results, project):  # type: ignore[misc]
                break
    finally:
        _tried("ends disconnected", lambda: _let_go(robots[0]), results, project)
    return results


def _tried(stage: str, check: Callable[[], str], results: list[CheckResult], project: Path) -> bool:
    """Whether it went well; adds what is to be said."""
    try:
        with naming_users_line(project, RobotError):
            results.append(CheckResult(stage, True, check()))
    except MenuraError as error:
        results.append(CheckResult(stage, False, str(error)))
    except Exception as error:  # noqa: BLE001  whatever a driver raises is what is reported
        results.append(CheckResult(stage, False, f"{type(error).__name__}: {error}"))
    return results[-1].ok


def _features(robot: Robot) -> str:
    features = robot.features
    if not features.action.dim or not features.fps > 0:
        raise RobotError(
            f"expected an action and fps above 0, got {features.action.dim} dimensions and {features.fps}."
        )
    if features.control_type is None:
        raise RobotError(
            "expected control_type abs or delta, got none: nobody could tell what holds the robot. Set it in features."
        )
    cameras = ", ".join(f"{name} {camera.height}x{camera.width}" for name, camera in features.cameras.items())
    return (
        f"{features.action.dim} actions ({features.control_type}), {features.state_dim} states, "
        f"{cameras or 'no camera'}, {features.fps:g} Hz"
    )


def _limits(robot: Robot) -> str:
    limits = robot.limits
    if limits is None:
        raise RobotError("expected limits, got none: without them it is not driven. Set low and high at least.")
    if limits.low.shape != (robot.features.action_dim,):
        raise RobotError(f"expected {robot.features.action_dim} of each, as the action has, got {limits.low.size}.")
    more = [name for name in ("velocity", "step", "workspace") if getattr(limits, name) is not None]
    return ", ".join(["low", "high", *more])


def _connects(robot: Robot) -> str:
    robot.connect()
    robot.connect()  # twice is as once
    return ""


def _observations(robot: Robot) -> str:
    """So many readings at the robot's rate; what they hold, and their times."""
    times: dict[str, list[float]] = {}
    oldest_s = 0.0
    begun_s = robot.clock.now()
    for number in range(_OBSERVATIONS):
        robot.clock.sleep_until(begun_s + number / robot.features.fps)
        observation = robot.get_observation()
        now_s = robot.clock.now()
        _check_observation(robot, observation)
        for stream, time_s in observation["times"].items():
            seen = times.setdefault(stream, [])
            if seen and time_s < seen[-1]:
                raise RobotError(
                    f"times: expected {stream} never to get older, got one {seen[-1] - time_s:.3f} s back."
                )
            if time_s > now_s + _AHEAD_S:
                raise RobotError(
                    f"times: expected those of the robot's clock, got {stream} {time_s - now_s:.3f} s ahead of it. "
                    "Use self.clock.now()."
                )
            oldest_s = max(oldest_s, now_s - time_s)
            seen.append(time_s)
    passed_s = robot.clock.now() - begun_s
    rates = {stream: (len(set(seen)) - 1) / passed_s for stream, seen in times.items()}
    # Where the machine is busy it is read less often than it senses: then something new at each reading is enough.
    slow = [
        stream
        for stream, rate in rates.items()
        if rate < _FAST_ENOUGH * robot.features.fps and len(set(times[stream])) < _FAST_ENOUGH * _OBSERVATIONS
    ]
    told = ", ".join(f"{stream} {rate:.1f} Hz" for stream, rate in rates.items())
    if slow:
        raise RobotError(f"rates: expected {robot.features.fps:g} Hz, as the features say, got {told}.")
    return f"{told}, at most {1000 * oldest_s:.0f} ms old"


def _check_observation(robot: Robot, observation: RobotObservation) -> None:
    features, state = robot.features, observation["state"]
    if features.state is not None:
        if state.shape != (features.state_dim,) or state.dtype != np.float32:
            raise RobotError(f"state: expected ({features.state_dim},) float32, got {state.shape} {state.dtype}.")
        if not np.isfinite(state).all():
            raise RobotError(f"state: expected finite numbers, got {state.tolist()}.")
    for name, camera in features.cameras.items():
        image = observation["images"].get(name)
        if image is None:
            raise RobotError(f"images: expected {name}, as the features say, got {list(observation['images'])}.")
        if image.shape != (camera.height, camera.width, 3) or image.dtype != np.uint8:
            expected = f"({camera.height}, {camera.width}, 3) uint8"
            raise RobotError(f"images.{name}: expected {expected}, got {image.shape} {image.dtype}.")
    streams = [*(["state"] if features.state_dim else []), *features.cameras]
    missing = [stream for stream in streams if stream not in observation["times"]]
    if missing:
        raise RobotError(f"times: expected one of each stream, got none of {missing[0]}.")


def _holds(robot: Robot) -> str:
    """What keeps it where it is, for as many commands as were read."""
    last = None
    limits = robot.limits
    assert limits is not None  # checked before
    begun_s = robot.clock.now()
    for number in range(_OBSERVATIONS):
        action = hold_action(robot.features, last, robot.get_observation()["state"])
        if action is None:
            return "not tried: the state does not tell what would hold it before it was commanded"
        if not limits.within(action):
            outside = [
                f"{name} at {value:g}, not in [{low:g}, {high:g}]"
                for name, value, low, high in zip(
                    robot.features.action.names, action, limits.low, limits.high, strict=True
                )
                if not low <= value <= high
            ]
            raise RobotError(f"expected a robot within its limits, got {outside[0]}. Move it there, or widen them.")
        last = robot.send_action(action)
        if last is None or last.shape != action.shape or not limits.within(last):
            raise RobotError(f"send_action: expected what was sent, ({action.size},) within the limits, got {last}.")
        if (why := robot.stopped()) is not None:
            raise RobotError(f"expected it to go on, got a robot that has stopped: {why}.")
        robot.clock.sleep_until(begun_s + (number + 1) / robot.features.fps)
    return f"{_OBSERVATIONS} commands"


def _disconnects(robot: Robot) -> str:
    robot.disconnect()
    robot.disconnect()  # twice is as once
    try:
        robot.get_observation()
    except RobotError:
        return ""
    raise RobotError("expected get_observation() to raise a RobotError when it is disconnected, got an observation.")


def _let_go(robot: Robot) -> str:
    robot.disconnect()
    return ""
