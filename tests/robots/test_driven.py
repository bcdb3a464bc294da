"""Robots in the control loop: a user's own by its name, and a simulated one with an expert that takes over."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from menura.config import load_robot
from menura.control.loop import SafetySettings
from menura.control.run import control
from menura.control.watchdog import WatchdogSettings
from menura.data import open_dataset
from menura.errors import ContractError
from menura.features import Features
from menura.robots import make_robot

MINE = """\
from pathlib import Path

import numpy as np

from menura.features import Features, VectorFeature
from menura.robots import Limits, Robot


class MyRobot(Robot):
    def __init__(self, log: str):
        joints = VectorFeature(("a", "b"))
        self.name, self.log = "mine", Path(log)
        self.features = Features(joints, joints, fps=50.0, control_type="abs", control_space="joint")
        self.limits = Limits.of({"low": -1, "high": 1}, joints)
        self.at = np.zeros(2, np.float32)

    def connect(self):
        self.log.write_text("connected\\n")

    def disconnect(self):
        with self.log.open("a") as file:
            file.write(f"disconnected at {self.at.tolist()}\\n")

    def get_observation(self):
        return {"state": self.at.copy(), "images": {}, "times": {"state": self.clock.now()}}

    def send_action(self, action):
        self.at = action
        return action
"""


class Steady:
    """A policy that always wants the same."""

    chunk_size = 10
    n_action_steps = 10
    name = "steady"
    required_cameras = ()
    observation_offsets = (0,)

    def __init__(self, features: Features, target: float) -> None:
        self.features, self.target = features, target

    def predict(self, obs: Any, **given: Any) -> np.ndarray:
        return np.full((1, 10, self.features.action_dim), self.target, np.float32)

    def generator(self, seed: int | None) -> None:
        return None

    def reset(self) -> None:
        return None


def drive(policy: Steady | None, robot: Any, project: Path, **settings: Any) -> Any:
    given = {"controller": "newest", "safety": SafetySettings(slow_start_s=0.0), "console": Console(file=io.StringIO())}
    return control(policy, robot, project=project, **{**given, **settings})


def test_a_users_own_robot_by_its_files_name(tmp_path: Path) -> None:
    from menura.features import VectorFeature

    (tmp_path / "robot").mkdir()
    (tmp_path / "robot" / "my_robot.py").write_text(MINE)
    joints = VectorFeature(("a", "b"))
    policy = Steady(Features(joints, joints, fps=50.0, control_type="abs", control_space="joint"), 0.5)
    log = tmp_path / "log.txt"
    report = drive(policy, "my_robot", tmp_path, max_seconds=0.2, overrides=[f"--robot.args.log={log}"])
    assert report.exit_code == 0
    assert log.read_text() == "connected\ndisconnected at [0.5, 0.5]\n"


def test_demonstrations_are_recorded_without_a_policy(project: Path, tmp_path: Path) -> None:
    """Until the teleoperator is engaged nothing is sent; when it is no more the robot holds, until patience ends."""
    (project / "teleop").mkdir()
    (project / "teleop" / "hand.py").write_text(
        "import numpy as np\n"
        "from menura.teleop import Teleoperator\n"
        "class Hand(Teleoperator):\n"
        "    def begin(self, robot):\n"
        "        super().begin(robot)\n"
        "        self.asked = 0\n"
        "    def act(self, observation):\n"
        "        self.asked += 1\n"
        "        return np.array([0.5, 1.0], np.float32) if 20 < self.asked <= 40 else None\n"
    )
    robot = make_robot(load_robot({"class": "SimRobot", "args": {"env": "point"}}, project=project), project)
    asked = {"teleop": "hand", "record": tmp_path / "data", "control_hz": 100.0, "controller": None}
    watchdog = WatchdogSettings(max_observation_age_s=30.0, patience_s=2.0)
    report = drive(None, robot, project, watchdog=watchdog, max_seconds=60.0, **asked)
    (episode,) = report.episodes
    assert (episode.ended, episode.reason) == ("fault", "the robot held too long: nobody drives")
    assert (episode.faults, episode.timing.inferences, episode.timing.interventions) == ((), 0, 20)
    assert episode.timing.holds["nobody drives"] >= 20  # before and after it
    recorded = open_dataset(tmp_path / "data").episode(0)
    assert recorded.action.tolist() == [[0.5, 1.0]] * len(recorded)
    assert (recorded.extra["interventions"][0][0], recorded.task) == (0, "come to 1")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"teleop": None, "controller": None}, "got neither. Give -m RUN, or --teleop NAME"),
        ({"teleop": "keyboard"}, "expected no controller and no dataset without a policy"),
    ],
)
def test_somebody_must_drive(given: Any, message: str, project: Path) -> None:
    with pytest.raises(ContractError, match=message):
        drive(None, "dummy", project, **given)


def test_an_expert_takes_over_a_simulated_robot_and_the_recording_says_when(project: Path, tmp_path: Path) -> None:
    robot = make_robot(load_robot({"class": "SimRobot", "args": {"env": "point"}}, project=project), project)
    expert = {"class": "ExpertTakeover", "args": {"expert": {"class": "PointExpert"}, "between_s": [[0.2, 0.5]]}}
    policy = Steady(robot.features, 0.75)
    report = drive(
        policy, robot, project, teleop=expert, record=tmp_path / "data", max_seconds=0.8, seed=3, control_hz=100.0
    )
    assert report.problem is None
    dataset = open_dataset(tmp_path / "data")
    episode = dataset.episode(0)
    (stretch,) = episode.extra["interventions"]
    driven = np.zeros(len(episode), bool)
    driven[slice(*stretch)] = True
    assert 5 <= driven.sum() <= 25  # of 50 frames a second, 0.3 s; however busy the machine
    assert episode.action[driven][1:, 0] == pytest.approx(0.25)
    assert episode.action[~driven][:5, 0] == pytest.approx(0.75)
    assert (episode.seed, episode.success) == (3, False)
