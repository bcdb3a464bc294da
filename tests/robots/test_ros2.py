"""The ROS 2 bridge against a stand-in of rclpy and of the messages, with a driver's node on the other side."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import yaml

from menura.config import load_robot
from menura.data.pictures import encode_jpeg
from menura.robots import make_robot
from menura.robots.base import RobotError
from menura.robots.ros2 import Ros2Robot
from menura.robots.ros2_messages import Field, picture_of

JOINT_STATE = "sensor_msgs/msg/JointState"
ARM = {
    "name": "arm",
    "states": [
        {"topic": "/arm/joint_states", "type": JOINT_STATE, "fields": {"j0": "position[waist]", "j1": "position[1]"}}
    ],
    "actions": [
        {
            "topic": "/arm/command",
            "type": JOINT_STATE,
            "fields": {"j0": "position[0]", "j1": "position[1]"},
            "constants": {"name": ["waist", "elbow"]},
            "units": "rad",
        }
    ],
    "limits": {"low": -1.0, "high": 1.0},
    "timeout_s": 2.0,
}
FRONT = {"front": {"topic": "/front", "type": "sensor_msgs/msg/Image", "size": [2, 3]}}
STAND_INS = ("rclpy", "sensor_msgs", "std_msgs", "geometry_msgs", "interbotix_xs_msgs", "messages")


@pytest.fixture
def ros(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parent / "stand_ins" / "ros2"))
    yield importlib.import_module("rclpy")
    for name in [name for name in sys.modules if name.partition(".")[0] in STAND_INS]:
        del sys.modules[name]


class Driver:
    """The robot's own node: it speaks every 10 ms, and keeps what it is told."""

    def __init__(self, rclpy):
        self.rclpy, self.says, self.told = rclpy, {}, []
        self.context = importlib.import_module("rclpy.context").Context()
        rclpy.init(context=self.context)
        self.node = rclpy.create_node("driver", context=self.context)
        self.ends = threading.Event()
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def says_topic(self, topic, type_, make):
        publisher = self.node.create_publisher(type_, topic, None)
        self.says[topic] = lambda: publisher.publish(make())

    def listens(self, topic, type_):
        self.node.create_subscription(type_, topic, lambda message: self.told.append((topic, message)), None)

    def _run(self):
        while not self.ends.is_set():
            for say in list(self.says.values()):
                say()
            while not self.node.inbox.empty():
                self.rclpy.spin_node_once(self.node, 0.0)
            time.sleep(0.01)

    def close(self):
        self.ends.set()
        self.thread.join()
        self.node.destroy_node()


