"""Arms, legs and wheels in PyBullet, in real time: stand-ins for a robot that obey gravity and the clock. Torch-free.

Time passes when the robot is read or driven: the simulation is then stepped (1/240 s) up to the clock. What was sent
last goes on until then, as it does with a robot whose motors hold a target.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation as Turn

from menura.features import CameraFeature, ControlSpace, ControlType, Features, Rotation, VectorFeature
from menura.robots.base import Float32, Limits, Robot, RobotError, RobotObservation, UInt8
from menura.robots.pybullet_models import Joint, Model, find_model, read_joints, urdf_file
from menura.robots.pybullet_world import STEP_S, View, World

Number = Callable[[World], float]

_GRIPPER = "gripper"
#: The share of a camera's period after which it is drawn again.
_PUNCTUAL = 0.75
_POSITION = ("x", "y", "z")
_WXYZ = ("qw", "qx", "qy", "qz")
_TURN = ("rx", "ry", "rz")
_ARM_VIEW = View(224, 224, (1.2, 0.6, 0.8), (0.3, 0.0, 0.3))
_BASE_VIEW = View(224, 224, (-1.2, 1.2, 0.9), (0.0, 0.0, 0.0))
_NONE: Mapping[str, Any] = MappingProxyType({})


class _PyBulletRobot(Robot):
    """What joints and end effector have in common: the world, its time, and what is sensed of it."""

    def __init__(self, model: str, *, cameras: Mapping[str, Any], camera_hz: float | None, fps: float) -> None:
        camera_hz = fps if camera_hz is None else camera_hz
        if not camera_hz > 0 or not fps > 0:
            raise RobotError(f"{model}: expected camera_hz and fps above 0, got {camera_hz} and {fps}.")
        self.name = model
        self._fps = fps
        self._model: Model = find_model(model)
        self._joints: tuple[Joint, ...] = read_joints(urdf_file(self._model))
        default = _ARM_VIEW if self._model.base == "fixed" else _BASE_VIEW
        self._views = {name: View.of(name, written, default) for name, written in cameras.items()}
        # Whoever reads it at that rate is never exactly on time.
        self._redraw_after_s = _PUNCTUAL / camera_hz
        self._pictures: dict[str, UInt8] = {}
        self._drawn_s = 0.0
        self._world: World | None = None
        self._steps, self._start_s = 0, 0.0
        self._lock = threading.Lock()

    def _declare(
        self, action: VectorFeature, state: VectorFeature, space: ControlSpace, control_type: ControlType
    ) -> None:
        self.features = Features(
            state=state,
            action=action,
            cameras={name: CameraFeature(view.height, view.width, "full") for name, view in self._views.items()},
            fps=self._fps,
            control_space=space,
            control_type=control_type,
            robot=self.name,
        )

    def connect(self) -> None:
        """The world begins, with the robot at rest."""
        if self._world is None:
            self._begin()

    def disconnect(self) -> None:
        with self._lock:
            if self._world is not None:
                self._world.close()
            self._world = None

    def reset(self, seed: int | None = None) -> None:
        """Put at rest where it began; nothing is drawn, so that `seed` changes nothing."""
        self._check_connected()
        self._begin()

    def get_observation(self) -> RobotObservation:
        """State of now; pictures of now too, where the last ones were drawn a camera's period ago."""
        with self._lock:
            world, now_s = self._arrive()
            if self._views and (not self._pictures or now_s - self._drawn_s >= self._redraw_after_s):
                self._pictures = {name: world.picture(view) for name, view in self._views.items()}
                self._drawn_s = now_s
            return {
                "state": self._sense(world),
                "images": dict(self._pictures),
                "times": {"state": now_s, **dict.fromkeys(self._pictures, self._drawn_s)},
            }

    def send_action(self, action: Float32) -> Float32:
        """Command an action (A,); returns (A,) what was sent within the limits."""
        if self.limits is None:
            raise RobotError(f"{self.name}: expected limits, got none: its URDF has none of its own. Say `limits:`.")
        if action.shape != self.limits.low.shape:
            raise RobotError(f"{self.name}: expected an action of shape {self.limits.low.shape}, got {action.shape}.")
        clipped = self.limits.clip(action)
        with self._lock:
            world, _ = self._arrive()
            return self._command(world, clipped)

    def _sense(self, world: World) -> Float32:
        raise NotImplementedError

    def _command(self, world: World, action: Float32) -> Float32:
        raise NotImplementedError

    def _begin(self) -> None:
        self.disconnect()
        with self._lock:
            self._world = World(self._model, self._joints)
            self._start_s, self._steps = self.clock.now(), 0
            self._pictures = {}

    def _arrive(self) -> tuple[World, float]:
        """The world, stepped up to now, and the time it has reached."""
        world = self._check_connected()
        now_s = self.clock.now()
        while self._start_s + (self._steps + 1) * STEP_S <= now_s:
            world.step()
            self._steps += 1
        return world, self._start_s + self._steps * STEP_S

    def _check_connected(self) -> World:
        if self._world is None:
            raise RobotError(f"{self.name}: expected it to be connected, got a call before connect().")
        return self._world


