"""A simulated robot, driven, recorded and broken: it holds, the log says why, and every episode is whole."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from menura.control.loop import SafetySettings
from menura.control.run import REPORT_FILE, ControlReport, control
from menura.control.status import Status
from menura.control.watchdog import WatchdogSettings
from menura.data import open_dataset

PATIENT = WatchdogSettings(max_observation_age_s=30.0, max_inference_s=30.0, patience_s=60.0, robot_patience_s=60.0)
#: Of what breaks: the machine may be busy, so that only what lasts ends an episode.
QUICK = WatchdogSettings(max_observation_age_s=1.0, max_inference_s=1.0, patience_s=1.5, robot_patience_s=1.0)


class Course:
    """Looks on, and breaks something at the tenth command."""

    def __init__(self, break_it: Any) -> None:
        self.statuses: list[Status] = []
        self._break_it = break_it

    def __call__(self, status: Status) -> None:
        self.statuses.append(status)
        if len([one for one in self.statuses if one.action is not None]) == 10:
            self._break_it()


def camera_stops(robot: Any, policy: Any) -> None:
    robot.camera_stopped = True


def robot_disconnects(robot: Any, policy: Any) -> None:
    robot.disconnect()


def policy_says_nan(robot: Any, policy: Any) -> None:
    policy.answer = lambda obs: np.full((1, 20, 3), np.nan, np.float32)


def policy_raises(robot: Any, policy: Any) -> None:
    policy.problem = ZeroDivisionError("division by zero")


@pytest.mark.parametrize(
    ("break_it", "source", "why"),
    [
        (camera_stops, "observation", "front: expected it to be at most 1 s old"),
        (robot_disconnects, "robot", "expected it to be connected"),
        (policy_says_nan, "policy", "expected finite actions, got NaN"),
        (policy_raises, "policy", "ZeroDivisionError: division by zero"),
    ],
)
def test_it_holds_says_why_and_what_was_recorded_is_whole(
    break_it: Any, source: str, why: str, simulated: Any, make_policy: Any, tmp_path: Path
) -> None:
    policy, console = make_policy(simulated), Console(file=io.StringIO(), width=200)
    steps = iter(np.linspace(0.0, 0.9, 10_000))
    policy.answer = lambda obs: np.full((1, 20, 3), next(steps), np.float32)  # it never wants to stay

    def drive(seconds: float, watchdog: WatchdogSettings, *observers: Any) -> ControlReport:
        return control(
            policy,
            simulated,
            max_seconds=seconds,
            watchdog=watchdog,
            observers=observers,
            record=tmp_path / "data",
            output_dir=tmp_path / "out",
            safety=SafetySettings(slow_start_s=0.0),
            console=console,
        )

    (before,) = drive(0.3, PATIENT).episodes
    course = Course(lambda: break_it(simulated, policy))
    report = drive(60.0, QUICK, course)
    (episode,) = report.episodes

    assert (episode.ended, report.exit_code) == ("fault", 1)
    held = course.statuses[-5:]
    assert {status.mode for status in held} == {"hold"}
    for status in held:
        if status.action is not None:  # the robot takes commands
            np.testing.assert_array_equal(status.action, simulated.commands[-1])
    assert [fault.source for fault in episode.faults if why in fault.message] == [source]
    assert why in console.file.getvalue()  # type: ignore[attr-defined]
    written = json.loads((tmp_path / "out" / REPORT_FILE).read_text())
    assert why in written["problem"]

    dataset = open_dataset(tmp_path / "data")
    assert [len(dataset.episode(index)) for index in range(len(dataset))] == [before.recorded, episode.recorded]
    recorded = dataset.episode(1)
    assert source in {fault["source"] for fault in recorded.extra["control"]["faults"]}
    assert len(recorded.images["front"]) == len(recorded)
    assert recorded.images["front"][len(recorded) - 1].shape == (16, 16, 3)
    np.testing.assert_array_equal(recorded.action[-1], simulated.commands[-1])