def stamped(message, ago_s=0.0):
    nanoseconds = time.time_ns() - int(ago_s * 1e9)
    message.header.stamp = SimpleNamespace(sec=nanoseconds // 10**9, nanosec=nanoseconds % 10**9)
    return message


@pytest.fixture
def arm(ros):
    """A driver of two joints, and robots connected to it."""
    msg = importlib.import_module("sensor_msgs.msg")
    driver = Driver(ros)
    driver.msg, driver.ago_s, driver.positions = msg, 0.0, [0.5, 0.25]

    def state():
        return stamped(msg.JointState(name=["elbow", "waist"], position=list(driver.positions)), driver.ago_s)

    driver.says_topic("/arm/joint_states", msg.JointState, state)
    driver.listens("/arm/command", msg.JointState)
    robots = []

    def make(**changes):
        robots.append(Ros2Robot(**(ARM | changes)))
        return robots[-1]

    driver.make = make
    yield driver
    for robot in robots:
        robot.disconnect()
    driver.close()


def eventually(condition):
    end = time.monotonic() + 2
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


def test_everything_is_known_before_it_is_connected():
    robot = Ros2Robot(**(ARM | {"cameras": FRONT, "fps": 30, "grippers": {"j1": [0, 1]}}))
    assert robot.features.state.names == robot.features.action.names == ("j0", "j1")
    assert robot.features.action.units == ("rad", "rad")
    assert robot.features.state.units is None
    assert robot.features.action.grippers == {"j1": (0, 1)}
    assert (robot.features.cameras["front"].height, robot.features.cameras["front"].width) == (2, 3)
    assert not Ros2Robot.supported
    with pytest.raises(RobotError, match="before connect"):
        robot.get_observation()


def test_without_ros_it_is_said_where_it_comes_from():
    with pytest.raises(RobotError, match=r"rclpy.*not with pip.*setup.bash"):
        Ros2Robot(**ARM).connect()


def test_it_is_read_and_driven_and_connected_again(arm, caplog):
    robot = arm.make()
    for _ in range(2):
        robot.connect()
        robot.connect()
        assert "has not yet run on ROS 2" in caplog.text
        assert robot.get_observation()["state"].tolist() == [0.25, 0.25]
        sent = robot.send_action(np.array([0.5, 9.0], np.float32))
        assert sent.tolist() == [0.5, 1.0]
        eventually(lambda: arm.told)
        topic, message = arm.told.pop()
        assert (topic, message.name, message.position) == ("/arm/command", ["waist", "elbow"], [0.5, 1.0])
        assert message.header.stamp.sec > 0
        robot.disconnect()
        robot.disconnect()
    assert len(importlib.import_module("rclpy").GRAPH.subscriptions) == 1  # the driver's


def test_times_come_from_stamps(arm):
    robot = arm.make()
    arm.ago_s = 0.2
    robot.connect()
    seen = robot.get_observation()
    assert robot.clock.now() - seen["times"]["state"] == pytest.approx(0.2, abs=0.05)


def test_a_topic_without_a_header_counts_from_its_arrival(arm):
    arm.ago_s = 30.0
    robot = arm.make(states=[ARM["states"][0] | {"stamp": "arrival"}])
    robot.connect()
    assert robot.clock.now() - robot.get_observation()["times"]["state"] < 0.1


def test_a_stamp_ahead_is_an_error(arm):
    arm.ago_s = -0.5
    with pytest.raises(RobotError, match=r"ahead.*chrony"):
        arm.make().connect()
    arm.ago_s = 0.0
    robot = arm.make()
    robot.connect()
    arm.ago_s = -0.5
    time.sleep(0.1)
    with pytest.raises(RobotError, match=r"ahead.*chrony"):
        robot.get_observation()


def test_silence_is_an_error(arm):
    robot = arm.make(max_age_s=0.1)
    robot.connect()
    arm.says.clear()
    time.sleep(0.2)
    with pytest.raises(RobotError, match=r"/arm/joint_states: expected a message at least every 0.1 s"):
        robot.get_observation()


def test_what_cannot_be_connected_is_told(arm):
    with pytest.raises(RobotError, match=r"/arm/joint_state, got none; did you mean /arm/joint_states"):
        arm.make(states=[ARM["states"][0] | {"topic": "/arm/joint_state"}], timeout_s=0.1).connect()
    with pytest.raises(RobotError, match="listen to /elsewhere, got nobody"):
        arm.make(actions=[ARM["actions"][0] | {"topic": "/elsewhere"}], timeout_s=0.1).connect()
    with pytest.raises(RobotError, match="no field 'positon'; did you mean position"):
        arm.make(states=[ARM["states"][0] | {"fields": {"j0": "positon[0]"}}]).connect()
    with pytest.raises(RobotError, match="ROS 2 package nowhere_msgs"):
        arm.make(states=[ARM["states"][0] | {"type": "nowhere_msgs/msg/State"}]).connect()
    with pytest.raises(RobotError, match=r"expected 'elbw' among the message's names"):
        arm.make(states=[ARM["states"][0] | {"fields": {"j0": "position[elbw]"}}]).connect()
    assert len(importlib.import_module("rclpy").GRAPH.subscriptions) == 1


def test_a_number_that_is_none_is_told(arm):
    robot = arm.make()
    robot.connect()
    arm.positions = [0.0, float("nan")]
    time.sleep(0.1)
    with pytest.raises(RobotError, match="finite"):
        robot.get_observation()
    with pytest.raises(RobotError, match="finite"):
        robot.send_action(np.full(2, np.nan, np.float32))


def test_pictures(arm):
    pixels = np.arange(18, dtype=np.uint8).reshape(2, 3, 3)

    def raw():
        rows = b"".join(row[:, ::-1].tobytes() + b"pad" for row in pixels)
        return stamped(arm.msg.Image(height=2, width=3, encoding="bgr8", step=12, data=rows), 0.1)

    arm.says_topic("/front", arm.msg.Image, raw)
    robot = arm.make(cameras=FRONT)
    robot.connect()
    seen = robot.get_observation()
    assert (seen["images"]["front"] == pixels).all()
    assert seen["times"]["front"] < seen["times"]["state"]

    jpeg = arm.msg.CompressedImage(format="jpeg", data=encode_jpeg(np.full((16, 16, 3), (200, 30, 30), np.uint8)))
    decoded = picture_of(jpeg, "front", 16, 16)
    assert abs(decoded.astype(int) - (200, 30, 30)).max() < 8
    for message, said in [
        (arm.msg.CompressedImage(data=b"GIF89a"), "JPEG or a PNG"),
        (arm.msg.Image(height=2, width=3, encoding="16UC1", step=6, data=b"0" * 12), "encoding '16UC1'"),
        (arm.msg.Image(height=2, width=3, encoding="rgb8", step=9, data=b"0"), "got 1 bytes"),
        (arm.msg.Image(height=1, width=3, encoding="mono8", step=3, data=b"012"), "2 x 3, got 1 x 3"),
    ]:
        with pytest.raises(RobotError, match=said):
            picture_of(message, "front", 2, 3)


def test_speeds_end_at_zero_when_it_is_left(arm):
    geometry = importlib.import_module("geometry_msgs.msg")
    arm.listens("/cmd_vel", geometry.Twist)
    base = {"topic": "/cmd_vel", "type": "geometry_msgs/msg/Twist", "fields": {"v": "linear.x", "w": "angular.z"}}
    robot = arm.make(actions=[base | {"units": {"v": "m/s", "w": "rad/s"}}])
    robot.connect()
    robot.send_action(np.array([0.5, 0.25], np.float32))
    robot.disconnect()
    eventually(lambda: len(arm.told) == 2)
    (_, first), (_, last) = arm.told
    assert (first.linear.x, first.angular.z) == (0.5, 0.25)
    assert (last.linear.x, last.angular.z) == (0.0, 0.0)


def test_the_example_of_the_page_is_driven(arm):
    """Its commands are a std_msgs/msg/Float64MultiArray, as ros2_control's forward_command_controller takes them."""
    page = (Path(__file__).parents[2] / "docs" / "14_custom_robots.md").read_text()
    example = yaml.safe_load(re.search(r"```text\n(class: Ros2Robot\n.*?)```", page, re.DOTALL)[1])
    msg, std = arm.msg, importlib.import_module("std_msgs.msg")
    image = {"height": 480, "width": 640, "encoding": "rgb8", "step": 1920, "data": bytes(480 * 1920)}
    arm.says_topic(
        "/joint_states",
        msg.JointState,
        lambda: stamped(msg.JointState(name=["elbow", "shoulder"], position=[0.5, 0.25])),
    )
    arm.says_topic("/camera/color/image_raw", msg.Image, lambda: stamped(msg.Image(**image)))
    arm.listens("/commands", std.Float64MultiArray)
    robot = make_robot(example)
    robot.connect()
    seen = robot.get_observation()
    assert seen["state"].tolist() == [0.25, 0.5]
    assert seen["images"]["front"].shape == (480, 640, 3)
    assert robot.send_action(np.array([0.5, -9.0], np.float32)).tolist() == [0.5, -1.5]
    eventually(lambda: arm.told)
    robot.disconnect()
    topic, message = arm.told[0]
    assert (topic, message.data) == ("/commands", [0.5, -1.5])


def test_numbers_between_two_ends():
    field = Field.of("gripper", {"path": "position[6]", "from_0_to_1": [0.6, 1.6]})
    message = SimpleNamespace(position=[0.0] * 6 + [1.1])
    assert field.read(message) == pytest.approx(0.5)
    field.write(message, 0.25)
    assert message.position[6] == pytest.approx(0.85)
    assert Field("x", "cmd").read(SimpleNamespace(cmd=2)) == 2
    with pytest.raises(RobotError, match="at least 8 elements, got 7"):
        Field("x", "position[7]").read(message)


@pytest.mark.parametrize("name", ["aloha_ros2", "cobot_magic"])
def test_the_yamls_of_two_arms(ros, name):
    robot = make_robot(load_robot(name))
    assert robot.features.action.dim == robot.features.state.dim == len(robot.limits.low) == 14
    assert robot.features.action.names == robot.features.state.names
    assert robot.features.action.units == robot.features.state.units
    assert set(robot.features.action.grippers) == {"left_gripper", "right_gripper"}
    # Their messages have these fields.
    robot._timeout_s = 0.0
    with pytest.raises(RobotError, match="listen to"):
        robot.connect()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"states": [ARM["states"][0] | {"tpic": 1}]}, r"states.0.tpic: no such key; did you mean topic"),
        ({"states": []}, "topics of states"),
        ({"states": [ARM["states"][0] | {"fields": {"j0": "position[0"}}]}, "expected a path"),
        ({"states": ARM["states"] * 2}, "each name once"),
        ({"actions": [ARM["actions"][0] | {"qos": {"dept": 1}}]}, "qos.dept.*did you mean depth"),
        ({"cameras": {"front": FRONT["front"] | {"size": [3]}}}, "cameras.front.size"),
    ],
)
def test_what_is_wrong_is_said(changes, message):
    with pytest.raises(RobotError, match=message):
        Ros2Robot(**(ARM | changes))


def test_without_limits_it_takes_no_action(arm):
    robot = arm.make(limits=None)
    robot.connect()
    with pytest.raises(RobotError, match="limits"):
        robot.send_action(np.zeros(2, np.float32))


def test_importing_it_imports_neither_rclpy_nor_torch():
    code = "import sys, menura.robots.ros2; assert not {'torch', 'rclpy', 'av'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
