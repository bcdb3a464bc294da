"""Keys: read without waiting, shared, and turned into actions that begin where the robot was told to be."""

from __future__ import annotations

import os
import termios
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from menura.clock import VirtualClock
from menura.config import load_teleop
from menura.errors import ContractError
from menura.robots import RobotError
from menura.robots.dummy import DummyRobot
from menura.teleop import make_teleop
from menura.teleop.keyboard import Keyboard
from menura.teleop.terminal import Listener, Terminal

Press = Callable[[str], None]
KEYS = {"w": {"x": 0.1}, "s": {"x": -0.1}, "up": {"y": 0.2}, "c": {"grip": "close"}, "o": {"grip": "open"}}
ACTION = {"names": ["x", "y", "grip"], "grippers": {"grip": [0.0, 1.0]}}


def taken(listener: Listener, count: int) -> list[str]:
    """So many keys; a terminal hands them over in its own time."""
    keys: list[str] = []
    deadline = time.monotonic() + 5
    while len(keys) < count and time.monotonic() < deadline:
        keys += listener.take()
    return keys


def test_keys_are_handed_over_at_once_by_name_and_to_everybody(terminal: tuple[Terminal, Press]) -> None:
    keys, press = terminal
    first, second = keys.listen(), keys.listen()
    assert first.take() == []
    press("w \x1b[A\x1bOD\n\x1b")
    pressed = ["w", "space", "up", "left", "enter", "escape"]
    assert taken(first, 6) == pressed
    assert second.take() == pressed
    assert first.take() == []


def test_the_terminal_is_left_as_it_was(terminal: tuple[Terminal, Press]) -> None:
    keys, _ = terminal
    descriptor = keys._descriptor
    assert descriptor is not None
    before = termios.tcgetattr(descriptor)
    first, second = keys.listen(), keys.listen()
    assert not termios.tcgetattr(descriptor)[3] & termios.ECHO
    first.close()
    first.close()
    assert not termios.tcgetattr(descriptor)[3] & termios.ECHO
    second.close()
    assert termios.tcgetattr(descriptor) == before


def test_without_a_terminal_it_says_so() -> None:
    reading, writing = os.pipe()
    with pytest.raises(RobotError, match="keyboard: expected a terminal, got none"):
        Terminal(reading).listen()
    os.close(reading)
    os.close(writing)


class Hand:
    """A keyboard that drives a dummy, tick by tick."""

    def __init__(self, terminal: tuple[Terminal, Press], robot: dict[str, Any] | None = None, **args: Any) -> None:
        keys, self.press = terminal
        self.clock = VirtualClock()
        limits = {"low": [-1, -1, 0], "high": 1}
        section = {"action": ACTION, "limits": limits, "lag_s": 0.0, "fps": 100.0, **(robot or {})}
        self.robot = DummyRobot(**section, clock=self.clock)
        self.keyboard = Keyboard(KEYS, terminal=keys, **args)
        self.keyboard.clock = self.clock
        self.keyboard.begin(self.robot)
        self.keyboard.connect()
        self.robot.connect()

    def tick(self, keys: str = "") -> list[float] | None:
        """What the keyboard answers when these keys are pressed; it is sent."""
        self.press(keys)
        time.sleep(0.002 if keys else 0)
        self.clock.advance(0.1)
        action = self.keyboard.act(self.robot.get_observation())
        if action is None:
            return None
        self.keyboard.sent(self.robot.send_action(action))
        return [round(float(number), 4) for number in action]


def test_not_engaged_until_a_key_and_not_long_after_it(terminal: tuple[Terminal, Press]) -> None:
    hand = Hand(terminal, engaged_s=0.25)
    assert hand.tick() is None
    assert hand.tick("x") is None  # no key of its own
    assert hand.tick("w") == [0.1, 0, 0]
    assert hand.tick() == [0.1, 0, 0]
    assert hand.tick() == [0.1, 0, 0]
    assert hand.tick() is None


def test_absolute_targets_begin_where_the_robot_was_told_to_be(terminal: tuple[Terminal, Press]) -> None:
    hand = Hand(terminal)
    hand.keyboard.sent(np.array([0.5, -0.5, 0.7], np.float32))
    assert hand.tick("ww\x1b[A") == [0.7, -0.3, 0.7]
    assert hand.tick("so") == [0.6, -0.3, 1.0]


