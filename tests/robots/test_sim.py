"""SimRobot: an environment that time passes in, virtual time (exactly) and real time (truly)."""

from __future__ import annotations

import gc
import logging
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from menura.clock import VirtualClock, WallClock
from menura.config import load_robot
from menura.errors import ContractError
from menura.robots import RobotError, make_robot
from menura.robots.sim import SimRobot

DIFFERENCES = {"control": "delta"}


def point(project: Path, clock: Any = None, env: dict[str, Any] | None = None, **args: Any) -> SimRobot:
    section = {"class": "Point", "args": env or {}}
    robot = SimRobot(section, project=project, clock=clock or VirtualClock(), **args)
    robot.connect()
    robot.reset(seed=0)
    return robot


def act(x: float, grip: float = 0.0) -> np.ndarray:
    return np.array([x, grip], np.float32)


def executed(robot: SimRobot) -> list[float]:
    with robot.simulator() as env:
        return [float(action[0]) for action in env.executed]


def pass_time(robot: SimRobot, seconds: float) -> dict[str, Any]:
    robot.clock.advance(seconds)  # type: ignore[attr-defined]  # a VirtualClock
    return robot.get_observation()


def test_what_is_known_before_it_is_connected(project: Path) -> None:
    robot = SimRobot("point", project=project)
    assert (robot.task, robot.features.fps, robot.limits.low.tolist()) == ("come to 1", 50.0, [-2, 0])
    with pytest.raises(RobotError, match="expected it to be connected"):
        robot.get_observation()


def test_limits_that_are_written_come_before_those_of_the_environment(project: Path) -> None:
    limits = point(project, limits={"high": [1, 1], "velocity": 0.5}).limits
    assert (limits.low.tolist(), limits.high.tolist(), limits.velocity.tolist()) == ([-2, 0], [1, 1], [0.5, 0.5])


def test_unbounded_actions_have_no_limits_until_they_are_written(project: Path) -> None:
    assert point(project, env={"bounded": False}).limits is None
    assert point(project, env={"bounded": False}, limits={"low": -1, "high": 1}).limits is not None


def test_it_rests_until_it_is_commanded(project: Path) -> None:
    robot = point(project)
    seen = pass_time(robot, 1.0)
    assert (robot.steps, seen["times"]["state"]) == (0, pytest.approx(1.0))


def test_one_step_a_period_with_the_command_that_holds_at_its_beginning(project: Path) -> None:
    robot = point(project)
    robot.send_action(act(0.1))
    assert pass_time(robot, 0.01)["state"][2] == 0  # the period is not over
    robot.send_action(act(0.2))
    assert pass_time(robot, 0.01)["state"].tolist() == pytest.approx([0.1, 0, 1])
    seen = pass_time(robot, 0.04)
    assert seen["state"].tolist() == pytest.approx([0.2, 0, 3])
    assert seen["times"] == {"state": pytest.approx(0.06), "eye": pytest.approx(0.06)}
    assert seen["images"]["eye"][0, 0, 0] == 3
    assert executed(robot) == pytest.approx([0.1, 0.2, 0.2])


def test_differences_are_executed_once(project: Path) -> None:
    robot = point(project, env=DIFFERENCES)
    robot.send_action(act(0.5, 1.0))
    assert pass_time(robot, 0.1)["state"].tolist() == pytest.approx([0.5, 1.0, 5])
    assert executed(robot) == pytest.approx([0.5, 0, 0, 0, 0])


def test_in_step_with_the_loop_it_does_what_the_environment_does(project: Path) -> None:
    robot = point(project)
    actions = np.random.default_rng(0).uniform(-1, 1, 30).astype(np.float32)
    for number, x in enumerate(actions):
        assert robot.get_observation()["state"][2] == number
        robot.send_action(act(x))
        robot.clock.sleep_until((number + 1) / 50)
    assert robot.get_observation()["state"][2] == 30
    assert executed(robot) == pytest.approx(actions.tolist())


def test_time_may_pass_faster(project: Path) -> None:
    robot = point(project, realtime_factor=4.0)
    robot.send_action(act(0.1))
    pass_time(robot, 0.1)
    assert robot.steps == 20


def test_delays_are_injected(project: Path) -> None:
    robot = point(project, faults={"sensing_delay_s": 0.06, "action_delay_s": 0.04})
    robot.send_action(act(0.1))
    seen = pass_time(robot, 0.2)
    assert seen["times"]["state"] == pytest.approx(0.14)
    assert robot.steps == 8  # of 10 periods the first two had no command


def test_success_and_the_end_of_an_episode(project: Path) -> None:
    robot = point(project, env={"max_episode_steps": 5})
    robot.send_action(act(1.5))
    assert robot.success() is False
    pass_time(robot, 1.0)
    assert (robot.success(), robot.steps) == (True, 5)
    assert robot.over() == "the simulation takes no more than 5 steps (its max_episode_steps)"
    assert robot.get_observation()["times"]["state"] == pytest.approx(1.0)  # it rests, and is sensed
    robot.reset(seed=100)
    assert (robot.success(), robot.steps, robot.over()) == (False, 0, None)
    assert robot.get_observation()["state"][0] == pytest.approx(0.1)


