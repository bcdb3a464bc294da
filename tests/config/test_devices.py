"""Robots, teleoperators and controllers by name, path, class, file, or inline; what is wrong is told with its place."""

from __future__ import annotations

from pathlib import Path

import pytest

from menura.config import load_controller, load_robot, load_teleop
from menura.errors import ConfigError

MINE = """\
from menura.robots import Robot


class Helper:
    pass


class MyRobot(Robot):
    def __init__(self, port: str, speed: float = 1.0):
        self.name = "mine"
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "robot").mkdir()
    (tmp_path / "robot" / "my_robot.py").write_text(MINE)
    (tmp_path / "configs" / "robot").mkdir(parents=True)
    (tmp_path / "configs" / "robot" / "lab.yaml").write_text("class: MyRobot\nargs:\n  port: /dev/arm\n")
    (tmp_path / "configs" / "robot" / "fast.yaml").write_text("base: lab\nargs:\n  speed: 2.0\n")
    return tmp_path


def test_by_name_with_a_base_and_overrides(project: Path) -> None:
    config = load_robot("fast", ["--robot.args.port", "/dev/other"], project)
    assert (config.class_, config.args) == ("MyRobot", {"port": "/dev/other", "speed": 2.0})


def test_by_path_which_tells_the_project(project: Path) -> None:
    assert load_robot(project / "configs" / "robot" / "lab.yaml").args == {"port": "/dev/arm"}


@pytest.mark.parametrize("name", ["MyRobot", "my_robot", "robot/my_robot.py:MyRobot"])
def test_by_class_or_by_its_file(project: Path, name: str) -> None:
    assert load_robot(name, ["--robot.args.port=x"], project).args == {"port": "x"}


def test_inline(project: Path) -> None:
    assert load_robot({"class": "MyRobot", "args": {"port": "x"}}, project=project).class_ == "MyRobot"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("labb", "robot: no robot is named 'labb'; did you mean lab? Looked for configs/robot/labb.yaml"),
        ("MyRobott", "robot: no robot class is named 'MyRobott'; did you mean MyRobot?"),
        ({"class": "MyRobot"}, "robot.args.port: required by MyRobot, but missing"),
        (
            {"class": "MyRobot", "args": {"port": "x", "sped": 1}},
            "robot.args.sped: no such argument of MyRobot; did you",
        ),
        ({"class": "MyRobot", "args": {"port": "x", "speed": "y"}}, "robot.args.speed: expected a number, got 'y'"),
        ({"clas": "MyRobot"}, "robot.clas: no such key; did you mean class?"),
        (
            {"class": "SimRobot", "args": {"env": {"class": "PushT", "args": {"observd": "state"}}}},
            "robot.args.env.args.observd: no such argument of PushTEnv; did you mean observed?",
        ),
    ],
)
def test_what_is_wrong_is_told(project: Path, given: str | dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_robot(given, project=project)
    assert any(message in problem for problem in caught.value.problems), caught.value


def test_the_line_is_told(project: Path) -> None:
    (project / "configs" / "robot" / "lab.yaml").write_text("class: MyRobot\nargs:\n  prot: /dev/arm\n")
    with pytest.raises(ConfigError, match=r"did you mean port\? \(configs/robot/lab.yaml:3\)"):
        load_robot("lab", project=project)


def test_teleoperators_and_controllers_likewise(tmp_path: Path) -> None:
    assert load_teleop("keyboard").class_ == "Keyboard"
    assert load_controller("newest").class_ == "Newest"
    with pytest.raises(ConfigError, match=r"controller: no controller is named 'newst'; did you mean newest\?"):
        load_controller("newst", project=tmp_path)
    with pytest.raises(ConfigError, match=r"teleop.args.expert.clas: no such key"):
        load_teleop({"class": "ExpertTakeover", "args": {"expert": {"clas": "PushTExpert"}}})
