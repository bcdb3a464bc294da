"""`menura control`, from the names on the command line to the report and the dataset."""

from __future__ import annotations

import io
import json
import os
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from menura.cli.main import main
from menura.cli.words import split_words
from menura.config import load_robot
from menura.control.dashboard import Dashboard, line
from menura.control.loop import SafetySettings
from menura.control.operator import HELP_CAPITALS, Operator
from menura.control.run import REPORT_FILE, control
from menura.control.status import Status
from menura.control.watchdog import WatchdogSettings
from menura.data import open_dataset
from menura.errors import ConfigError, ContractError, DataError, FeatureMismatch
from menura.features import Features, VectorFeature
from menura.robots import RobotError, make_robot
from menura.teleop.terminal import Terminal

#: What a busy machine does not use up.
PATIENT = WatchdogSettings(max_observation_age_s=30.0, max_inference_s=30.0, patience_s=60.0, robot_patience_s=60.0)
SETTINGS: dict[str, Any] = {
    "control_hz": 100.0,
    "safety": SafetySettings(slow_start_s=0.0),
    "watchdog": PATIENT,
}


def once(action: Any) -> Any:
    """An observer that does something once, a moment after the robot moves."""
    seen: list[float] = []

    def look(status: Status) -> None:
        if status.action is not None and len(seen) < 10:
            seen.append(status.time_s)
            if len(seen) == 10:
                action(status)

    return look


@pytest.fixture
def console() -> Console:
    return Console(file=io.StringIO(), width=200)


def test_episodes_a_report_and_a_dataset(make_arm: Any, make_policy: Any, console: Console, tmp_path: Path) -> None:
    arm = make_arm()
    run = {**SETTINGS, "task": "wave", "episodes": 2, "max_seconds": 0.2, "console": console, "seed": 7}
    where = {"record": tmp_path / "data", "output_dir": tmp_path / "out"}
    report = control(make_policy(arm), arm, **run, **where)
    assert report.exit_code == 0
    assert [episode.ended for episode in report.episodes] == ["time", "time"]
    written = json.loads((tmp_path / "out" / REPORT_FILE).read_text())
    assert len(written["episodes"]) == 2
    assert written["episodes"][1]["timing"]["jitter_ms"]["count"] > 5
    dataset = open_dataset(tmp_path / "data")
    assert len(dataset) == 2
    assert [dataset.episode(index).seed for index in range(2)] == [7, 8]
    assert (dataset.features.fps, dataset.episode(0).task) == (50.0, "wave")
    said = console.file.getvalue()  # type: ignore[attr-defined]
    assert "Episode 1: time: 0.2 s are over\n" in said
    assert "inference" in said
    with pytest.raises(RobotError, match="expected it to be connected"):  # it was let go
        arm.get_observation()
    report = control(make_policy(arm), arm, **{**run, "episodes": 1}, **where)  # goes on with the dataset
    assert len(open_dataset(tmp_path / "data")) == 3


def test_robot_and_controller_by_name(make_policy: Any, console: Console, tmp_path: Path) -> None:
    policy = make_policy(make_robot(load_robot("dummy")), fps=30.0)
    policy.answer = lambda obs: np.zeros((1, 20, 6), np.float32)
    overrides = ["--robot.args.fps", "100", "--controller.args.fraction", "0.5"]
    seen: list[Status] = []
    report = control(
        policy,
        "dummy",
        controller="oldest_first",
        overrides=overrides,
        max_seconds=0.1,
        observers=[seen.append],
        console=console,
        watchdog=PATIENT,
    )
    assert report.episodes[0].timing.control_hz == pytest.approx(100.0)  # the robot's fps
    assert "policy" in {status.mode for status in seen}


LINE = """\
import numpy as np

from menura.envs.base import Outcome, SimEnv
from menura.features import Features, VectorFeature


class Line(SimEnv):
    def __init__(self):
        x = VectorFeature(("x",))
        self.features = Features(x, x, fps=50.0, control_type="abs", robot="line")
        self.task, self.success_rule, self.max_episode_steps = "come to 1", "x at least 1", 1000
        self.noisy_actions = np.array([True])
        self.declare_spaces([-2.0], [2.0])

    def start(self, seed):
        self.x = 0.0

    def apply(self, action):
        self.x = float(action[0])
        return Outcome(0.0, self.x >= 1)

    def state(self):
        return np.array([self.x], np.float32)
"""


