"""Devices of LeRobot's drivers (robots, teleoperators), made of what a YAML says of them. Torch-free until one is made.

LeRobot registers a configuration class under each device's type and makes the device of it (`lerobot.robots.utils`,
`lerobot.teleoperators.utils`, 0.6.1). It needs Python 3.12 or newer and is imported when the first device is made.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from dataclasses import fields as fields_of
from types import ModuleType
from typing import Any, Literal

from menura.errors import did_you_mean
from menura.features import VectorFeature
from menura.robots.base import RobotError
from menura.robots.driver import driver_errors

Kind = Literal["robot", "teleoperator"]

_INSTALL = (
    "Install it beside Menura (pip install 'menura[lerobot]', Python >= 3.12), or run the policy elsewhere "
    "(-m ws://host:port) and this in LeRobot's own environment."
)


def make_device(kind: Kind, type_: str, fields: Mapping[str, Any]) -> Any:
    """LeRobot's device of a type, with the fields of its configuration; it is not connected.

    Raises:
        RobotError: LeRobot or the device's SDK is not installed, there is no such type, or a field is wrong.
    """
    package = _import(f"lerobot.{kind}s")
    _register(package)
    _register(_import("lerobot.cameras"))
    _import("lerobot.utils.import_utils").register_third_party_plugins()
    registry = getattr(package, f"{kind.capitalize()}Config")
    types = registry.get_known_choices()
    if type_ not in types:
        raise RobotError(
            f"LeRobot: expected the type of a {kind}, got {type_!r}{did_you_mean(type_, types) or '.'} "
            f"Known: {', '.join(sorted(types))}."
        )
    config_class = registry.get_choice_class(type_)
    known = [field.name for field in fields_of(config_class)]
    for name in fields:
        if name not in known:
            hint = did_you_mean(name, known) or f". Known: {', '.join(known)}."
            raise RobotError(f"LeRobot's {type_}: it has no field {name!r}{hint}")
    with driver_errors(f"LeRobot's {type_}: it cannot be made"):
        config = _import("draccus").decode(config_class, dict(fields))
        return getattr(_import(f"lerobot.{kind}s.utils"), f"make_{kind}_from_config")(config)


def connect(device: Any, what: str) -> None:
    """Connect a device without LeRobot's dialogue for calibration.

    Raises:
        RobotError: it cannot be reached, or it is not calibrated; nothing of it stays connected.
    """
    # A few devices (lekiwi_client, gamepad) have nothing to calibrate: no such argument, and a method or None for
    # `is_calibrated`.
    arguments = {"calibrate": False} if "calibrate" in inspect.signature(device.connect).parameters else {}
    try:
        with driver_errors(f"{what}: it cannot be connected"):
            device.connect(**arguments)
            calibrated = device.is_calibrated
        if calibrated is False:
            raise RobotError(
                f"{what}: expected a calibration that agrees with its motors, got none or another in "
                f"{device.calibration_fpath}. Calibrate it with LeRobot's lerobot-calibrate, with the same type and id."
            )
    except BaseException:  # whatever stops it, a key included: no motor is left powered
        release(device, what)
        raise


def release(device: Any, what: str) -> None:
    """Disconnect whatever of a device is connected.

    LeRobot's own `disconnect` refuses once one part (a camera, say) is gone, and would leave the motors powered.

    Raises:
        RobotError: a part could not be let go of; the others are.
    """
    failures: list[str] = []

    def attempt(act: Any, *arguments: Any) -> None:
        try:
            with driver_errors(what):
                act(*arguments)
        except RobotError as error:
            failures.append(str(error))

    if device.is_connected:
        attempt(device.disconnect)
    for part in _parts(device).values():
        bus = getattr(part, "bus", None)
        if bus is not None and bus.is_connected:
            if hasattr(part, "stop_base"):
                attempt(part.stop_base)
            attempt(bus.disconnect, getattr(part.config, "disable_torque_on_disconnect", True))
        if bus is not None and bus.is_connected:  # the motors no longer answer: the port, at least, is free again
            attempt(bus.disconnect, False)
        for camera in getattr(part, "cameras", {}).values():
            if camera.is_connected:
                attempt(camera.disconnect)
    if failures:
        raise RobotError(
            f"{what}: it could not be let go of: {' '.join(dict.fromkeys(failures))} Cut its power before touching it."
        )


def number_names(features: Mapping[str, Any]) -> tuple[str, ...]:
    """The names of the numbers among a device's features, in order: `{name: float}`, or `{"names": {name: index}}`."""
    if isinstance(features.get("names"), Mapping):
        return tuple(sorted(features["names"], key=features["names"].__getitem__))
    return tuple(name for name, what in features.items() if what in (float, int))


