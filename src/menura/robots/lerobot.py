"""Any robot of LeRobot's drivers, by its registered type: SO-100/101, Koch, two arms, LeKiwi, Reachy 2, … Torch-free.

Names, units and clipping are LeRobot's (0.6.1): `shoulder_pan.pos` in degrees about the middle of the calibrated range,
or in percent of it where the robot's configuration says `use_degrees: false`; a gripper in percent.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np

from menura.features import CameraFeature, ControlSpace, ControlType, Features
from menura.robots import lerobot_devices as devices
from menura.robots.base import Float32, Limits, Robot, RobotError, RobotObservation, UInt8
from menura.robots.driver import driver_errors

_NONE: Mapping[str, Any] = MappingProxyType({})


class LeRobotRobot(Robot):
    """A robot that LeRobot drives.

    The times of an observation are no later than the truth, and as near to it as LeRobot tells:

    - The state is read when it is asked for; its time is that of asking.
    - A camera's picture is the newest its thread had read; its time is when that thread had it, which is after the
      exposure by what the camera and its cable take (tens of milliseconds): `camera_latency_s` says how long, and
      is subtracted. A camera of which LeRobot keeps no time counts as read when asked for.
    - A robot across a network (`lekiwi_client`) hands out what it last got when nothing new came; that keeps its time.

    It may be read and driven from different threads: the motors' bus carries one thing at a time, so that an action
    waits for a reading under way (a few milliseconds).

    Args:
        type: as LeRobot registers it: `so101_follower`, `koch_follower`, `bi_so_follower`, `lekiwi`, …
        config: what LeRobot's configuration of this type has: `port`, `id`, `cameras`, `max_relative_target`, …
        limits: as of `Limits.of`, by LeRobot's names and in its units; `low: calibration` and `high: calibration` take
            the range within which each motor was calibrated. None: it is not driven.
        units: {name: unit} of numbers whose unit the motors do not tell (a base's velocities).
        grippers: {name: [value when closed, value when open]}.
        camera_latency_s: {camera: seconds from exposure to arrival}.
        control_space, control_type: what an action is.
        fps: the rate at which it is made to be commanded; 0: not said.

    Raises:
        RobotError: LeRobot or the robot's SDK is not installed, or one of these contradicts what LeRobot says of it.
    """

    def __init__(
        self,
        type: str,
        config: Mapping[str, Any] = _NONE,
        *,
        limits: Mapping[str, Any] | None = None,
        units: Mapping[str, str] = _NONE,
        grippers: Mapping[str, Sequence[float]] = _NONE,
        camera_latency_s: Mapping[str, float] = _NONE,
        control_space: ControlSpace = "joint",
        control_type: ControlType = "abs",
        fps: float = 0.0,
    ) -> None:
        self.name = str(config.get("id") or type)
        self._device = devices.make_device("robot", type, config)
        observed: Mapping[str, Any] = self._device.observation_features
        ends = {name: (float(closed), float(opened)) for name, (closed, opened) in grippers.items()}
        self.features = Features(
            state=devices.vector(devices.number_names(observed), self._device, units, ends),
            action=devices.vector(devices.number_names(self._device.action_features), self._device, units, ends),
            cameras=self._camera_features(observed),
            fps=fps,
            control_space=control_space,
            control_type=control_type,
            robot=type,
        )
        self._check_names("units", units)
        self._check_names("grippers", grippers)
        self._check_names("camera_latency_s", camera_latency_s)
        self._latency_s = dict(camera_latency_s)
        self.limits = None if limits is None else self._limits(limits)
        self._connected = False
        self._bus = threading.Lock()
        self._newest: tuple[Any, RobotObservation] | None = None

    def connect(self) -> None:
        """Open its port and cameras and let LeRobot configure and power its motors; it is commanded nothing.

        Raises:
            RobotError: it cannot be reached, or LeRobot says that it is not calibrated.
        """
        if self._connected:
            return
        devices.connect(self._device, self.name)
        self._newest = None
        self._connected = True

    def disconnect(self) -> None:
        """Close its port and cameras; the arm goes limp unless `disable_torque_on_disconnect: false`."""
        if self._connected:
            self._connected = False
            with self._bus:
                devices.release(self._device, self.name)

    def get_observation(self) -> RobotObservation:
        self._check_connected()
        cameras = devices.cameras_of(self._device)
        before = {name: getattr(cameras.get(name), "latest_timestamp", None) for name in self.features.cameras}
        with self._bus, driver_errors(f"{self.name}: it cannot be read"):
            asked_s = self.clock.now()
            reading = self._device.get_observation()
        if self._newest is not None and reading is self._newest[0]:
            return self._newest[1]
        times = {"state": asked_s}
        for name in self.features.cameras:
            picture = self._value(reading, name)
            read_at = _read_at(cameras.get(name), picture, before[name])
            age_s = 0.0 if read_at is None else time.perf_counter() - read_at
            read_s = asked_s if read_at is None else self.clock.now() - age_s
            times[name] = read_s - self._latency_s.get(name, 0.0)
        observation: RobotObservation = {
            "state": self._numbers(reading, devices.number_names(self._device.observation_features), "state"),
            "images": {name: self._picture(reading, name) for name in self.features.cameras},
            "times": times,
        }
        self._newest = reading, observation
        return observation

    def send_action(self, action: Float32) -> Float32:
        """Command an action (A,); returns (A,) what LeRobot says was sent, after our limits and its own clipping."""
        self._check_connected()
        if self.limits is None:
            raise RobotError(f"{self.name}: expected limits, got none. Say `limits:` of the robot before it is driven.")
        names = self.features.action.names
        if action.shape != (len(names),):
            raise RobotError(f"{self.name}: expected an action of shape ({len(names)},), got {action.shape}.")
        command = dict(zip(names, self.limits.clip(action).tolist(), strict=True))
        with self._bus, driver_errors(f"{self.name}: it took no action"):
            sent = self._device.send_action(command)
        return self._numbers(sent, names, "action sent")

    def stopped(self) -> str | None:
        """That a part of it is gone, as LeRobot notices it; its own emergency stop is its power switch."""
        with driver_errors(f"{self.name}: it cannot be asked"):
            lost = self._connected and not self._device.is_connected
        return "LeRobot lost the connection to a part of it" if lost else None

    def _camera_features(self, observed: Mapping[str, Any]) -> dict[str, CameraFeature]:
        found = {}
        for name, shape in observed.items():
            if not isinstance(shape, tuple):
                continue
            if len(shape) != 3 or shape[2] != 3:
                raise RobotError(
                    f"{self.name}: expected cameras of colour, got {name!r} of shape {shape}. Leave depth out."
                )
            found[name] = CameraFeature(shape[0], shape[1])
        for name, camera in devices.cameras_of(self._device).items():
            if getattr(getattr(camera, "color_mode", None), "value", "rgb") != "rgb":
                raise RobotError(f"{self.name}: expected RGB of camera {name!r}, got BGR. Set its color_mode to rgb.")
        return found

    def _check_names(self, what: str, given: Mapping[str, Any]) -> None:
        state = self.features.state.names if self.features.state is not None else ()
        known = self.features.cameras if what == "camera_latency_s" else {*state, *self.features.action.names}
        for name in given:
            if name not in known:
                raise RobotError(f"{self.name}: {what}: expected some of {sorted(known)}, got {name!r}.")

    def _limits(self, given: Mapping[str, Any]) -> Limits:
        motors = devices.motors_of(self._device)
        said = dict(given)
        for key in ("low", "high"):
            if said.get(key) != "calibration":
                continue
            ends = {name: getattr(motors.get(name), key, None) for name in self.features.action.names}
            unknown = [name for name, end in ends.items() if end is None]
            if unknown:
                raise RobotError(
                    f"{self.name}: limits.{key}: expected a calibration of each motor, got none of {unknown} in "
                    f"{self._device.calibration_fpath}. Calibrate it with lerobot-calibrate, or write numbers."
                )
            said[key] = ends
        return Limits.of(said, self.features.action)

    def _numbers(self, values: Mapping[str, Any], names: Sequence[str], what: str) -> Float32:
        numbers = np.array([self._value(values, name) for name in names], np.float32)
        if not np.isfinite(numbers).all():
            wrong = [name for name, number in zip(names, numbers, strict=True) if not np.isfinite(number)]
            raise RobotError(f"{self.name}: {what}: expected finite numbers, got others for {wrong}.")
        return numbers

    def _picture(self, reading: Mapping[str, Any], name: str) -> UInt8:
        feature = self.features.cameras[name]
        picture: UInt8 = np.asarray(self._value(reading, name))
        if picture.shape != (feature.height, feature.width, 3) or picture.dtype != np.uint8:
            raise RobotError(
                f"{self.name}: camera {name!r}: expected ({feature.height}, {feature.width}, 3) uint8, got "
                f"{picture.shape} {picture.dtype}."
            )
        return picture

    def _value(self, values: Mapping[str, Any], name: str) -> Any:
        if name not in values:
            raise RobotError(f"{self.name}: expected {name!r} from its driver, got only {sorted(map(str, values))}.")
        return values[name]

    def _check_connected(self) -> None:
        if not self._connected:
            raise RobotError(f"{self.name}: expected it to be connected, got a call before connect().")


def _read_at(camera: Any, picture: Any, before: float | None) -> float | None:
    """When a camera's thread had a picture (`time.perf_counter`), or when it had one that is no newer."""
    lock = getattr(camera, "frame_lock", None)
    if lock is not None:
        with lock:
            if camera.latest_frame is picture:
                newest: float | None = camera.latest_timestamp
                return newest
    return before