class PyBulletJoints(_PyBulletRobot):
    """Joints driven by their position (rad, m), wheels by their speed (rad/s).

    Fingers that move as one are the number `gripper`. A base that is free adds its pose to the state: `x y z` (m) and
    `qw qx qy qz`.

    Args:
        model: `franka`, `kuka`, `a1`, `aliengo`, `laikago`, `mini_cheetah`, `husky`, `racecar`, `pr2_gripper`, or a
            .urdf file.
        limits: as of `Limits.of`; `low`, `high` and `velocity` are by default the URDF's, where it has them all.
        cameras: {name: [height, width]} or {name: {size: [height, width], eye: [x, y, z], target: [x, y, z]}}, in m.
        camera_hz: how often pictures are drawn, at most; `fps` by default. Each takes tens of milliseconds, in which
            the whole process stands still.
        fps: the rate at which it is made to be commanded and seen.
    """

    def __init__(
        self,
        model: str,
        *,
        limits: Mapping[str, Any] | None = None,
        cameras: Mapping[str, Any] = _NONE,
        camera_hz: float | None = None,
        fps: float = 10.0,
    ) -> None:
        super().__init__(model, cameras=cameras, camera_hz=camera_hz, fps=fps)
        of = self._model
        single = [joint for joint in self._joints if joint.name not in (*of.fingers, *of.free)]
        fingers = [joint for joint in self._joints if joint.name in of.fingers]
        self._driven = [joint.name for joint in single]
        ends = {_GRIPPER: (fingers[0].low or 0.0, fingers[0].high or 0.0)} if fingers else {}
        action = VectorFeature(
            names=(*self._driven, *ends),
            units=tuple(
                f"{joint.unit}/s" if joint.name in of.wheels else joint.unit for joint in (*single, *fingers[:1])
            ),
            grippers=ends,
        )
        state = _with_base(action) if of.base == "free" else action
        self._declare(action, state, "joint", "abs")
        written = {**_urdf_limits([*single, *fingers[:1]], of), **(limits or {})}
        known = limits is not None or {"low", "high"} <= set(written)
        self.limits = Limits.of(written, action) if known else None

    def _sense(self, world: World) -> Float32:
        wheels = self._model.wheels
        numbers = [world.joint(name)[name in wheels] for name in self._driven]
        if self._model.fingers:
            numbers.append(world.joint(self._model.fingers[0])[0])
        if self._model.base == "free":
            position, wxyz = world.base()
            numbers += [*position, *wxyz]
        return np.array(numbers, np.float32)

    def _command(self, world: World, action: Float32) -> Float32:
        for name, number in zip(self._driven, action.tolist(), strict=False):
            (world.turn if name in self._model.wheels else world.move)(name, number)
        for finger in self._model.fingers:
            world.move(finger, float(action[-1]))
        return action


