"""LeRobot's teleoperators by their registered type: leader arms, gamepads. Torch-free."""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np

from menura.errors import ContractError, did_you_mean
from menura.processing.rotations import neutral
from menura.robots import lerobot_devices as devices
from menura.robots.base import Float32, Robot, RobotError, RobotObservation
from menura.robots.driver import driver_errors
from menura.teleop.base import Teleoperator
from menura.teleop.terminal import KEY_NAMES, TERMINAL, Listener, Terminal

_log = logging.getLogger(__name__)

_NONE: Mapping[str, Any] = MappingProxyType({})
_GOODBYE_S = 2.0
#: What LeRobot's devices for end effectors call closing and opening (`GripperAction`, 0.6.1); 1 is to leave it.
_CLOSE, _OPEN = 0, 2


class LeRobotTeleoperator(Teleoperator):
    """A device of LeRobot's that says what the robot is to do.

    It is read in a thread of its own, so that a slow bus never delays the robot; a device that has nothing new for
    `max_age_s` is an error, and the robot holds.

    Engaged: always; with `toggle`, from that key of the terminal until it is pressed again; with `events`, while the
    device itself says so (`get_teleop_events`, as gamepads have it).

    Args:
        type: as LeRobot registers it: `so101_leader`, `koch_leader`, `bi_so_leader`, `gamepad`, …
        config: what LeRobot's configuration of this type has: `port`, `id`, …
        names: {the device's name: the action's}, where they differ. Leader arms have their followers' names.
        scale: {the device's name: factor}, of a device whose numbers are shares of a step.
        toggle, events: as above.
        align: a takeover begins when every joint of the leader is within this of where the robot was last told to be
            (before it was told anything: of where it is), in the robot's units, and not before: bring the leader
            there. None: it begins at once, and the robot goes where the leader is, no faster than its limits allow.
            Of absolute actions only.
        max_age_s, poll_hz: how old the newest reading may be, and how often the device is read.

    Raises:
        RobotError: LeRobot or the device's SDK is not installed, or a field is wrong.
        ContractError: an argument is wrong.
    """

    def __init__(
        self,
        type: str,
        config: Mapping[str, Any] = _NONE,
        *,
        names: Mapping[str, str] = _NONE,
        scale: Mapping[str, float] = _NONE,
        toggle: str | None = None,
        events: bool = False,
        align: float | None = None,
        max_age_s: float = 0.2,
        poll_hz: float = 100.0,
        terminal: Terminal | None = None,
    ) -> None:
        self.name = str(config.get("id") or type)
        self._device = devices.make_device("teleoperator", type, config)
        described: Mapping[str, Any] = self._device.action_features
        self._own = devices.number_names(described)
        self._of_hand = isinstance(described.get("names"), Mapping)
        for name in (*names, *scale):
            if name not in self._own:
                hint = did_you_mean(name, self._own) or f". It has {list(self._own)}."
                raise ContractError(f"{self.name}: the device has no {name!r}{hint}")
        if toggle is not None and len(toggle) != 1 and toggle not in KEY_NAMES:
            raise ContractError(f"{self.name}.toggle: expected a character or {sorted(KEY_NAMES)}, got {toggle!r}.")
        if events and not hasattr(self._device, "get_teleop_events"):
            raise ContractError(f"{self.name}.events: expected a device that tells events, got {type}. Use toggle.")
        self._names, self._scale = names, scale
        self._toggle, self._events, self._align = toggle, events, align
        self._max_age_s, self._poll_s = max_age_s, 1.0 / poll_hz
        self._terminal = TERMINAL if terminal is None else terminal
        self._listener: Listener | None = None
        self._reader: _Reader | None = None
        self._toggled = self._driving = self._waiting = False
        self._last: Float32 | None = None

    def begin(self, robot: Robot) -> None:
        """ContractError where the device does not say every dimension of the robot's action."""
        super().begin(robot)
        action = robot.features.action
        said = [self._names.get(name, name) for name in self._own]
        # A difference that it does not say is none; a target, and a gripper, must be said.
        needed = action.grippers if robot.features.control_type == "delta" else action.names
        lacking = [name for name in needed if name not in said]
        if lacking:
            raise ContractError(
                f"{self.name}: expected every dimension of {robot.name}'s action, got none for {lacking}; it says "
                f"{said}. Name them by `names: {{the device's: the action's}}`."
            )
        if self._align is not None and robot.features.control_type != "abs":
            raise ContractError(f"{self.name}.align: expected a robot of absolute actions, got {robot.name}.")
        self._places = {
            own: action.names.index(name) for own, name in zip(self._own, said, strict=True) if name in action.names
        }
        self._neutral = neutral(action)

    def connect(self) -> None:
        if self._reader is not None:
            return
        devices.connect(self._device, self.name)
        try:
            if self._toggle is not None:
                self._listener = self._terminal.listen()
        except RobotError:
            devices.release(self._device, self.name)
            raise
        self._reader = _Reader(self)

    def disconnect(self) -> None:
        if self._listener is not None:
            self._listener.close()
            self._listener = None
        reader, self._reader = self._reader, None
        self._let_go()
        if reader is not None:
            reader.stop()
            devices.release(self._device, self.name)

    def sent(self, action: Float32 | None) -> None:
        self._last = action
        if action is None:
            self._let_go()

    def act(self, observation: RobotObservation) -> Float32 | None:
        if self._reader is None:
            raise ContractError(f"{self.name}: expected connect() to be called first, got act().")
        for key in [] if self._listener is None else self._listener.take():
            self._toggled = self._toggled != (key == self._toggle)
        if self._toggle is not None and not self._toggled:
            self._driving = self._waiting = False
            return None
        numbers, engaged = self._reader.newest(self.clock.now(), self._max_age_s)
        if not engaged:
            self._driving = False
            return None
        action = self._action(numbers)
        if not self._driving and not self._is_aligned(action, observation["state"]):
            return None
        self._driving = True
        return action

    def read(self) -> tuple[dict[str, float], bool]:
        """In the reader's thread: the device's numbers, and whether it says that it is engaged."""
        with driver_errors(f"{self.name}: it cannot be read"):
            numbers = self._device.get_action()
            engaged = True
            if self._events:
                told = self._device.get_teleop_events()
                engaged = any(on for event, on in told.items() if event.value == "is_intervention")
            return {name: float(numbers[name]) for name in self._own}, engaged

    def _action(self, numbers: Mapping[str, float]) -> Float32:
        action: Float32 = self._neutral.copy()
        feature = self.features.action
        for own, place in self._places.items():
            name = feature.names[place]
            if self._of_hand and name in feature.grippers:
                action[place] = self._gripper(numbers[own], place, feature.grippers[name])
            else:
                action[place] = numbers[own] * self._scale.get(own, 1.0)
        return action

    def _gripper(self, told: float, place: int, ends: tuple[float, float]) -> float:
        """Of a device that only closes and opens: where the gripper is told to be."""
        if told in (_CLOSE, _OPEN):
            return ends[told == _OPEN]
        return ends[1] if self._last is None else float(self._last[place])

    def _is_aligned(self, action: Float32, state: Float32) -> bool:
        if self._align is None:
            return True
        apart = np.abs(action - (self._standing(state) if self._last is None else self._last))
        aligned = bool((apart <= self._align).all())
        if not aligned and not self._waiting:
            names = [name for name, by in zip(self.features.action.names, apart, strict=True) if not by <= self._align]
            _log.warning("%s: bring the leader to where the robot is, within %g: %s", self.name, self._align, names)
        self._waiting = not aligned
        return aligned

    def _standing(self, state: Float32) -> Float32:
        """(A,) where the state says that each joint is; NaN, which is near nothing, where it does not."""
        names = () if self.features.state is None else self.features.state.names
        joints = self.features.action.names
        return np.array([state[names.index(name)] if name in names else np.nan for name in joints], np.float32)

    def _let_go(self) -> None:
        self._toggled = self._driving = self._waiting = False


