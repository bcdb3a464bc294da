"""Menura's node in the ROS 2 graph: the topics a YAML names, subscribed and published. Torch-free."""

from __future__ import annotations

import importlib
import re
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from menura.errors import did_you_mean
from menura.robots.base import RobotError
from menura.robots.ros2_messages import Field, message_type

#: How a topic is subscribed or published where the YAML does not say: what fits any publisher, any subscriber.
SENSING: Mapping[str, Any] = MappingProxyType({"reliability": "best_effort", "durability": "volatile", "depth": 1})
COMMANDING: Mapping[str, Any] = MappingProxyType({"reliability": "reliable", "durability": "volatile", "depth": 1})

_NONE: Mapping[str, Any] = MappingProxyType({})
_SPIN_S = 0.05


@dataclass(frozen=True)
class Topic:
    """A topic of the YAML: `{topic, type, fields | size, qos, stamp, constants, units}`."""

    topic: str
    type: str
    fields: tuple[Field, ...]
    size: tuple[int, ...]
    qos: Mapping[str, Any]
    stamp: str
    constants: Mapping[str, Any]
    units: Mapping[str, str]

    @classmethod
    def of(cls, written: Mapping[str, Any], what: str, allowed: Sequence[str], qos: Mapping[str, Any]) -> Topic:
        for key in written:
            if key not in allowed:
                raise RobotError(
                    f"{what}.{key}: no such key{did_you_mean(key, allowed) or '.'} Known: {list(allowed)}."
                )
        for key in ("topic", "type"):
            if not isinstance(written.get(key), str):
                raise RobotError(f"{what}.{key}: expected a name, got {written.get(key)!r}.")
        for key in written.get("qos", _NONE):
            if key not in qos:
                raise RobotError(f"{what}.qos.{key}: no such key{did_you_mean(key, qos) or '.'} Known: {list(qos)}.")
        if written.get("stamp", "header") not in ("header", "arrival"):
            raise RobotError(f"{what}.stamp: expected header or arrival, got {written['stamp']!r}.")
        fields = tuple(Field.of(name, path) for name, path in written.get("fields", _NONE).items())
        units = written.get("units", _NONE)
        if isinstance(units, str):
            units = {field.name: units for field in fields}
        return cls(
            written["topic"],
            written["type"],
            fields,
            size=tuple(written.get("size", (0, 0))),
            qos={**qos, **written.get("qos", _NONE)},
            stamp=written.get("stamp", "header"),
            constants=written.get("constants", _NONE),
            units=units,
        )


class Graph:
    """A node of its own in a context of its own, whose callbacks run in one thread."""

    def __init__(self, name: str) -> None:
        try:
            self._rclpy = importlib.import_module("rclpy")
        except ModuleNotFoundError as error:
            raise RobotError(
                f"{name}: expected ROS 2's Python package rclpy, got no module {error.name!r}. It comes with ROS 2, "
                "not with pip: source /opt/ros/<distribution>/setup.bash first, and use the Python it was built for."
            ) from error
        self._name = name
        self._qos = importlib.import_module("rclpy.qos")
        self._context = importlib.import_module("rclpy.context").Context()
        self._rclpy.init(context=self._context)
        self._node = self._rclpy.create_node(re.sub(r"\W", "_", f"menura_{name}"), context=self._context)
        self._executor = importlib.import_module("rclpy.executors").SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self._node)
        self._publishers: dict[str, Any] = {}
        self._types: dict[str, type] = {}
        self._ends = threading.Event()
        self._thread: threading.Thread | None = None

    def subscribe(self, topic: Topic, receive: Callable[[Topic, Any, float], None]) -> None:
        """Every message from now on: its topic, itself, and the ROS clock (s) when it came."""

        def callback(message: Any) -> None:
            receive(topic, message, self._node.get_clock().now().nanoseconds * 1e-9)

        self._node.create_subscription(self._checked(topic), topic.topic, callback, self._profile(topic))

    def advertise(self, topic: Topic) -> None:
        message = self._checked(topic)()
        for name in topic.constants:
            if not hasattr(message, name):
                raise RobotError(f"{topic.topic}: constants: {topic.type} has no field {name!r}.")
        self._types[topic.topic] = type(message)
        self._publishers[topic.topic] = self._node.create_publisher(type(message), topic.topic, self._profile(topic))

    def start(self, fail: Callable[[Exception], None]) -> None:
        """Messages begin to come; `fail` is told what ends that."""

        def spin() -> None:
            try:
                while not self._ends.is_set():
                    self._executor.spin_once(timeout_sec=_SPIN_S)
            except Exception as error:  # noqa: BLE001  whatever a callback raised is told to who reads the robot next
                fail(error)

        self._thread = threading.Thread(target=spin, name=f"ros2 {self._name}", daemon=True)
        self._thread.start()

    def message(self, topic: Topic) -> Any:
        """An empty message of a topic, with its constants, of now."""
        message = self._types[topic.topic]()
        for name, value in topic.constants.items():
            setattr(message, name, value)
        if hasattr(message, "header"):
            message.header.stamp = self._node.get_clock().now().to_msg()
        return message

    def publish(self, topic: Topic, message: Any) -> None:
        self._publishers[topic.topic].publish(message)

    def listeners(self, topic: Topic) -> int:
        return int(self._publishers[topic.topic].get_subscription_count())

    def why_silent(self, topic: Topic) -> str:
        known = dict(self._node.get_topic_names_and_types())
        if topic.topic not in known:
            return f"{self._name}: expected the topic {topic.topic}, got none{did_you_mean(topic.topic, known) or '.'}"
        if topic.type not in known[topic.topic]:
            return f"{self._name}: {topic.topic}: expected messages of {topic.type}, got {known[topic.topic]}."
        return f"{self._name}: {topic.topic}: expected a message, got none. Is its driver running, and is qos right?"

    def why_deaf(self, topic: Topic) -> str:
        return f"{self._name}: expected somebody to listen to {topic.topic}, got nobody. Start the robot's driver."

    def close(self) -> None:
        self._ends.set()
        if self._thread is not None:
            self._thread.join(timeout=2.0)
        self._executor.shutdown()
        self._node.destroy_node()
        self._rclpy.shutdown(context=self._context)

    def _checked(self, topic: Topic) -> type:
        found = message_type(topic.type)
        for field in topic.fields:
            field.check(found)
        return found

    def _profile(self, topic: Topic) -> Any:
        qos = topic.qos
        try:
            reliability = self._qos.ReliabilityPolicy[str(qos["reliability"]).upper()]
            durability = self._qos.DurabilityPolicy[str(qos["durability"]).upper()]
        except KeyError as error:
            raise RobotError(
                f"{topic.topic}: qos: expected reliability best_effort or reliable and durability volatile or "
                f"transient_local, got {dict(qos)}."
            ) from error
        return self._qos.QoSProfile(
            depth=int(qos["depth"]),
            history=self._qos.HistoryPolicy.KEEP_LAST,
            reliability=reliability,
            durability=durability,
        )
