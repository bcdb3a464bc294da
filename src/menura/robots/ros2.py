"""A robot behind ROS 2: its state, pictures and commands are topics, which a YAML names. Torch-free.

Written to the documentation of rclpy (Humble to Jazzy) and tested against a stand-in of it: it has not run on ROS 2.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar

import numpy as np

from menura.features import CameraFeature, ControlSpace, ControlType, Features, VectorFeature
from menura.robots.base import Float32, Limits, Robot, RobotError, RobotObservation, UInt8
from menura.robots.driver import driver_errors
from menura.robots.ros2_graph import COMMANDING, SENSING, Graph, Topic
from menura.robots.ros2_messages import picture_of, stamp_s

_log = logging.getLogger(__name__)

_NONE: Mapping[str, Any] = MappingProxyType({})
#: A stamp may lie this far ahead of our clock: two clocks are never the same.
_AHEAD_S = 0.02
_POLL_S = 0.02


@dataclass
class _Newest:
    """The newest message of a topic: when it was captured and when it came, seconds of our clock."""

    message: Any
    captured_s: float
    arrived_s: float
    picture: UInt8 | None = None


class Ros2Robot(Robot):
    """A robot whose driver speaks ROS 2.

    When something was captured: its header's stamp is a time of the ROS clock; how long ago that was when it arrived,
    by the ROS clock here, is subtracted from our clock. So the clocks of two computers must agree (chrony, PTP): a
    stamp that lies ahead is an error, one behind looks like a slow sensor. A message without a header, and a topic
    with `stamp: arrival`, counts as captured when it came. The state's time is that of its oldest topic.

    Args:
        name: in one word.
        states: topics of the state, `{topic, type, fields: {name: path}, units, qos, stamp}`; the state's dimensions
            are the fields in order.
        actions: topics of the commands, likewise, with `constants: {field: value}` put into every message.
        cameras: {camera: {topic, type, size: [height, width], qos, stamp}} of sensor_msgs/msg/Image or CompressedImage.
        limits: as of `Limits.of`. None: it is not driven.
        grippers: {name: [value when closed, value when open]}.
        max_age_s: a topic that is silent for longer is an error.
        timeout_s: how long `connect` waits for every topic.
        control_space, control_type, fps: what an action is, and the rate at which it is made to be commanded.

    Raises:
        RobotError: a topic, a path or a name is wrong. What is wrong with messages is told by `connect`.
    """

    supported: ClassVar[bool] = False

    def __init__(
        self,
        name: str,
        *,
        states: Sequence[Mapping[str, Any]],
        actions: Sequence[Mapping[str, Any]],
        cameras: Mapping[str, Mapping[str, Any]] = _NONE,
        limits: Mapping[str, Any] | None = None,
        grippers: Mapping[str, Sequence[float]] = _NONE,
        max_age_s: float = 0.5,
        timeout_s: float = 10.0,
        control_space: ControlSpace = "joint",
        control_type: ControlType = "abs",
        fps: float = 0.0,
    ) -> None:
        self.name = name
        sensed = ("topic", "type", "fields", "units", "qos", "stamp")
        self._states = [Topic.of(each, f"states.{i}", sensed, SENSING) for i, each in enumerate(states)]
        commanded = ("topic", "type", "fields", "units", "qos", "constants")
        self._actions = [Topic.of(each, f"actions.{i}", commanded, COMMANDING) for i, each in enumerate(actions)]
        drawn = ("topic", "type", "size", "qos", "stamp")
        self._cameras = {each: Topic.of(topic, f"cameras.{each}", drawn, SENSING) for each, topic in cameras.items()}
        for each, topic in self._cameras.items():
            if len(topic.size) != 2 or min(topic.size) < 1:
                raise RobotError(f"cameras.{each}.size: expected [height, width], got {list(topic.size)}.")
        if not self._states or not self._actions:
            raise RobotError(f"{name}: expected topics of states and of actions, got none of one.")
        self.features = Features(
            state=_vector(self._states, grippers),
            action=_vector(self._actions, grippers),
            cameras={each: CameraFeature(topic.size[0], topic.size[1]) for each, topic in self._cameras.items()},
            fps=fps,
            control_space=control_space,
            control_type=control_type,
            robot=name,
        )
        self.limits = None if limits is None else Limits.of(limits, self.features.action)
        self._max_age_s, self._timeout_s = max_age_s, timeout_s
        self._lock = threading.Lock()
        self._newest: dict[str, _Newest] = {}
        self._failure: BaseException | None = None
        self._ros: Graph | None = None
        self._sent: Float32 | None = None

    def connect(self) -> None:
        """Join the ROS graph, and wait until every topic has spoken and somebody listens to every command.

        Raises:
            RobotError: rclpy or a message's package is missing, a message has no such field, or a topic stays silent.
        """
        if self._ros is not None:
            return
        _log.warning(
            "%s: the ROS 2 adapter has not yet run on ROS 2 itself. Keep the emergency stop at hand.", self.name
        )
        self._newest, self._failure, self._sent = {}, None, None
        try:
            with driver_errors(f"{self.name}: it cannot be connected"):
                self._ros = ros = Graph(self.name)
                for topic in (*self._states, *self._cameras.values()):
                    ros.subscribe(topic, self._receive)
                for topic in self._actions:
                    ros.advertise(topic)
            ros.start(self._fail)
            self._wait(ros)
            self.get_observation()
        except BaseException:
            self.disconnect()
            raise

    def disconnect(self) -> None:
        """Leave the ROS graph. What was commanded as a speed is commanded to be 0 before."""
        ros, self._ros = self._ros, None
        if ros is None:
            return
        try:
            speeds = [unit.endswith("/s") for unit in self.features.action.units or ()]
            if self._sent is not None and any(speeds):
                self._publish(ros, np.where(speeds, np.float32(0), self._sent))
        finally:
            ros.close()

    def get_observation(self) -> RobotObservation:
        self._connected()
        now_s = self.clock.now()
        with self._lock:
            newest = dict(self._newest)
        for topic in (*self._states, *self._cameras.values()):
            silent_s = now_s - newest[topic.topic].arrived_s if topic.topic in newest else float("inf")
            if silent_s > self._max_age_s:
                raise RobotError(
                    f"{self.name}: {topic.topic}: expected a message at least every {self._max_age_s:g} s, got none "
                    f"for {silent_s:.1f} s. Look at its driver (ros2 topic hz {topic.topic})."
                )
        numbers = [field.read(newest[topic.topic].message) for topic in self._states for field in topic.fields]
        pictures = {name: self._picture(name, newest[topic.topic]) for name, topic in self._cameras.items()}
        times = {name: newest[topic.topic].captured_s for name, topic in self._cameras.items()}
        times["state"] = min(newest[topic.topic].captured_s for topic in self._states)
        return {"state": np.array(numbers, np.float32), "images": pictures, "times": times}

    def send_action(self, action: Float32) -> Float32:
        """Publish an action (A,) on its topics; returns (A,) what was published, within the limits."""
        ros = self._connected()
        if self.limits is None:
            raise RobotError(f"{self.name}: expected limits, got none. Say `limits:` of the robot before it is driven.")
        if action.shape != self.limits.low.shape:
            raise RobotError(f"{self.name}: expected an action of shape {self.limits.low.shape}, got {action.shape}.")
        sent = self.limits.clip(action)
        self._publish(ros, sent)
        self._sent = sent
        return sent

    def _publish(self, ros: Graph, action: Float32) -> None:
        numbers = iter(action.tolist())
        for topic in self._actions:
            message = ros.message(topic)
            for field in topic.fields:
                field.write(message, next(numbers))
            with driver_errors(f"{self.name}: {topic.topic}: it was not published"):
                ros.publish(topic, message)

    def _receive(self, topic: Topic, message: Any, ros_now_s: float) -> None:
        """In the executor's thread: a message came."""
        arrived_s = self.clock.now()
        stamped_s = stamp_s(message) if topic.stamp == "header" else None
        age_s = 0.0 if stamped_s is None else ros_now_s - stamped_s
        if age_s < -_AHEAD_S:
            raise RobotError(
                f"{self.name}: {topic.topic}: expected a stamp of the past, got one {-age_s:.3f} s ahead. Synchronize "
                "the clocks of the two computers (chrony), or set stamp: arrival."
            )
        with self._lock:
            self._newest[topic.topic] = _Newest(message, arrived_s - max(age_s, 0.0), arrived_s)

    def _fail(self, error: BaseException) -> None:
        self._failure = error

    def _picture(self, name: str, newest: _Newest) -> UInt8:
        if newest.picture is None:
            height, width = self._cameras[name].size
            newest.picture = picture_of(newest.message, f"{self.name}: camera {name!r}", height, width)
        return newest.picture

    def _connected(self) -> Graph:
        if self._failure is not None:
            raise RobotError(f"{self.name}: ROS 2 failed: {self._failure}") from self._failure
        if self._ros is None:
            raise RobotError(f"{self.name}: expected it to be connected, got a call before connect().")
        return self._ros

    def _wait(self, ros: Graph) -> None:
        """Until every topic has spoken and every command is listened to."""
        end_s = self.clock.now() + self._timeout_s
        while True:
            self._connected()
            with self._lock:
                silent = [t for t in (*self._states, *self._cameras.values()) if t.topic not in self._newest]
            deaf = [topic for topic in self._actions if not ros.listeners(topic)]
            if not silent and not deaf:
                return
            if (now_s := self.clock.now()) >= end_s:
                raise RobotError(" ".join([*(ros.why_silent(t) for t in silent), *(ros.why_deaf(t) for t in deaf)]))
            self.clock.sleep_until(min(now_s + _POLL_S, end_s))


def _vector(topics: Sequence[Topic], grippers: Mapping[str, Sequence[float]]) -> VectorFeature:
    names = tuple(field.name for topic in topics for field in topic.fields)
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise RobotError(f"fields: expected each name once, got {twice} twice.")
    units = {name: unit for topic in topics for name, unit in topic.units.items()}
    return VectorFeature(
        names,
        units=tuple(units[name] for name in names) if set(names) <= set(units) else None,
        grippers={name: (float(ends[0]), float(ends[1])) for name, ends in grippers.items() if name in names},
    )