def test_before_anything_was_sent_they_begin_where_it_is(terminal: tuple[Terminal, Press]) -> None:
    hand = Hand(terminal, robot={"start": {"x": 0.3, "grip": 0.4}})
    assert hand.tick("w") == [0.4, 0, 0.4]


def test_where_that_is_not_known_it_does_not_engage(
    terminal: tuple[Terminal, Press], caplog: pytest.LogCaptureFixture
) -> None:
    hand = Hand(terminal, robot={"state": ["x", "grip"]})
    assert hand.tick("w") is None
    assert "the state does not tell of ['y']: not engaged" in caplog.text


def test_targets_stay_within_the_limits(terminal: tuple[Terminal, Press]) -> None:
    hand = Hand(terminal)
    assert hand.tick("w" * 15) == [1, 0, 0]
    assert hand.tick("s") == [0.9, 0, 0]


def test_of_differences_a_key_is_one(terminal: tuple[Terminal, Press]) -> None:
    hand = Hand(terminal, robot={"control_type": "delta"}, engaged_s=0.35)
    hand.keyboard.sent(np.array([0.5, 0.5, 1.0], np.float32))
    assert hand.tick("w") == [0.1, 0, 1]
    assert hand.tick() == [0, 0, 1]  # engaged: it stays, the gripper too
    assert hand.tick("cww") == [0.2, 0, 0]
    assert hand.tick() == [0, 0, 0]


def test_a_key_that_engages_and_lets_go(terminal: tuple[Terminal, Press]) -> None:
    hand = Hand(terminal, toggle="t", engaged_s=0.05)
    assert hand.tick("t") == [0, 0, 0]
    hand.clock.advance(60)
    assert hand.tick() == [0, 0, 0]
    assert hand.tick("wt") is None
    assert hand.tick("t") == [0, 0, 0]
    hand.keyboard.sent(None)  # a new episode: the policy's
    assert hand.tick() is None


def test_disconnected_it_is_not_engaged(terminal: tuple[Terminal, Press]) -> None:
    hand = Hand(terminal, toggle="t")
    assert hand.tick("t") == [0, 0, 0]
    hand.keyboard.disconnect()
    hand.keyboard.disconnect()
    with pytest.raises(ContractError, match=r"expected connect\(\) to be called first"):
        hand.tick()
    hand.keyboard.connect()
    assert hand.tick() is None


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"w": {"z": 0.1}}, "Keyboard.keys.w: the robot's action has no dimension 'z'"),
        ({"w": {"z": 0.1}}, "Say which keys move its own in a configs/teleop/NAME.yaml"),
        ({"w": {"x": "open"}}, "Keyboard.keys.w.x: expected a number, got open"),
        ({"w": {"grip": "shut"}}, "Keyboard.keys.w.grip: expected a number, open or close, got shut"),
        ({"w": {"qw": 0.1}}, "expected a dimension that can be moved alone, got 'qw' of a rotation"),
        ({"upp": {"x": 0.1}}, "got 'upp'; did you mean up?"),
        ({"t": {"x": 0.1}}, "Keyboard.toggle: expected a key that moves nothing, got 't'"),
    ],
)
def test_keys_that_cannot_be(keys: dict[str, Any], message: str) -> None:
    quaternion = ["qw", "qx", "qy", "qz"]
    rotations = [{"names": quaternion, "representation": "quat_wxyz"}]
    action = {"names": ["x", "grip", *quaternion], "grippers": {"grip": [0, 1]}, "rotations": rotations}
    with pytest.raises(ContractError) as caught:
        Keyboard(keys, toggle="t").begin(DummyRobot(action))
    assert message in str(caught.value)


def test_the_packaged_one_fits_a_hand_of_these_names() -> None:
    keyboard = make_teleop(load_teleop("keyboard"))
    action = {"names": ["x", "y", "z", "gripper"], "grippers": {"gripper": [0, 1]}}
    keyboard.begin(DummyRobot(action, control_type="delta"))
    assert keyboard.features.action.dim == 4
