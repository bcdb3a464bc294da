"""ExpertTakeover: a scripted expert drives a SimRobot for a while; and what counts as a teleoperator."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from menura.clock import VirtualClock
from menura.config import load_robot, load_teleop
from menura.errors import ContractError
from menura.robots import make_robot
from menura.robots.dummy import DummyRobot
from menura.robots.sim import SimRobot
from menura.teleop import Teleoperator, make_teleop
from menura.teleop.expert import ExpertTakeover


def pusher() -> SimRobot:
    pytest.importorskip("gym_pusht")
    robot = make_robot(load_robot("pusht_sim"), clock=VirtualClock())
    assert isinstance(robot, SimRobot)
    robot.connect()
    robot.reset(seed=0)
    return robot


def drive(robot: SimRobot, teleop: Teleoperator, seconds: float, hz: float = 10.0) -> list[bool]:
    """Whether it was engaged, at each tick; else the robot is told to stay."""
    engaged = []
    stay = robot.get_observation()["state"][:2]
    for _ in range(round(seconds * hz)):
        action = teleop.act(robot.get_observation())
        engaged.append(action is not None)
        teleop.sent(robot.send_action(stay if action is None else action))
        robot.clock.advance(1 / hz)
    return engaged


def takeover(robot: SimRobot, **args: Any) -> ExpertTakeover:
    teleop = make_teleop({"class": "ExpertTakeover", "args": {"expert": {"class": "PushTExpert"}, **args}})
    teleop.clock = robot.clock
    assert isinstance(teleop, ExpertTakeover)
    teleop.begin(robot)
    teleop.connect()
    teleop.sent(None)
    return teleop


def test_it_drives_in_the_times_it_is_told() -> None:
    robot = pusher()
    engaged = drive(robot, takeover(robot, between_s=[[0.5, 1.0], [1.5, 1.6]]), 2.0)
    assert engaged == [5 <= tick < 10 or tick == 15 for tick in range(20)]


def test_it_drives_what_is_not_solved_by_then_until_it_is_over() -> None:
    robot = pusher()
    teleop = takeover(robot, after_s=1.0)
    assert drive(robot, teleop, 2.0) == [tick >= 10 for tick in range(20)]
    teleop.sent(None)
    assert drive(robot, teleop, 0.5) == [False] * 5


def test_it_is_asked_once_a_step_however_fast_the_loop_is() -> None:
    robot = pusher()
    teleop = takeover(robot, after_s=0.0)
    drive(robot, teleop, 0.1, hz=50)
    asked: list[int] = []
    act = teleop._expert.act
    teleop._expert.act = lambda seen: asked.append(robot.steps) or act(seen)
    drive(robot, teleop, 2.0, hz=50)
    assert len(asked) == len(set(asked)) == pytest.approx(20, abs=1)


def test_the_expert_solves_it() -> None:
    robot = pusher()
    drive(robot, takeover(robot, after_s=0.5), 29.0)
    assert robot.success()


def test_only_simulators_have_experts() -> None:
    teleop = make_teleop(load_teleop("expert"))
    with pytest.raises(ContractError, match="ExpertTakeover: expected a SimRobot, got DummyRobot"):
        teleop.begin(DummyRobot(["a"]))
    with pytest.raises(ContractError, match=r"expected begin\(robot\) to be called first"):
        teleop.act({"state": np.zeros(1, np.float32), "images": {}, "times": {"state": 0.0}})


def test_times_that_cannot_be() -> None:
    with pytest.raises(ContractError, match=r"between_s: expected \[from, to\] each, got \[2, 1\]"):
        ExpertTakeover({"class": "PushTExpert"}, between_s=[[2, 1]])


MINE = """\
import numpy as np

from menura.teleop import Teleoperator


class MyDevice(Teleoperator):
    def __init__(self, port: str):
        self.port = port

    def act(self, observation):
        return np.ones(self.features.action_dim, np.float32)


class Nothing:
    pass
"""


def test_a_users_own(tmp_path: Path) -> None:
    (tmp_path / "teleop").mkdir()
    (tmp_path / "teleop" / "my_device.py").write_text(MINE)
    clock = VirtualClock()
    teleop = make_teleop(load_teleop("my_device", ["--teleop.args.port=x"], tmp_path), tmp_path, clock)
    teleop.begin(DummyRobot(["a", "b"]))
    teleop.connect()
    teleop.sent(None)
    assert teleop.act({"state": np.zeros(2, np.float32), "images": {}, "times": {"state": 0.0}}).tolist() == [1, 1]
    assert teleop.clock is clock
    with pytest.raises(ContractError, match=r"Nothing: expected a teleoperator, got no begin\(\)"):
        make_teleop({"class": "Nothing"}, tmp_path)