def test_clipped_to_its_limits_and_nothing_else_is_taken(project: Path) -> None:
    robot = point(project)
    assert robot.send_action(act(9.0)).tolist() == [2.0, 0.0]
    with pytest.raises(ContractError, match="Point action: expected finite values"):
        robot.send_action(act(np.nan))
    with pytest.raises(ContractError, match=r"expected shape \(2,\), got \(3,\)"):
        robot.send_action(np.zeros(3, np.float32))


def test_a_lost_connection_leaves_the_world_as_it_goes(project: Path) -> None:
    robot = point(project, env=DIFFERENCES, faults={"disconnect_after_s": 0.1})
    robot.send_action(act(0.5))
    with pytest.raises(RobotError, match="the connection was lost"):
        pass_time(robot, 0.2)
    robot.connect()
    assert robot.get_observation()["state"].tolist() == pytest.approx([0.5, 0, 10])


def test_disconnected_time_stands_still_and_connected_again_it_rests_first(project: Path) -> None:
    robot = point(project)
    robot.send_action(act(0.5))
    pass_time(robot, 0.1)
    robot.disconnect()
    robot.disconnect()
    robot.clock.advance(100)
    robot.connect()
    seen = pass_time(robot, 1.0)
    assert (seen["state"].tolist(), seen["times"]["state"]) == ([0.5, 0, 5], pytest.approx(101.1))


def test_injected_faults_depend_on_the_episodes_seed_alone(project: Path) -> None:
    def times(robot: SimRobot, seed: int) -> list[float]:
        robot.reset(seed)
        begun = robot.clock.now()
        return [round(pass_time(robot, 0.02)["times"]["eye"] - begun, 6) for _ in range(40)]

    robot = point(project, faults={"drop_share": 0.5, "sensing_jitter_s": 0.05, "seed": 7})
    first = times(robot, 1)
    assert times(robot, 2) != first
    assert times(robot, 1) == first
    assert times(point(project, faults={"drop_share": 0.5, "sensing_jitter_s": 0.05, "seed": 7}), 1) == first


# Real time.


def test_real_time(project: Path) -> None:
    robot = point(project, WallClock())
    begun = robot.clock.now()
    robot.send_action(act(0.1))
    ages = []
    while (now := robot.clock.now()) < begun + 0.5:
        ages.append(robot.clock.now() - robot.get_observation()["times"]["state"])
        time.sleep(0.005)
    passed = now - begun
    assert min(ages) >= -0.001
    assert robot.steps <= passed * 50 + 2
    assert robot.steps >= passed * 50 * 0.5  # however busy the machine
    robot.disconnect()
    steps = robot.steps
    time.sleep(0.05)
    assert robot.steps == steps


def test_a_simulator_that_cannot_keep_up_is_told(
    project: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("menura.robots.sim._JUDGED_AFTER_S", 0.2)
    robot = point(project, WallClock(), env={"slow_s": 0.05}, realtime_factor=2.0)
    with caplog.at_level(logging.WARNING, "menura.robots.sim"):
        robot.send_action(act(0.1))
        deadline = time.monotonic() + 10
        while not caplog.records and time.monotonic() < deadline:
            time.sleep(0.02)
    assert "expected the simulation to keep up with time, got 0." in caplog.text
    assert len(caplog.records) == 1
    now = robot.clock.now()
    assert robot.get_observation()["times"]["state"] <= now + 0.001  # never from the future
    robot.disconnect()


def test_a_simulator_that_fails_is_told_to_whoever_asks(project: Path) -> None:
    robot = point(project, WallClock(), env={"breaks_at": 2})
    robot.send_action(act(0.1))
    deadline = time.monotonic() + 10
    while not robot._running.done() and time.monotonic() < deadline:
        time.sleep(0.01)
    with pytest.raises(RobotError, match="the simulator failed with ZeroDivisionError: the solver diverged"):
        robot.get_observation()
    robot.reset(0)  # a new episode works again
    assert robot.get_observation()["state"][2] == 0
    robot.disconnect()


def test_its_thread_ends_with_it_and_closes_the_environment(project: Path) -> None:
    robot = point(project, WallClock())
    with robot.simulator() as env:
        pass
    robot.disconnect()
    before = threading.active_count()
    del robot
    gc.collect()
    deadline = time.monotonic() + 5
    while not env.closed and time.monotonic() < deadline:
        time.sleep(0.01)
    assert env.closed
    assert threading.active_count() < before


def test_an_environment_that_cannot_be_made_is_told(project: Path) -> None:
    with pytest.raises(Exception, match="no such argument of Point"):
        SimRobot({"class": "Point", "args": {"contrl": "abs"}}, project=project)


def test_a_real_simulator_in_virtual_time() -> None:
    pytest.importorskip("gym_pusht")
    robot = make_robot(load_robot("pusht_sim"), clock=VirtualClock())
    robot.connect()
    robot.reset(seed=1)
    start = robot.get_observation()["state"][:2]
    robot.send_action(start + np.float32(20))
    assert pass_time(robot, 1.0)["state"][:2] == pytest.approx(start + 20, abs=3)
