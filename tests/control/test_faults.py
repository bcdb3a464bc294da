"""Whatever fails, the robot holds, the log says why, and the loop goes on or ends cleanly."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest

from menura.control.status import Status
from menura.teleop import Teleoperator

#: Of a fault that lasts; a busy machine may add faults that pass.
QUICK = {"max_observation_age_s": 0.3, "max_inference_s": 0.2, "patience_s": 1.0, "robot_patience_s": 0.5}


def wrong(episode: Any, source: str) -> list[Any]:
    return [fault for fault in episode.faults if fault.source == source]


def after(seconds: float, action: Any) -> Any:
    """An observer that does something once, so long after the first command."""
    began: list[float] = []

    def look(status: Status) -> None:
        if status.action is not None and not began:
            began.append(status.time_s)
        if len(began) == 1 and status.time_s > began[0] + seconds:
            began.append(status.time_s)
            action()

    return look


def until(condition: Any, loop_of: Any) -> Any:
    """An observer that ends the episode when something has come about."""
    return lambda status: loop_of().stop("came about", "next") if condition(status) else None


def test_a_camera_stops(make_arm: Any, make_policy: Any, make_loop: Any) -> None:
    arm = make_arm(faults={"frozen_after_s": {"front": 0.15}})
    policy = make_policy(arm)
    policy.answer = lambda obs: np.full((1, 20, 3), policy.asked[-1]["timestep"][0] / 100, np.float32)
    episode = make_loop(arm, policy, watchdog=QUICK).run_episode(10.0)
    fault = wrong(episode, "observation")[-1]
    assert "front: expected it to be at most 0.3 s old" in fault.message
    assert (episode.ended, episode.reason) == ("fault", f"observation: {fault.message}")
    assert episode.timing.holds["observation"] >= 2
    assert 2 <= episode.timing.stale <= episode.timing.holds["observation"]
    np.testing.assert_array_equal(arm.commands[-1], arm.commands[-2])


def test_when_a_camera_comes_back_the_policy_plans_anew(make_arm: Any, make_policy: Any, make_loop: Any) -> None:
    """The plan that was under way was not executed meanwhile."""
    arm = make_arm()
    policy = make_policy(arm)
    policy.answer = lambda obs: np.full((1, 200, 3), len(policy.asked), np.float32) / 100
    read, frozen = arm.get_observation, list[Any]()

    def freeze() -> None:
        frozen.append(read())
        threading.Timer(0.5, frozen.clear).start()

    arm.get_observation = lambda: frozen[0] if frozen else read()
    modes: list[str] = []
    loop: Any = None

    def look(status: Status) -> None:
        modes.append(status.mode)
        if modes[-2:] == ["hold", "policy"]:
            loop.stop("it goes on", "next")

    loop = make_loop(arm, policy, observers=[after(0.1, freeze), look], watchdog={**QUICK, "patience_s": 60.0})
    assert loop.run_episode(10.0).ended == "next"
    assert arm.commands[-1][0] > arm.commands[5][0]  # of a later inference


def test_a_robot_that_goes_silent_for_a_while(make_arm: Any, make_policy: Any, make_loop: Any) -> None:
    arm = make_arm()
    policy = make_policy(arm)

    def unplug() -> None:
        arm.broken = "no status packet"
        threading.Timer(0.25, lambda: setattr(arm, "broken", None)).start()

    loop: Any = None
    comes_back = until(lambda status: status.faults and status.faults[0].ended_s is not None, lambda: loop)
    watchdog = {**QUICK, "patience_s": 5.0, "robot_patience_s": 5.0}
    loop = make_loop(arm, policy, observers=[after(0.1, unplug), comes_back], watchdog=watchdog)
    episode = loop.run_episode(10.0)
    assert episode.ended == "next"
    fault = wrong(episode, "robot")[-1]
    assert fault.message == "OSError: no status packet"
    assert fault.ended_s is not None
    assert episode.timing.observation_errors >= 1


def test_a_robot_is_lost(make_arm: Any, make_policy: Any, make_loop: Any) -> None:
    arm = make_arm(faults={"disconnect_after_s": 0.2})
    episode = make_loop(arm, make_policy(arm), watchdog=QUICK).run_episode(10.0)
    fault = wrong(episode, "robot")[-1]
    assert "dummy: " in fault.message
    assert (episode.ended, episode.reason) == ("fault", f"robot: {fault.message}")
    assert episode.timing.holds["robot"] + episode.timing.holds.get("observation", 0) >= 2


@pytest.mark.parametrize("before", [0, 5])
def test_a_robot_that_takes_no_commands_is_not_sent_a_jump_later(
    before: int, make_arm: Any, make_policy: Any, make_loop: Any
) -> None:
    """What was not taken does not count as sent: the next command starts where the robot is."""
    arm = make_arm(limits={"low": -1.0, "high": 1.0, "step": 0.02})
    policy = make_policy(arm, target=1.0)
    send, refused = arm.send_action, []

    def refuse(action: Any) -> Any:
        if len(arm.commands) >= before and len(refused) < 20:
            refused.append(action)
            raise OSError("busy")
        return send(action)

    arm.send_action = refuse
    make_loop(arm, policy).run_episode(0.5)
    assert len(refused) == 20
    commands = np.stack([np.zeros(3), *arm.commands])  # it began at 0
    assert np.abs(np.diff(commands, axis=0)).max() <= 0.02 + 1e-6


@pytest.mark.parametrize("kind", ["nan", "raises"])
def test_a_policy_fails_and_recovers(kind: str, make_arm: Any, make_policy: Any, make_loop: Any) -> None:
    arm = make_arm()
    policy = make_policy(arm)
    good = policy.answer

    def fail() -> None:
        if kind == "nan":
            policy.answer = lambda obs: np.full((1, 20, 3), np.nan, np.float32)
        else:
            policy.problem = ZeroDivisionError("division by zero")
        threading.Timer(0.6, mend).start()

    def mend() -> None:
        policy.answer, policy.problem = good, None

    loop: Any = None
    comes_back = until(lambda status: status.faults and status.faults[0].ended_s is not None, lambda: loop)
    loop = make_loop(arm, policy, observers=[after(0.0, fail), comes_back])
    episode = loop.run_episode(10.0)
    assert episode.ended == "next"
    fault = wrong(episode, "policy")[0]
    expected = "policy: expected finite actions, got NaN" if kind == "nan" else "ZeroDivisionError: division by zero"
    assert fault.message.startswith(expected)
    assert episode.timing.inference_errors >= 1
    assert np.isfinite(np.stack(arm.commands)).all()
    assert episode.timing.holds["no plan"] >= 2  # the plan it had, and then it held


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_policy_dies(make_arm: Any, make_policy: Any, make_loop: Any) -> None:
    arm = make_arm()
    policy = make_policy(arm)

    def die() -> None:
        policy.problem = SystemExit("the policy's thread ends")

    loop = make_loop(arm, policy, observers=[after(0.0, die)], watchdog=QUICK)
    episode = loop.run_episode(10.0)
    assert episode.ended == "fault"
    assert episode.reason.startswith("policy: expected an answer within 0.2 s, got none yet")
    np.testing.assert_array_equal(arm.commands[-1], arm.commands[-2])


def test_an_inference_hangs_for_a_while(make_arm: Any, make_policy: Any, make_loop: Any) -> None:
    arm = make_arm()
    policy = make_policy(arm)

    def hang() -> None:
        policy.took_s = 0.7

    def hurry(status: Status) -> None:
        if status.faults:
            policy.took_s = 0.005

    loop: Any = None
    comes_back = until(lambda status: status.faults and status.faults[0].ended_s is not None, lambda: loop)
    loop = make_loop(
        arm, policy, observers=[after(0.0, hang), hurry, comes_back], watchdog={**QUICK, "patience_s": 5.0}
    )
    episode = loop.run_episode(10.0)
    assert episode.ended == "next"
    fault = wrong(episode, "policy")[0]
    assert fault.message.startswith("expected an answer within 0.2 s")


class Takeover(Teleoperator):
    """Drives to `action` while it has one."""

    def __init__(self) -> None:
        self.action: Any = None
        self.broken = False
        self.told: list[Any] = []

    def act(self, observation: Any) -> Any:
        if self.broken:
            raise OSError("unplugged")
        return self.action

    def sent(self, action: Any) -> None:
        self.told.append(action)


def test_somebody_takes_over(make_arm: Any, make_policy: Any, make_loop: Any) -> None:
    arm, teleop = make_arm(limits={"low": -1.0, "high": 0.7}), Takeover()
    policy = make_policy(arm, target=0.2)
    modes: list[str] = []

    def steer(status: Status) -> None:
        modes.append(status.mode)
        teleop.action = np.full(3, 0.9, np.float32) if 0.1 < status.time_s < 0.3 else None
        if teleop.action is not None:
            policy.target = 0.4

    episode = make_loop(arm, policy, teleop=teleop, observers=[steer]).run_episode(0.6)
    assert episode.timing.interventions == modes.count("teleoperator") >= 2
    steered = np.stack(arm.commands)[:, 0]
    assert np.isclose(steered, 0.7).any()  # through safety
    assert steered[-1] == pytest.approx(0.4)
    after_it = modes[len(modes) - modes[::-1].index("teleoperator") :]
    assert after_it[0] == "hold"  # until the policy has planned anew: what it had planned before is not used
    assert not np.isclose(steered[np.isclose(steered, 0.7).argmax() :], 0.2).any()
    assert teleop.told[0] is None
    np.testing.assert_array_equal(teleop.told[-1], arm.commands[-1])


@pytest.mark.parametrize("engaged", [True, False])
def test_a_teleoperator_is_lost(engaged: bool, make_arm: Any, make_policy: Any, make_loop: Any) -> None:
    arm, teleop = make_arm(), Takeover()
    teleop.action = np.full(3, 0.3, np.float32) if engaged else None

    def unplug() -> None:
        teleop.broken = True

    loop = make_loop(arm, make_policy(arm), teleop=teleop, observers=[after(0.05, unplug)], watchdog=QUICK)
    episode = loop.run_episode(10.0)
    assert (episode.ended, episode.reason) == ("fault", "teleoperator: OSError: unplugged")
    assert episode.timing.holds["teleoperator"] >= 2
    np.testing.assert_array_equal(arm.commands[-1], arm.commands[-2])


def test_a_teleoperator_that_says_nonsense(make_arm: Any, make_policy: Any, make_loop: Any) -> None:
    arm, teleop = make_arm(), Takeover()
    teleop.action = np.full(3, np.nan, np.float32)
    episode = make_loop(arm, make_policy(arm), teleop=teleop, watchdog=QUICK).run_episode(10.0)
    assert episode.reason.startswith("teleoperator: action: expected 3 finite numbers")
    assert arm.commands == []


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda seen: seen["state"].__setitem__(0, np.nan), "state: expected 3 finite numbers"),
        (lambda seen: seen["images"].pop("front"), "expected all that the robot's features name, got no front"),
        (lambda seen: seen["times"].pop("front"), "got no the time of front"),
        (lambda seen: seen["times"].update(front=1e9), "expected times of the loop's clock"),
    ],
)
def test_a_robot_that_says_nonsense(spoil: Any, message: str, make_arm: Any, make_policy: Any, make_loop: Any) -> None:
    arm = make_arm()
    read = arm.get_observation

    def spoilt() -> Any:
        seen = read()
        seen = {"state": seen["state"].copy(), "images": dict(seen["images"]), "times": dict(seen["times"])}
        spoil(seen)
        return seen

    arm.get_observation = spoilt
    episode = make_loop(arm, make_policy(arm), watchdog=QUICK).run_episode(10.0)
    assert episode.ended == "fault"
    assert message in episode.reason
    assert arm.commands == []
