"""What a policy is asked: a history that is spaced in time, whatever the loop's rates are."""

from __future__ import annotations

import re
import time
from typing import Any

import numpy as np
import pytest

from menura.clock import VirtualClock, WallClock
from menura.control.planning import Planner, Request, request_of
from menura.control.sensing import Sensing


def sensed(make_arm: Any, seconds: float, *, hz: float = 30.0, span_s: float = 0.2) -> Sensing:
    """A robot that was read for so long; its state is the time."""
    clock = VirtualClock()
    robot = make_arm(cameras={}, fps=hz)
    robot.clock = clock
    robot.connect()
    sensing = Sensing(robot, clock, 1 / hz, span_s)
    for _ in range(round(seconds * hz) + 1):
        observation = robot.get_observation()
        observation["state"][:] = observation["times"]["state"]
        sensing.read()
        clock.advance(1 / hz)
    return sensing


@pytest.mark.parametrize("hz", [10.0, 30.0, 47.0])
def test_history_is_spaced_by_the_policys_period(hz: float, make_arm: Any, make_policy: Any) -> None:
    sensing = sensed(make_arm, 2.0, hz=hz)
    policy = make_policy(sensing._robot, fps=10.0, offsets=(-2, -1, 0))
    newest = sensing.newest
    assert newest is not None
    request = request_of(sensing, newest, policy, task="t", period_s=0.1, previous=None)
    times_s = request.observation["state"][0, :, 0]  # (O,)
    np.testing.assert_allclose(times_s, newest.captured_s + np.array([-0.2, -0.1, 0.0]), atol=0.5 / hz + 1e-5)
    assert request.is_pad is not None
    assert not request.is_pad.any()
    assert request.observation["timestep"].tolist() == [20]
    assert request.captured_s == newest.captured_s


def test_before_the_episode_is_padding(make_arm: Any, make_policy: Any) -> None:
    sensing = sensed(make_arm, 0.1, hz=50.0)
    policy = make_policy(sensing._robot, fps=10.0, offsets=(-2, -1, 0))
    assert sensing.newest is not None
    request = request_of(sensing, sensing.newest, policy, task="t", period_s=0.1, previous=None)
    np.testing.assert_allclose(request.observation["state"][0, :, 0], [0.0, 0.0, 0.1], atol=0.011)
    assert request.is_pad is not None
    assert request.is_pad.tolist() == [[True, False, False]]


def test_one_observation_has_no_time_axis(make_arm: Any, make_policy: Any) -> None:
    sensing = sensed(make_arm, 0.1)
    assert sensing.newest is not None
    request = request_of(sensing, sensing.newest, make_policy(sensing._robot), task="t", period_s=0.02, previous=None)
    assert request.observation["state"].shape == (1, 3)
    assert request.observation["task"] == ["t"]
    assert request.is_pad is None


def test_old_observations_are_let_go(make_arm: Any) -> None:
    sensing = sensed(make_arm, 5.0, hz=30.0, span_s=0.2)
    assert len(sensing._kept) <= 8
    assert len(sensed(make_arm, 1.0, span_s=0.0)._kept) <= 2


def test_what_was_forgotten_does_not_come_back(make_arm: Any, make_policy: Any) -> None:
    policy = make_policy(make_arm())
    planner = Planner(policy, 0.02, WallClock())
    request = Request({"state": np.zeros((1, 3))}, None, 1.5)
    try:
        planner.begin(0)
        planner.ask(request)
        planner.forget()
        while planner.asked_s is not None:
            assert planner.take() is None
            time.sleep(0.001)
        planner.ask(request)
        while (answer := planner.take()) is None:
            time.sleep(0.001)
    finally:
        planner.close()
    assert answer.chunk is not None
    assert (answer.chunk.start_s, answer.chunk.period_s, answer.chunk.number) == (1.5, 0.02, 1)


@pytest.mark.parametrize(
    ("actions", "message"),
    [
        (np.full((1, 4, 3), np.nan), "expected finite actions, got NaN or infinity"),
        (np.zeros((1, 4, 2)), r"expected actions of shape \(1, T, 3\), got \(1, 4, 2\)"),
        (np.zeros((4, 3)), "expected actions of shape"),
    ],
)
def test_answers_that_are_none(actions: Any, message: str, make_arm: Any, make_policy: Any) -> None:
    policy = make_policy(make_arm())
    policy.answer = lambda obs: actions
    planner = Planner(policy, 0.02, WallClock())
    planner.ask(Request({}, None, 0.0))
    while (answer := planner.take()) is None:
        time.sleep(0.001)
    planner.close()
    assert answer.chunk is None
    assert answer.problem is not None
    assert re.search(message, answer.problem)
