"""The loop drives a robot by a policy, within its limits, and does as it is told."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest

from menura.control.controllers.newest import Newest
from menura.control.controllers.real_time_chunking import RealTimeChunking
from menura.control.loop import SafetySettings
from menura.control.status import Status
from menura.errors import ContractError, FeatureMismatch
from menura.features import VectorFeature
from menura.robots import RobotError
from menura.robots.dummy import DummyRobot


def test_the_robot_goes_where_the_policy_says(make_arm: Any, make_policy: Any, make_loop: Any) -> None:
    arm = make_arm()
    policy = make_policy(arm, target=0.5)
    seen: list[Status] = []
    episode = make_loop(arm, policy, task="wave", observers=[seen.append]).run_episode(0.3)
    assert (episode.ended, episode.success, episode.faults) == ("time", None, ())
    assert episode.steps == len(arm.commands) >= 5
    np.testing.assert_allclose(arm.commands[-1], 0.5)
    assert policy.asked[0]["task"] == ["wave"]
    assert policy.asked[0]["images"]["front"].shape == (1, 16, 16, 3)
    timing = episode.timing
    assert timing.ticks == len(seen)
    assert timing.inferences >= 1
    assert timing.inference_ms.p50 >= 5.0
    assert timing.observations >= 5
    assert {status.mode for status in seen} >= {"rest", "policy"}
    ages = [status.plan_age_s for status in seen if status.plan_age_s is not None]
    assert max(ages) < 20 / 50 + 0.011  # to the end of a chunk, and a late tick


def test_sensing_inference_and_control_have_rates_of_their_own(make_arm: Any, make_policy: Any, make_loop: Any) -> None:
    arm = make_arm()
    loop = make_loop(arm, make_policy(arm, took_s=0.1), sensing_hz=10.0, controller=Newest())
    timing = loop.run_episode(0.6).timing
    assert 2 <= timing.observations <= 10 * timing.seconds + 2
    assert 2 <= timing.inferences <= timing.observations  # none of an observation twice, nor two at once
    assert timing.ticks + timing.missed >= 60


def test_an_inference_is_delayed_where_a_stand_in_is_told_so(make_arm: Any, make_policy: Any, make_loop: Any) -> None:
    arm = make_arm(faults={"inference_delay_s": 0.15})
    timing = make_loop(arm, make_policy(arm)).run_episode(0.3).timing
    assert timing.inference_ms.p50 >= 150
    assert timing.delay_ms.p50 >= 150


def test_time_begins_with_the_first_plan(make_arm: Any, make_policy: Any, make_loop: Any) -> None:
    arm = make_arm()
    loop = make_loop(arm, make_policy(arm, took_s=0.15))
    episode = loop.run_episode(0.1)
    assert episode.ended == "time"
    assert episode.timing.seconds >= 0.2
    assert episode.timing.holds["no plan"] >= 2  # it rests meanwhile, and nothing is sent
    assert episode.timing.ticks - episode.steps >= 2


def test_nothing_leaves_the_limits(make_arm: Any, make_policy: Any, make_loop: Any) -> None:
    arm = make_arm(limits={"low": -1.0, "high": 0.4, "velocity": 5.0})
    episode = make_loop(arm, make_policy(arm, target=9.0)).run_episode(0.3)
    commands = np.stack([np.zeros(3), *arm.commands])
    assert commands.max() <= np.float32(0.4)
    assert np.abs(np.diff(commands, axis=0)).max() <= 5.0 / 100 + 1e-5
    assert episode.timing.clipped


def test_a_slow_start(make_arm: Any, make_policy: Any, make_loop: Any) -> None:
    arm = make_arm(limits={**{"low": -1.0, "high": 1.0}, "velocity": 10.0})
    make_loop(arm, make_policy(arm, target=1.0), safety=SafetySettings(slow_start_s=5.0)).run_episode(0.2)
    steps = np.abs(np.diff(np.stack(arm.commands), axis=0)).max(axis=1)
    assert steps[0] < 0.02
    assert steps.max() < 0.05  # of the 0.1 that the velocity allows


def test_a_dry_run_sends_nothing(make_arm: Any, make_policy: Any, make_loop: Any) -> None:
    arm = make_arm()
    seen: list[Status] = []
    episode = make_loop(arm, make_policy(arm), dry_run=True, observers=[seen.append]).run_episode(0.1)
    assert arm.commands == []
    assert episode.steps > 0
    np.testing.assert_allclose(seen[-1].action, 0.5)


def test_several_episodes_begin_anew(make_arm: Any, make_policy: Any, make_loop: Any) -> None:
    arm = make_arm()
    loop = make_loop(arm, make_policy(arm))
    first, second = loop.run_episode(0.1, seed=1), loop.run_episode(0.1, seed=2)
    assert first.ended == second.ended == "time"
    assert second.timing.holds["no plan"] >= 1
    assert second.timing.seconds < 1.0


def test_success_ends_it(make_arm: Any, make_policy: Any, make_loop: Any) -> None:
    arm = make_arm()

    def solve(status: Status) -> None:
        arm.solved = status.time_s > 0.1

    episode = make_loop(arm, make_policy(arm), observers=[solve]).run_episode(5.0)
    assert (episode.ended, episode.success) == ("success", True)
    arm.solved = False
    assert make_loop(arm, make_policy(arm)).run_episode(0.05).success is False


@pytest.mark.parametrize("ended", ["failure", "next", "quit"])
def test_it_is_told_to_end(ended: Any, make_arm: Any, make_policy: Any, make_loop: Any) -> None:
    arm = make_arm()
    loop = make_loop(arm, make_policy(arm))
    timer = threading.Timer(0.1, lambda: loop.stop("enough", ended))
    timer.start()
    episode = loop.run_episode(5.0)
    assert (episode.ended, episode.reason) == (ended, "enough")
    assert episode.success is (False if ended == "failure" else None)
    np.testing.assert_array_equal(arm.commands[-1], arm.commands[-2])  # it holds


def test_an_emergency_stop_comes_before_everything(make_arm: Any, make_policy: Any, make_loop: Any) -> None:
    arm = make_arm()
    sent: list[int] = []

    def press(status: Status) -> None:
        if status.time_s > 0.1 and not sent:
            loop.stop("enough", "quit")
            loop.stop("the key was pressed", "emergency stop")
            sent.append(len(arm.commands))

    loop = make_loop(arm, make_policy(arm, target=1.0), observers=[press])
    episode = loop.run_episode(5.0)
    assert (episode.ended, episode.reason) == ("emergency stop", "the key was pressed")
    assert len(arm.commands) == sent[0] + 1  # the one that holds
    np.testing.assert_array_equal(arm.commands[-1], arm.commands[-2])


def test_the_robots_own_stop(make_arm: Any, make_policy: Any, make_loop: Any) -> None:
    arm = make_arm(faults={"stop_after_s": 0.3})
    seen: list[Status] = []
    episode = make_loop(arm, make_policy(arm), observers=[seen.append]).run_episode(5.0)
    assert len(arm.commands) == len([status for status in seen if status.action is not None])  # and none after it
    assert (episode.ended, episode.reason) == ("emergency stop", "the emergency stop of the robot was pressed")


def test_it_holds_while_paused_and_then_plans_anew(make_arm: Any, make_policy: Any, make_loop: Any) -> None:
    arm = make_arm()
    policy = make_policy(arm, target=0.2)
    modes: list[tuple[str, str]] = []
    held: list[Any] = []

    def pause(status: Status) -> None:
        modes.append((status.mode, status.reason))
        loop.paused = 0.1 < status.time_s < 0.5
        if loop.paused:
            policy.target = 0.8
            held.append(status.action)

    loop = make_loop(arm, policy, observers=[pause], watchdog={"patience_s": 0.3})  # people may take longer
    episode = loop.run_episode(0.7)
    assert episode.ended == "time"
    assert episode.timing.holds["paused"] >= 3
    np.testing.assert_allclose(np.stack(held), 0.2)
    np.testing.assert_allclose(arm.commands[-1], 0.8)


def test_another_control_rate_than_the_policys(make_arm: Any, make_policy: Any, make_loop: Any) -> None:
    """Chunks are executed at the policy's rate, however often the robot is commanded."""
    arm = make_arm()
    policy = make_policy(arm, fps=20.0)
    policy.answer = lambda obs: np.tile(np.linspace(0, 0.95, 20, dtype=np.float32)[None, :, None], (1, 1, 3))
    seen: list[Status] = []
    make_loop(arm, policy, observers=[seen.append]).run_episode(0.4)
    rising = [
        (status.time_s, float(status.action[0])) for status in seen if status.action is not None and status.number == 0
    ]
    (first_s, first), (last_s, last) = rising[0], rising[-1]
    assert last - first == pytest.approx(last_s - first_s, abs=0.07)  # 0.05 each 1 / 20 s: the time that has passed