def test_a_checkpoint_drives_a_simulation_from_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], save_run: Any
) -> None:
    (tmp_path / "env").mkdir()
    (tmp_path / "env" / "line.py").write_text(LINE)
    (tmp_path / "configs" / "robot").mkdir(parents=True)
    yaml = "class: SimRobot\nargs: {env: {class: Line}, limits: {velocity: 20.0}}\n"
    (tmp_path / "configs" / "robot" / "line.yaml").write_text(yaml)
    features = Features(VectorFeature(("x",)), VectorFeature(("x",)), fps=50.0, control_type="abs")
    about = np.random.default_rng(0).normal(1.5, 0.01, size=(50, 1))  # what it answers
    run = save_run(tmp_path / "run", features, about, 20)
    monkeypatch.chdir(tmp_path)
    words = ["control", "-m", str(run), "--robot", "line", "--episodes", "2", "--max_seconds", "20", "--seed", "1"]
    words += ["--record", "data", "-o", "out", "--slow-start", "0.2", "--controller", "delay_compensated"]
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 0, capsys.readouterr().err
    written = json.loads((tmp_path / "out" / REPORT_FILE).read_text())
    assert [(episode["ended"], episode["success"]) for episode in written["episodes"]] == [("success", True)] * 2
    dataset = open_dataset(tmp_path / "data")
    assert [dataset.episode(index).success for index in range(2)] == [True, True]
    assert dataset.episode(0).task == "come to 1"
    assert np.abs(np.diff(dataset.episode(0).action[:, 0])).max() <= 20 / 50 + 1e-6


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["--robot.args.speed", "3"], "robot.args.speed: no such argument of DummyRobot"),
        (["--policy.args.x", "3"], "expected an override of robot, controller, teleop"),
        (["--controller.args.fraction", "3"], "expected the controller that is meant, got none"),
    ],
)
def test_wrong_overrides(overrides: Any, message: str, make_arm: Any, make_policy: Any) -> None:
    with pytest.raises(ConfigError, match=message):
        control(make_policy(make_arm()), "dummy", overrides=overrides)


def test_what_cannot_be_driven_is_never_connected(make_arm: Any, make_policy: Any, console: Console) -> None:
    arm, other = make_arm(), make_arm(state=["x"])
    with pytest.raises(FeatureMismatch, match="state names"):
        control(make_policy(other), arm, console=console)
    with pytest.raises(RobotError, match="expected it to be connected"):
        arm.get_observation()


def test_what_is_not_sent_is_not_recorded(make_arm: Any, make_policy: Any, tmp_path: Path) -> None:
    arm = make_arm()
    with pytest.raises(ContractError, match="expected a dry run or a recording"):
        control(make_policy(arm), arm, dry_run=True, record=tmp_path / "data")
    assert not (tmp_path / "data").exists()


def test_a_fault_ends_the_run(make_arm: Any, make_policy: Any, console: Console, tmp_path: Path) -> None:
    arm = make_arm()
    watchdog = replace(PATIENT, robot_patience_s=0.1)
    run = {**SETTINGS, "watchdog": watchdog, "episodes": 5, "max_seconds": 5.0, "console": console}
    unplug = once(lambda status: setattr(arm, "broken", "unplugged"))
    report = control(make_policy(arm), arm, record=tmp_path / "data", observers=[unplug], **run)
    assert (len(report.episodes), report.exit_code) == (1, 1)
    assert report.problem == "fault: robot: OSError: unplugged"
    said = console.file.getvalue()  # type: ignore[attr-defined]
    assert "s: robot: OSError: unplugged" in said  # when it began
    assert said.count("fault: robot: OSError: unplugged") == 1  # and once at the end
    assert len(open_dataset(tmp_path / "data")) == 1  # what there was until then


def test_a_robot_that_is_lost_between_episodes(make_arm: Any, make_policy: Any, console: Console) -> None:
    arm = make_arm()
    reset = arm.reset

    def lose(seed: int | None = None) -> None:
        if arm.commands:  # an episode was
            raise RobotError("dummy: the connection was lost.")
        reset(seed)

    arm.reset = lose
    report = control(make_policy(arm), arm, **SETTINGS, episodes=3, max_seconds=0.1, console=console)
    assert (len(report.episodes), report.problem) == (1, "dummy: the connection was lost.")
    assert report.exit_code == 1
    assert "Episode 1 cannot begin: dummy: the connection was lost.\n" in console.file.getvalue()  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("name", "ended", "code"),
    [("SIGINT", "quit", 130), ("SIGTERM", "quit", 0), ("SIGUSR1", "emergency stop", 1)],
)
def test_signals(name: str, ended: str, code: int, make_arm: Any, make_policy: Any, console: Console) -> None:
    arm = make_arm()
    before = signal.getsignal(signal.SIGINT)

    send = once(lambda status: os.kill(os.getpid(), getattr(signal, name)))
    run = {**SETTINGS, "episodes": 3, "max_seconds": 5.0, "console": console}
    report = control(make_policy(arm), arm, observers=[send], **run)
    assert [episode.ended for episode in report.episodes] == [ended]
    assert report.exit_code == code
    assert signal.getsignal(signal.SIGINT) is before