class _Reader:
    """Reads a device again and again in a thread of its own."""

    def __init__(self, teleop: LeRobotTeleoperator) -> None:
        self._teleop = teleop
        self._newest: tuple[float, dict[str, float], bool] | None = None
        self._failure: RobotError | None = None
        self._begun_s = teleop.clock.now()
        self._ends = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"reading {teleop.name}", daemon=True)
        self._thread.start()

    def newest(self, now_s: float, max_age_s: float) -> tuple[dict[str, float], bool]:
        """RobotError where the device is silent for longer than `max_age_s`, with what it failed with."""
        read_s = self._begun_s if self._newest is None else self._newest[0]
        if now_s - read_s > max_age_s or self._newest is None:
            why = "it is silent" if self._failure is None else str(self._failure)
            raise RobotError(f"{self._teleop.name}: expected a reading at least every {max_age_s:g} s, got none: {why}")
        return self._newest[1], self._newest[2]

    def stop(self) -> None:
        self._ends.set()
        self._thread.join(_GOODBYE_S)

    def _run(self) -> None:
        while not self._ends.wait(self._teleop._poll_s):
            asked_s = self._teleop.clock.now()
            try:
                numbers, engaged = self._teleop.read()
            except RobotError as error:
                self._failure = error
            else:
                self._newest, self._failure = (asked_s, numbers, engaged), None