def test_differences_at_another_rate_are_refused(make_arm: Any, make_policy: Any, make_loop: Any) -> None:
    arm = make_arm(control_type="delta")
    with pytest.raises(ContractError, match="expected actions that are differences to be sent at the policy's rate"):
        make_loop(arm, make_policy(arm, fps=20.0))


def test_a_robot_without_limits_is_refused(make_arm: Any, make_policy: Any, make_loop: Any) -> None:
    arm = make_arm(limits=None)
    with pytest.raises(RobotError, match="expected limits, got none: it is not driven"):
        make_loop(arm, make_policy(arm))
    with pytest.raises(RobotError, match="expected it to be connected"):
        arm.get_observation()


def test_a_robot_outside_its_limits_is_not_moved(make_arm: Any, make_policy: Any, make_loop: Any) -> None:
    arm = make_arm(limits={"low": 0.5, "high": 1.0, "step": 0.01}, start={"a": 0.6, "b": 0.6, "grip": 0.6})
    loop = make_loop(arm, make_policy(arm, target=0.7))
    arm._start = np.array([-3.0, 0.6, 0.6], np.float32)
    episode = loop.run_episode(1.0)
    assert episode.ended == "fault"
    assert arm.commands == []


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"features": "names"}, r"action names: \('x', 'y', 'grip'\) here, \('a', 'b', 'grip'\) there"),
        ({"features": "cameras"}, "expected the cameras the policy looks at \\(wrist\\), got front"),
        ({"fps": 0.0}, "expected the fps of its actions in its features, got none"),
    ],
)
def test_policies_of_other_robots_are_refused(
    settings: Any, message: str, make_arm: Any, make_policy: Any, make_loop: Any
) -> None:
    arm = make_arm()
    other = DummyRobot(["x", "y", "grip"], limits={"low": -1, "high": 1}) if "features" in settings else arm
    features = arm.features
    if settings.get("features") == "names":
        features = type(features)(features.state, VectorFeature(other.features.action.names), features.cameras)
    if settings.get("features") == "cameras":
        features = type(features)(features.state, features.action, {"wrist": features.cameras["front"]})
    with pytest.raises(FeatureMismatch, match=message):
        make_loop(arm, make_policy(arm, **{**settings, "features": features}))


