"""Keyboard: keys of the terminal move named dimensions of the action, a step each."""

from __future__ import annotations

import logging
from collections.abc import Mapping

import numpy as np

from menura.control.hold import measured
from menura.errors import ContractError, did_you_mean
from menura.features import Features
from menura.processing.rotations import neutral
from menura.robots.base import Float32, Limits, Robot, RobotObservation
from menura.teleop.base import Teleoperator
from menura.teleop.terminal import KEY_NAMES, TERMINAL, Listener, Terminal

_log = logging.getLogger(__name__)

#: Rotations whose numbers cannot be changed one by one.
_COUPLED = ("quat_wxyz", "quat_xyzw", "6d", "matrix")

Move = Mapping[str, float | str]


class Keyboard(Teleoperator):
    """Drives while keys are pressed, from where the robot was last told to be.

    Of absolute actions a key moves the target, which otherwise holds; of differences a key is one difference, and
    without one the robot stays. Grippers keep what they were told.

    Args:
        keys: key -> {dimension of the action: step}; of a gripper also `open` or `close`. A key is a character, or
            `up`, `down`, `left`, `right`, `space`, `enter`, `tab`, `backspace`, `escape`. Steps are in the action's
            units, one for each press: a held key repeats some 30 times a second.
        engaged_s: engaged until so long after the last of these keys.
        toggle: a key that engages, and when pressed again lets go; it then does not matter how long ago others were.
    """

    name = "keyboard"

    def __init__(
        self,
        keys: Mapping[str, Move],
        engaged_s: float = 0.5,
        toggle: str | None = None,
        terminal: Terminal | None = None,
    ) -> None:
        for key in (*keys, *(() if toggle is None else (toggle,))):
            if len(key) != 1 and key not in KEY_NAMES:
                hint = did_you_mean(key, KEY_NAMES) or "."
                raise ContractError(f"Keyboard: expected a character or {sorted(KEY_NAMES)}, got {key!r}{hint}")
        if toggle in keys:
            raise ContractError(f"Keyboard.toggle: expected a key that moves nothing, got {toggle!r}.")
        self._keys = keys
        self._engaged_s = engaged_s
        self._toggle = toggle
        self._terminal = TERMINAL if terminal is None else terminal
        self._listener: Listener | None = None
        self._last: Float32 | None = None  # what was sent last, whoever drove
        self._target: Float32 | None = None  # while engaged
        self._pressed_s: float | None = None
        self._toggled = False

    def begin(self, robot: Robot) -> None:
        """ContractError where a key names what the robot's action has not, or its actions are of an unknown type."""
        super().begin(robot)
        if robot.features.control_type is None:
            raise ContractError(
                f"Keyboard: expected a robot that says whether its actions are absolute or differences, got "
                f"{robot.name}. Set control_type in its features."
            )
        self._limits: Limits | None = robot.limits
        self._steps = {key: _Step(move, robot.features, key) for key, move in self._keys.items()}
        names = robot.features.action.names
        self._grippers = [names.index(name) for name in robot.features.action.grippers]
        self._neutral = neutral(robot.features.action)

    def connect(self) -> None:
        if self._listener is None:
            self._listener = self._terminal.listen()

    def disconnect(self) -> None:
        if self._listener is not None:
            self._listener.close()
            self._listener = None
        self._let_go()

    def sent(self, action: Float32 | None) -> None:
        self._last = action
        if action is None:
            self._let_go()

    def act(self, observation: RobotObservation) -> Float32 | None:
        pressed = self._pressed()
        if not self._is_engaged():
            self._target = None
            return None
        if self._target is None:
            self._target = self._start(observation["state"])
        if self._target is None:
            return None
        if self.features.control_type == "delta":
            grippers = self._target[self._grippers]
            self._target = self._neutral.copy()
            self._target[self._grippers] = grippers
        for step in pressed:
            step.move(self._target)
        if self._limits is not None:
            self._target = self._limits.clip(self._target)
        action: Float32 = self._target.copy()
        return action

    def _pressed(self) -> list[_Step]:
        """What the keys since the last time ask for."""
        if self._listener is None:
            raise ContractError("Keyboard: expected connect() to be called first, got act().")
        steps = []
        for key in self._listener.take():
            if key == self._toggle:
                self._toggled = not self._toggled
                self._pressed_s = None
            elif key in self._steps:
                steps.append(self._steps[key])
                self._pressed_s = self.clock.now()
        return steps

    def _is_engaged(self) -> bool:
        recently = self._pressed_s is not None and self.clock.now() - self._pressed_s < self._engaged_s
        return self._toggled or recently

    def _let_go(self) -> None:
        self._target = None
        self._pressed_s = None
        self._toggled = False

    def _start(self, state: Float32) -> Float32 | None:
        """(A,) where the robot was told to be, else where it is; None, and said, where neither is known."""
        start: Float32 = (self._neutral if self._last is None else self._last).copy()
        if self._last is None:
            known = measured(self.features, state)
            wanted = self._grippers if self.features.control_type == "delta" else list(range(start.size))
            unknown = [self.features.action.names[place] for place in wanted if np.isnan(known[place])]
            if unknown:
                _log.warning("keyboard: nothing was sent yet, the state does not tell of %s: not engaged", unknown)
                self._let_go()
                return None
            start[wanted] = known[wanted]
        return start


class _Step:
    """What one key does to an action."""

    def __init__(self, move: Move, features: Features, key: str) -> None:
        action = features.action
        coupled = {name for r in action.rotations if r.representation in _COUPLED for name in r.names}
        self._added = np.zeros(action.dim, np.float32)
        self._set: dict[int, float] = {}
        for name, value in move.items():
            if name not in action.names:
                hint = did_you_mean(name, action.names) or f". It has {list(action.names)}."
                raise ContractError(
                    f"Keyboard.keys.{key}: the robot's action has no dimension {name!r}{hint} Say which keys move its "
                    "own in a configs/teleop/NAME.yaml with class: Keyboard, and give --teleop NAME."
                )
            if name in coupled:
                raise ContractError(
                    f"Keyboard.keys.{key}: expected a dimension that can be moved alone, got {name!r} of a rotation."
                )
            place = action.names.index(name)
            if not isinstance(value, str):
                self._added[place] = value
            elif name in action.grippers and value in ("close", "open"):
                self._set[place] = action.grippers[name][value == "open"]
            else:
                raise ContractError(
                    f"Keyboard.keys.{key}.{name}: expected a number{_words(name, features)}, got {value}."
                )

    def move(self, action: Float32) -> None:
        action += self._added
        for place, value in self._set.items():
            action[place] = value


def _words(name: str, features: Features) -> str:
    return ", open or close" if name in features.action.grippers else ""