@dataclass(frozen=True)
class MotorRange:
    """What is known of a motor's position: its unit, and the range within which it was calibrated, if it was."""

    unit: str
    low: float | None = None
    high: float | None = None


def motors_of(device: Any) -> dict[str, MotorRange]:
    """Position of a motor (`shoulder_pan.pos`), as in the device's features -> its range. Empty where it has no bus."""
    found: dict[str, MotorRange] = {}
    for prefix, part in _parts(device).items():
        bus: Any = getattr(part, "bus", None)
        for name, motor in getattr(bus, "motors", {}).items():
            found[f"{prefix}{name}.pos"] = _range(motor, bus, bus.calibration.get(name))
    return found


def cameras_of(device: Any) -> dict[str, Any]:
    """Name of a camera, as in the device's features -> LeRobot's camera."""
    found: dict[str, Any] = dict(getattr(device, "cameras", {}))  # of two arms: those they share, without a prefix
    for prefix, part in _parts(device).items():
        found |= {prefix + name: camera for name, camera in getattr(part, "cameras", {}).items()}
    return found


def vector(
    names: tuple[str, ...], device: Any, units: Mapping[str, str], grippers: Mapping[str, tuple[float, float]]
) -> VectorFeature:
    """What the numbers mean: `units`, else those of their motors; without units where one is not known."""
    known = {name: motor.unit for name, motor in motors_of(device).items()} | dict(units)
    return VectorFeature(
        names,
        units=tuple(known[name] for name in names) if set(names) <= set(known) else None,
        grippers={name: ends for name, ends in grippers.items() if name in names},
    )


def _parts(device: Any) -> dict[str, Any]:
    """Prefix of names -> the part of a device with that bus and those cameras: two arms, or the device itself."""
    if hasattr(device, "left_arm"):
        return {"left_": device.left_arm, "right_": device.right_arm}
    return {"": device}


def _range(motor: Any, bus: Any, calibration: Any | None) -> MotorRange:
    """As LeRobot's `_normalize` has it: degrees about the middle of the calibrated range, or percent of it."""
    mode = motor.norm_mode.value
    if mode != "degrees":
        return MotorRange("%", 0.0 if mode == "range_0_100" else -100.0, 100.0)
    if calibration is None:
        return MotorRange("deg")
    turn = bus.model_resolution_table[motor.model] - 1  # ticks of 360 degrees
    half = (calibration.range_max - calibration.range_min) / 2 * 360 / turn
    return MotorRange("deg", -half, half)


def _register(package: ModuleType) -> None:
    """Import every device of a package, for which no SDK is needed: a type is known once its module was imported."""
    for module in pkgutil.iter_modules(package.__path__):
        if module.ispkg:
            _import(f"{package.__name__}.{module.name}")


def _import(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        version = ".".join(map(str, sys.version_info[:2]))
        raise RobotError(
            f"LeRobot's drivers: expected the package lerobot (0.6 or newer), got no module {error.name!r} in this "
            f"Python {version}. {_INSTALL}"
        ) from error