def test_a_rate_of_actions_may_be_said(make_arm: Any, make_policy: Any, make_loop: Any) -> None:
    arm = make_arm()
    assert make_loop(arm, make_policy(arm, fps=0.0), chunk_hz=25.0).chunk_period_s == 0.04


@pytest.mark.parametrize("name", ["control_hz", "sensing_hz"])
def test_rates_that_cannot_be(name: str, make_arm: Any, make_policy: Any, make_loop: Any) -> None:
    arm = make_arm()
    with pytest.raises(ContractError, match=f"{name}: expected hertz above 0, got -1"):
        make_loop(arm, make_policy(arm), **{name: -1.0})


def test_what_was_under_way_is_told_to_the_policy(make_arm: Any, make_policy: Any, make_loop: Any) -> None:
    arm = make_arm()
    policy = make_policy(arm)
    told: list[Any] = []
    predict = policy.predict
    policy.predict = lambda obs, **given: told.append(given.pop("previous", None)) or predict(obs, **given)
    make_loop(arm, policy, controller=RealTimeChunking()).run_episode(0.5)
    assert told[0] is None
    assert told[-1][0].actions.shape[1] == 3
    assert told[-1][0].delay >= 0


def test_the_newest_controller_asks_again_and_again(make_arm: Any, make_policy: Any, make_loop: Any) -> None:
    arm = make_arm()
    policy = make_policy(arm)
    make_loop(arm, policy, controller=Newest()).run_episode(0.3)
    times = [obs["timestep"][0] for obs in policy.asked]
    assert len(times) >= 3
    assert times == sorted(times)  # each of a newer observation


def test_an_episode_that_is_over_by_itself(make_arm: Any, make_policy: Any, make_loop: Any) -> None:
    arm = make_arm()
    arm.over = lambda: "the recording is over" if len(arm.commands) >= 5 else None
    episode = make_loop(arm, make_policy(arm)).run_episode(10.0)
    assert (episode.ended, episode.reason, episode.success) == ("over", "the recording is over", None)


def test_of_the_first_plan_no_action_is_past(make_arm: Any, make_policy: Any, make_loop: Any) -> None:
    """The robot rested until it was there; only then does its delay count."""
    arm = make_arm()
    policy = make_policy(arm, took_s=0.2)
    policy.answer = lambda obs: np.linspace(0.01, 0.2, 20, dtype=np.float32)[None, :, None] * np.ones(3, np.float32)
    loop = make_loop(arm, policy)
    loop.run_episode(0.1)
    np.testing.assert_allclose(arm.commands[0], 0.01)
    assert loop.controller.expected_delay_s >= 0.2


def test_chunks_that_were_of_no_use_are_told(make_arm: Any, make_policy: Any, make_loop: Any) -> None:
    arm = make_arm()
    policy = make_policy(arm)
    policy.reconnects = 3
    good = policy.answer
    policy.answer = lambda obs: good(obs)[:, : 20 if len(policy.asked) == 1 else 0]
    loop: Any = None

    def look(status: Status) -> None:
        policy.reconnects = 5
        if loop.controller.refused["empty"] >= 2:
            loop.stop("seen", "next")

    loop = make_loop(arm, policy, observers=[look])
    timing = loop.run_episode(10.0).timing
    assert timing.refused["empty"] >= 2
    assert timing.reconnects == 2
