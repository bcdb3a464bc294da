"""A floor and a robot in PyBullet, in which time passes by steps of 1/240 s, and cameras that look at them."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from menura.robots.base import RobotError, UInt8
from menura.robots.pybullet_models import Joint, Model, urdf_file

STEP_S = 1.0 / 240.0
_FIELD_OF_VIEW_DEG = 60.0
_NEAR_M, _FAR_M = 0.02, 20.0
_UP = (0.0, 0.0, 1.0)


@dataclass(frozen=True)
class View:
    """A camera: its size, where it stands and what it looks at (m); it moves with a free base."""

    height: int
    width: int
    eye: tuple[float, float, float]
    target: tuple[float, float, float]

    @classmethod
    def of(cls, name: str, written: Any, default: View) -> View:
        """Of `[height, width]`, or `{size: [height, width], eye: [x, y, z], target: [x, y, z]}`."""
        fields = dict(written) if isinstance(written, Mapping) else {"size": written}
        unknown = sorted(set(fields) - {"size", "eye", "target"})
        size = fields.get("size", [default.height, default.width])
        eye, target = fields.get("eye", default.eye), fields.get("target", default.target)
        if unknown or len(size) != 2 or len(eye) != 3 or len(target) != 3:
            raise RobotError(
                f"camera {name!r}: expected [height, width] or {{size: [height, width], eye: [x, y, z], "
                f"target: [x, y, z]}}, got {written!r}."
            )
        return cls(int(size[0]), int(size[1]), tuple(map(float, eye)), tuple(map(float, target)))  # type: ignore[arg-type]


class World:
    """The simulation of one robot; without a window, drawn by the processor (TinyRenderer).

    Args:
        model: the robot.
        joints: its movable joints.
    """

    def __init__(self, model: Model, joints: Sequence[Joint]) -> None:
        self._model = model
        self._joints = {joint.name: joint for joint in joints}
        with _without_banner():
            pybullet = _load("pybullet")
            self._client = _load("pybullet_utils.bullet_client").BulletClient(pybullet.DIRECT)
        file = urdf_file(model)
        self._client.setGravity(0.0, 0.0, -9.81)
        self._client.setTimeStep(STEP_S)
        self._client.loadURDF(str(urdf_file(Model("plane.urdf"))))
        self.body = self._client.loadURDF(
            str(file), basePosition=(0.0, 0.0, model.height), useFixedBase=model.base == "fixed"
        )
        info = [self._client.getJointInfo(self.body, i) for i in range(self._client.getNumJoints(self.body))]
        self._index = {str(each[1].decode()): i for i, each in enumerate(info)}
        self._link = {str(each[12].decode()): i for i, each in enumerate(info)}
        self.movable = [i for i, each in enumerate(info) if each[2] != self._client.JOINT_FIXED]
        for joint in joints:
            self._client.resetJointState(self.body, self._index[joint.name], model.rest.get(joint.name, 0.0))
        for name in (*model.free, *model.wheels):
            self.turn(name, 0.0, free=name in model.free)
        for joint in joints:
            if joint.name not in (*model.free, *model.wheels):
                self.move(joint.name, model.rest.get(joint.name, 0.0))

    def step(self) -> None:
        """1/240 s passes."""
        self._client.stepSimulation()

    def close(self) -> None:
        self._client.disconnect()

    def move(self, joint: str, position: float) -> None:
        """From now on a joint's motor holds a position (rad, m), no faster than its URDF says."""
        known = self._joints[joint]
        fastest = {} if known.velocity is None else {"maxVelocity": known.velocity}
        self._client.setJointMotorControl2(
            self.body,
            self._index[joint],
            self._client.POSITION_CONTROL,
            targetPosition=position,
            force=known.force or self._model.force,
            **fastest,
        )

    def turn(self, joint: str, velocity: float, free: bool = False) -> None:
        """From now on a joint's motor holds a speed (rad/s); `free`: it has none."""
        force = 0.0 if free else self._joints[joint].force or self._model.force
        self._client.setJointMotorControl2(
            self.body, self._index[joint], self._client.VELOCITY_CONTROL, targetVelocity=velocity, force=force
        )

    def joint(self, name: str) -> tuple[float, float]:
        """Position and speed of a joint."""
        position, velocity, *_ = self._client.getJointState(self.body, self._index[name])
        return float(position), float(velocity)

    def base(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Position (3,) in m and quaternion (4,) w x y z of the base."""
        position, xyzw = self._client.getBasePositionAndOrientation(self.body)
        return np.array(position), np.roll(xyzw, 1)

    def hand(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Position (3,) in m and quaternion (4,) w x y z of the model's hand."""
        state = self._client.getLinkState(self.body, self._hand, computeForwardKinematics=True)
        return np.array(state[4]), np.roll(state[5], 1)

    def reach(self, position: NDArray[np.float64], wxyz: NDArray[np.float64]) -> dict[str, float]:
        """Where joints have to be for the hand to be at a pose: the nearest that inverse kinematics finds."""
        found = self._client.calculateInverseKinematics(
            self.body, self._hand, position.tolist(), np.roll(wxyz, -1).tolist(), maxNumIterations=100
        )
        name_of = {index: name for name, index in self._index.items()}
        return {name_of[index]: float(angle) for index, angle in zip(self.movable, found, strict=True)}

    def picture(self, view: View) -> UInt8:
        """(H, W, 3) RGB. It takes tens of milliseconds, in which the whole process stands still."""
        base = np.zeros(3) if self._model.base == "fixed" else self.base()[0]
        seen = self._client.computeViewMatrix((base + view.eye).tolist(), (base + view.target).tolist(), _UP)
        lens = self._client.computeProjectionMatrixFOV(_FIELD_OF_VIEW_DEG, view.width / view.height, _NEAR_M, _FAR_M)
        drawn = self._client.getCameraImage(view.width, view.height, seen, lens, renderer=self._client.ER_TINY_RENDERER)
        rgba = np.asarray(drawn[2], np.uint8).reshape(view.height, view.width, 4)
        return np.ascontiguousarray(rgba[..., :3])

    @property
    def _hand(self) -> int:
        if self._model.hand is None:
            raise RobotError(f"PyBullet: expected a robot with a hand, got {self._model.urdf}.")
        return self._link[self._model.hand]


@contextmanager
def _without_banner() -> Iterator[None]:
    """Inside, what PyBullet's C code prints as it is loaded and begins (when it was built, its `argv`) goes nowhere.

    It knows no Python streams, and a program's standard output is for what was asked for. Errors are raised.
    """
    kept = []
    try:
        with open(os.devnull, "wb") as nowhere:
            for stream in (sys.__stdout__, sys.__stderr__):
                if stream is not None:
                    stream.flush()
                    kept.append((stream.fileno(), os.dup(stream.fileno())))
                    os.dup2(nowhere.fileno(), stream.fileno())
        yield
    finally:
        for descriptor, copy in kept:
            os.dup2(copy, descriptor)
            os.close(copy)


def _load(module: str) -> Any:
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise RobotError(
            f"PyBullet: expected the package pybullet, got no module {error.name!r}. Install it: "
            "pip install 'menura[pybullet]'."
        ) from error
