"""What ROS 2 messages say: numbers at a path of fields, pictures, times. It needs no ROS 2 installed. Torch-free."""

from __future__ import annotations

import importlib
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from menura.data.pictures import decode_picture
from menura.errors import DataError, did_you_mean
from menura.robots.base import RobotError, UInt8

_PATH = re.compile(r"[A-Za-z_]\w*(\[(\d+|[A-Za-z_][\w/-]*)\])?(\.[A-Za-z_]\w*(\[(\d+|[A-Za-z_][\w/-]*)\])?)*")
_PART = re.compile(r"(\w+)(?:\[([\w/-]+)\])?")
#: Encoding of a sensor_msgs/msg/Image -> (numbers a pixel, which of them are red, green and blue).
_ENCODINGS: Mapping[str, tuple[int, tuple[int, int, int]]] = {
    "rgb8": (3, (0, 1, 2)),
    "bgr8": (3, (2, 1, 0)),
    "rgba8": (4, (0, 1, 2)),
    "bgra8": (4, (2, 1, 0)),
    "mono8": (1, (0, 0, 0)),
}


@dataclass(frozen=True)
class Field:
    """A number in a message.

    Attributes:
        name: of the dimension of the state or the action.
        path: `linear.x`, `position[3]`, or `position[waist]`: the element whose place `waist` has in the message's
            `name` (sensor_msgs/msg/JointState).
        ends: the message's values where the dimension is 0 and 1; None: they are the same.
    """

    name: str
    path: str
    ends: tuple[float, float] | None = None

    @classmethod
    def of(cls, name: str, written: str | Mapping[str, Any]) -> Field:
        """Of a path, or of `{path: …, from_0_to_1: [value at 0, value at 1]}`."""
        fields = {"path": written} if isinstance(written, str) else dict(written)
        path, ends = fields.pop("path", None), fields.pop("from_0_to_1", None)
        if fields or not isinstance(path, str) or not _PATH.fullmatch(path):
            raise RobotError(
                f"{name}: expected a path such as linear.x, position[3] or position[waist], or {{path: …, "
                f"from_0_to_1: [value at 0, value at 1]}}, got {written!r}."
            )
        if ends is None:
            return cls(name, path)
        at_0, at_1 = map(float, ends)
        if at_0 == at_1:
            raise RobotError(f"{name}: from_0_to_1: expected two different values, got {ends}.")
        return cls(name, path, (at_0, at_1))

    def read(self, message: Any) -> float:
        """The number in a message.

        Raises:
            RobotError: the message has no such field or element, or it is not finite.
        """
        value = message
        for attribute, element in _PART.findall(self.path):
            value = _attribute(value, attribute, self)
            if element:
                value = value[self._place(message, value, element)]
        number = float(value)
        if not math.isfinite(number):
            raise RobotError(f"{self.name} ({self.path}): expected a finite number, got {number}.")
        return number if self.ends is None else (number - self.ends[0]) / (self.ends[1] - self.ends[0])

    def write(self, message: Any, number: float) -> None:
        """Put the number into a message; an array becomes as long as its place needs."""
        if self.ends is not None:
            number = self.ends[0] + number * (self.ends[1] - self.ends[0])
        target = message
        *before, (attribute, element) = _PART.findall(self.path)
        for step, _ in before:
            target = _attribute(target, step, self)
        _attribute(target, attribute, self)
        if not element:
            setattr(target, attribute, number)
            return
        values = list(getattr(target, attribute))
        place = self._place(message, None, element)
        values += [0.0] * (place + 1 - len(values))
        values[place] = number
        setattr(target, attribute, values)

    def check(self, message_type: type) -> None:
        """Whether messages of a type have the field, by an empty one; its elements are not known before it comes.

        Raises:
            RobotError: they have not.
        """
        value = message_type()
        for attribute, element in _PART.findall(self.path):
            value = _attribute(value, attribute, self)
            if element:
                return

    def _place(self, message: Any, values: Any, element: str) -> int:
        if element.isdigit():
            place = int(element)
        else:
            names = list(_attribute(message, "name", self))
            if element not in names:
                raise RobotError(
                    f"{self.name} ({self.path}): expected {element!r} among the message's names, got {names}."
                )
            place = names.index(element)
        if values is not None and place >= len(values):
            raise RobotError(f"{self.name} ({self.path}): expected at least {place + 1} elements, got {len(values)}.")
        return place


def message_type(name: str) -> type:
    """The class of a type as ROS writes it, `sensor_msgs/msg/JointState`.

    Raises:
        RobotError: it is not written so, or its package is not installed.
    """
    parts = name.split("/")
    if len(parts) != 3 or parts[1] != "msg":
        raise RobotError(f"{name}: expected a message type such as sensor_msgs/msg/JointState.")
    try:
        module = importlib.import_module(f"{parts[0]}.msg")
    except ModuleNotFoundError as error:
        raise RobotError(
            f"{name}: expected the ROS 2 package {parts[0]}, got no module {error.name!r}. Source the workspace that "
            "has it (source install/setup.bash) in the shell this is started from."
        ) from error
    if not hasattr(module, parts[2]):
        raise RobotError(f"{name}: the package {parts[0]} has no such message{did_you_mean(parts[2], vars(module))}.")
    found: type = getattr(module, parts[2])
    return found


def picture_of(message: Any, what: str, height: int, width: int) -> UInt8:
    """(H, W, 3) uint8 RGB of a sensor_msgs/msg/Image or CompressedImage (JPEG, PNG).

    Raises:
        RobotError: it has another size or encoding, or is damaged.
    """
    if hasattr(message, "encoding"):
        picture = _raw_picture(message, what)
    else:
        try:
            picture = decode_picture(bytes(message.data), what)
        except DataError as error:
            raise RobotError(f"{what}: expected a JPEG or a PNG, got one that cannot be decoded.") from error
    if picture.shape != (height, width, 3):
        raise RobotError(
            f"{what}: expected a picture of {height} x {width}, got {picture.shape[0]} x {picture.shape[1]}. "
            "Set its size in the robot's YAML, or in the camera's driver."
        )
    return picture


def stamp_s(message: Any) -> float | None:
    """The time in a message's header, seconds of the ROS clock; None where it has none or nobody set it."""
    header = getattr(message, "header", None)
    if header is None or (header.stamp.sec == 0 and header.stamp.nanosec == 0):
        return None
    return float(header.stamp.sec) + float(header.stamp.nanosec) * 1e-9


def _raw_picture(message: Any, what: str) -> UInt8:
    if message.encoding not in _ENCODINGS:
        raise RobotError(f"{what}: expected one of {', '.join(_ENCODINGS)}, got encoding {message.encoding!r}.")
    numbers, colours = _ENCODINGS[message.encoding]
    height, width, step = int(message.height), int(message.width), int(message.step)
    flat = np.frombuffer(bytes(message.data), np.uint8)
    if step < width * numbers or flat.size < step * height:
        raise RobotError(f"{what}: expected {height} rows of {step} bytes, got {flat.size} bytes in all.")
    rows = flat[: step * height].reshape(height, step)[:, : width * numbers]
    return np.ascontiguousarray(rows.reshape(height, width, numbers)[..., list(colours)])


def _attribute(value: Any, name: str, field: Field) -> Any:
    if not hasattr(value, name):
        known: Mapping[str, str] = getattr(type(value), "get_fields_and_field_types", dict)()
        raise RobotError(
            f"{field.name} ({field.path}): {type(value).__name__} has no field {name!r}"
            f"{did_you_mean(name, known) or '.'}"
        )
    return getattr(value, name)