class PyBulletEndEffector(_PyBulletRobot):
    """An arm driven by differences of its hand's pose.

    They are `x y z` (m), `rx ry rz` (axis and angle, rad, in the frame of the base) and, where it has fingers,
    `gripper`, which is absolute (m).

    A difference changes the pose the hand is on its way to, which inverse kinematics turns into joints. That pose is
    never further from the hand than `max_lead_m` and `max_lead_rad`: a difference that leads there is not executed,
    and zero is what was sent.

    Args:
        model: `franka` or `kuka`.
        limits: as of `Limits.of`: the most of one command; None: it is not driven.
        cameras, camera_hz, fps: as of `PyBulletJoints`.
        max_lead_m, max_lead_rad: as above.
    """

    def __init__(
        self,
        model: str,
        *,
        limits: Mapping[str, Any] | None = None,
        cameras: Mapping[str, Any] = _NONE,
        camera_hz: float | None = None,
        fps: float = 10.0,
        max_lead_m: float = 0.15,
        max_lead_rad: float = 0.6,
    ) -> None:
        super().__init__(model, cameras=cameras, camera_hz=camera_hz, fps=fps)
        of = self._model
        if of.hand is None:
            raise RobotError(f"PyBulletEndEffector: expected an arm (franka, kuka), got {model!r}.")
        fingers = [joint for joint in self._joints if joint.name in of.fingers]
        self._low_high = {joint.name: (joint.low, joint.high) for joint in self._joints}
        ends = {_GRIPPER: (fingers[0].low or 0.0, fingers[0].high or 0.0)} if fingers else {}
        gripper_units = tuple(joint.unit for joint in fingers[:1])
        self._declare(
            VectorFeature(
                (*_POSITION, *_TURN, *ends),
                units=("m",) * 3 + ("rad",) * 3 + gripper_units,
                rotations=(Rotation(_TURN, "axis_angle"),),
                grippers=ends,
            ),
            VectorFeature(
                (*_POSITION, *_WXYZ, *ends),
                units=("m",) * 3 + ("1",) * 4 + gripper_units,
                rotations=(Rotation(_WXYZ, "quat_wxyz"),),
                grippers=ends,
            ),
            "ee",
            "delta",
        )
        self.limits = None if limits is None else Limits.of(limits, self.features.action)
        self._lead = max_lead_m, max_lead_rad
        self._goal: tuple[NDArray[np.float64], Turn] | None = None

    def _begin(self) -> None:
        super()._begin()
        self._goal = None

    def _sense(self, world: World) -> Float32:
        position, wxyz = world.hand()
        fingers = [world.joint(name)[0] for name in self._model.fingers[:1]]
        return np.array([*position, *wxyz, *fingers], np.float32)

    def _command(self, world: World, action: Float32) -> Float32:
        position, wxyz = world.hand()
        turned = Turn.from_quat(np.roll(wxyz, -1))
        goal, goal_turn = self._goal or (position, turned)
        wanted = goal + action[:3], Turn.from_rotvec(action[3:6].astype(float)) * goal_turn
        ahead_m = float(np.linalg.norm(wanted[0] - position))
        ahead_rad = float((wanted[1] * turned.inv()).magnitude())
        sent: Float32 = action.copy()
        if ahead_m > self._lead[0] or ahead_rad > self._lead[1]:
            wanted, sent[:6] = (goal, goal_turn), 0.0
        self._goal = wanted
        for name, angle in world.reach(wanted[0], np.roll(wanted[1].as_quat(), 1)).items():
            if name not in self._model.fingers:
                low, high = self._low_high[name]
                world.move(name, angle if low is None or high is None else min(max(angle, low), high))
        for finger in self._model.fingers:
            world.move(finger, float(action[6]))
        return sent


def _with_base(joints: VectorFeature) -> VectorFeature:
    """The state of a free base: its joints, and where it is."""
    pose = VectorFeature((*_POSITION, *_WXYZ), units=("m",) * 3 + ("1",) * 4, rotations=(Rotation(_WXYZ, "quat_wxyz"),))
    return VectorFeature.joined([joints, pose])


def _urdf_limits(joints: list[Joint], model: Model) -> dict[str, Any]:
    """What the URDF says of every joint: its range, which wheels lack, and its speed."""
    ranges = {
        "low": [j.low for j in joints],
        "high": [j.high for j in joints],
        "velocity": [j.velocity for j in joints],
    }
    wheeled = any(joint.name in model.wheels for joint in joints)
    return {key: values for key, values in ranges.items() if None not in values and not wheeled}
