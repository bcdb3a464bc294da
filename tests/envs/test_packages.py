"""A simulator that is not installed is told with the command that installs it."""

from __future__ import annotations

import sys

import pytest

from menura.components import BUILT_IN
from menura.envs import make_env
from menura.envs.rendering import choose_backend
from menura.errors import EnvironmentFailure

#: Class -> the package that is missing, and the extra that brings it. The other classes: test_adapters.
EXTRAS = {
    "MetaWorld": ("metaworld", "metaworld"),
    "Aloha": ("gym_aloha", "aloha"),
    "PushT": ("gym_pusht", "pusht"),
    "GymRobotics": ("gymnasium_robotics", "gymnasium_robotics"),
    "PandaGym": ("panda_gym", "panda_gym"),
    "Robosuite": ("robosuite", "robosuite"),
    "DmControl": ("dm_control", "dm_control"),
}
TOLD_ELSEWHERE = {"Gym", "Libero", "ManiSkill", "SimplerEnv", "RoboTwin", "Calvin", "RoboCasa"}


def test_every_class_is_tried() -> None:
    assert set(EXTRAS) == set(BUILT_IN["env"]) - TOLD_ELSEWHERE


@pytest.mark.parametrize("name", EXTRAS)
def test_what_to_install_is_told(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    package, extra = EXTRAS[name]
    choose_backend()
    for module in [module for module in sys.modules if module.startswith(f"{package}.")]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, package, None)  # Python then says that there is none
    with pytest.raises(EnvironmentFailure) as told:
        make_env({"class": name})
    assert str(told.value).startswith(f"{name}Env: expected the package {package}, got no module '{package}")
    assert str(told.value).endswith(f". Run `pip install 'menura[{extra}]'`.")