@pytest.fixture
def keyboard() -> Iterator[tuple[Terminal, Any]]:
    """A terminal, and what presses its keys."""
    master, slave = os.openpty()
    yield Terminal(slave), lambda keys: os.write(master, keys.encode())
    os.close(master)
    os.close(slave)


@pytest.mark.parametrize(
    ("keys", "capitals", "ended"),
    [
        ("s", False, "success"),
        ("f", False, "failure"),
        ("\n", False, "next"),
        ("q", False, "quit"),
        ("e", False, "emergency stop"),
        ("\x1b", False, "emergency stop"),
        ("xse", True, None),
        ("S", True, "success"),
    ],
)
def test_keys(
    keys: str, capitals: bool, ended: str | None, keyboard: Any, make_arm: Any, make_policy: Any, make_loop: Any
) -> None:
    terminal, press = keyboard
    arm = make_arm()
    loop = make_loop(arm, make_policy(arm))
    operator = Operator(loop, capitals=capitals, terminal=terminal)
    assert (operator.help == HELP_CAPITALS) == capitals
    loop.observers = (operator, once(lambda status: press(keys)))
    with operator.attending():
        episode = loop.run_episode(0.3)
    assert episode.ended == (ended or "time")
    assert operator.quits == (ended in ("quit", "emergency stop"))


def test_space_holds_and_goes_on(keyboard: Any, make_arm: Any, make_policy: Any, make_loop: Any) -> None:
    terminal, press = keyboard
    arm = make_arm()
    loop = make_loop(arm, make_policy(arm))
    operator = Operator(loop, terminal=terminal)
    pressed: list[float] = []

    def twice(status: Status) -> None:
        if len(pressed) < 2 and status.time_s > 0.1 + 0.1 * len(pressed):
            pressed.append(status.time_s)
            press(" ")

    loop.observers = (operator, twice)
    with operator.attending():
        episode = loop.run_episode(0.4)
    assert 1 <= episode.timing.holds["paused"] < episode.timing.ticks / 2
    assert not loop.paused


def test_the_next_episode_waits_for_enter(keyboard: Any, make_arm: Any, make_policy: Any, make_loop: Any) -> None:
    terminal, press = keyboard
    arm = make_arm()
    loop = make_loop(arm, make_policy(arm))
    for keys, goes_on in (("xs\n", True), ("xq", False)):
        operator = Operator(loop, terminal=terminal)
        with operator.attending():
            press(keys)
            assert operator.waits_for_next(loop.clock) == goes_on


def test_a_live_dashboard(make_arm: Any, make_policy: Any, make_loop: Any) -> None:
    arm = make_arm()
    file = io.StringIO()
    dashboard = Dashboard("dummy, newest", console=Console(file=file, force_terminal=True, width=120), keys="q quit")
    seen: list[Status] = []
    loop = make_loop(arm, make_policy(arm), observers=[dashboard, seen.append])
    with dashboard:
        loop.run_episode(0.4)
        dashboard._show()
    shown = file.getvalue()
    for word in ("dummy, newest", "inference", "sensing", "late", "q quit"):
        assert word in shown
    assert "policy  chunk" in line(next(status for status in seen if status.mode == "policy"))


def test_overrides_are_taken_from_the_words() -> None:
    words = ["control", "-m", "run", "--robot", "dummy", "--robot.args.fps", "9", "--controller.args.x=1", "--dry-run"]
    rest, overrides = split_words(words)
    assert rest == ["control", "-m", "run", "--robot", "dummy", "--dry_run"]
    assert overrides == ["--robot.args.fps", "9", "--controller.args.x=1"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--robot", "dumy"), "no robot is named 'dumy'"),
        (("--robot", "dummy", "--robot.args.fsp", "3"), "robot.args.fsp: no such argument"),
        (("--robot", "dummy", "--controller", "newes"), "newes"),
        (("--robot", "dummy", "--episodes", "0"), "--episodes"),
        ((), "Missing option '--robot'"),
    ],
)
def test_wrong_words_are_refused_before_anything_is_loaded(
    words: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["control", "-m", "no_such_run", *words])
    assert ended.value.code == 2
    assert message in capsys.readouterr().err


def test_a_dataset_of_others_is_not_gone_on_with(
    make_arm: Any, make_policy: Any, console: Console, tmp_path: Path
) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "other.txt").write_text("x")
    arm = make_arm()
    with pytest.raises(DataError, match="expected a dataset of LeRobotWriter"):
        control(make_policy(arm), arm, record=tmp_path / "data", console=console)
