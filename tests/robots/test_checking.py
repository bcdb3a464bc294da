"""`menura check robot`: each fault is found at its stage and told in one line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from menura.cli.main import main
from menura.clock import VirtualClock
from menura.errors import ConfigError
from menura.robots.checking import check_robot

MINE = """\
import numpy as np

from menura.errors import MenuraError
from menura.features import CameraFeature, Features, VectorFeature
from menura.robots import Limits, Robot, RobotError


class MyRobot(Robot):
    def __init__(self, fault: str = "", at: float = 0.0):
        if fault == "builds":
            raise OverflowError("too many arms")
        self.name = "mine"
        self.fault, self.at = fault, at
        vector = VectorFeature(("a", "b"))
        control_type = None if fault == "control_type" else "abs"
        self.features = Features(vector, vector, {"eye": CameraFeature(2, 3)}, 20.0, control_type=control_type)
        if fault != "limits":
            self.limits = Limits.of({"low": -1, "high": 1}, vector)
        self.connected = False

    def connect(self):
        if self.connected and self.fault == "twice":
            raise RobotError("the port is taken")
        if self.fault == "driver":
            {}["port"]
        self.connected = True

    def disconnect(self):
        self.connected = False

    def get_observation(self):
        if not self.connected and self.fault != "open":
            raise RobotError("not connected")
        now = self.clock.now()
        state = np.full(2, self.at, np.float64 if self.fault == "dtype" else np.float32)
        image = np.zeros((2, 3) if self.fault == "image" else (2, 3, 3), np.uint8)
        times = {"state": now + (1.0 if self.fault == "ahead" else 0.0), "eye": now}
        if self.fault == "back":
            times["eye"] = -now
        if self.fault == "slow":
            times["eye"] = now // 0.2 * 0.2
        if self.fault == "timeless":
            del times["eye"]
        return {"state": state, "images": {} if self.fault == "blind" else {"eye": image}, "times": times}

    def send_action(self, action):
        return action * 3 + 2 if self.fault == "sent" else action

    def stopped(self):
        return "a motor is hot" if self.fault == "stopped" else None
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "robot").mkdir()
    (tmp_path / "robot" / "my_robot.py").write_text(MINE)
    return tmp_path


def lines(project: Path, hold: bool = True, **args: Any) -> list[tuple[str, bool, str]]:
    overrides = [f"--robot.args.{name}={value}" for name, value in args.items()]
    results = check_robot("my_robot", overrides, project=project, hold=hold, clock=VirtualClock(100.0))
    return [(result.name, result.ok, result.message) for result in results]


def test_a_sound_robot(project: Path) -> None:
    assert lines(project) == [
        ("builds", True, "mine"),
        ("features", True, "2 actions (abs), 2 states, eye 2x3, 20 Hz"),
        ("limits", True, "low, high"),
        ("connects", True, ""),
        ("observations", True, "state 20.0 Hz, eye 20.0 Hz, at most 0 ms old"),
        ("holds", True, "50 commands"),
        ("disconnects", True, ""),
        ("connects again", True, ""),
        ("ends disconnected", True, ""),
    ]


def test_nothing_is_sent_unless_asked(project: Path) -> None:
    assert "holds" not in [name for name, _, _ in lines(project, hold=False, fault="sent")]


@pytest.mark.parametrize(
    ("fault", "stage", "message"),
    [
        ("builds", "builds", "robot/my_robot.py:11: OverflowError: too many arms"),
        ("control_type", "features", "expected control_type abs or delta, got none"),
        ("limits", "limits", "expected limits, got none"),
        ("driver", "connects", "robot/my_robot.py:25: KeyError: 'port'"),
        ("twice", "connects", "the port is taken"),
        ("dtype", "observations", "state: expected (2,) float32, got (2,) float64"),
        ("image", "observations", "images.eye: expected (2, 3, 3) uint8, got (2, 3) uint8"),
        ("blind", "observations", "images: expected eye, as the features say, got []"),
        ("timeless", "observations", "times: expected one of each stream, got none of eye"),
        ("ahead", "observations", "times: expected those of the robot's clock, got state 1.000 s ahead"),
        ("back", "observations", "times: expected eye never to get older, got one 0.050 s back"),
        ("slow", "observations", "rates: expected 20 Hz, as the features say, got state 20.0 Hz, eye"),
        ("sent", "holds", "send_action: expected what was sent, (2,) within the limits, got [2. 2.]"),
        ("stopped", "holds", "got a robot that has stopped: a motor is hot"),
        ("open", "disconnects", "expected get_observation() to raise a RobotError when it is disconnected"),
    ],
)
def test_what_is_wrong_ends_the_list_and_the_robot_is_let_go(
    project: Path, fault: str, stage: str, message: str
) -> None:
    found = lines(project, fault=fault)
    failed = [(name, told) for name, ok, told in found if not ok]
    assert [name for name, _ in failed] == [stage]
    assert message in failed[0][1]
    assert found[-1][0] == ("builds" if stage == "builds" else "ends disconnected")


def test_a_robot_outside_its_limits_is_not_commanded(project: Path) -> None:
    found = {name: told for name, ok, told in lines(project, at=1.5) if not ok}
    assert found == {
        "holds": "expected a robot within its limits, got a at 1.5, not in [-1, 1]. Move it there, or widen them."
    }


def test_a_name_that_is_none(project: Path) -> None:
    with pytest.raises(ConfigError, match=r"no robot is named 'my_robott'"):
        check_robot("my_robott", project=project)


def test_as_a_command(project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(project)
    assert run("check", "robot", "my_robot", "--robot.args.fault=limits") == 1
    assert "FAIL limits: expected limits, got none" in capsys.readouterr().out
    assert run("check", "robot", "dummy", "--robot.args.fps", "200", "--hold") == 0
    assert "ok   holds: 50 commands" in capsys.readouterr().out


def run(*words: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main(list(words))
    return int(np.asarray(ended.value.code))
