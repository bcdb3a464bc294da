"""A scripted expert for ALOHA's cube transfer: way-points of the grippers, brought to joints by inverse kinematics."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from menura.data.episode import Float32
from menura.envs.aloha import AlohaEnv
from menura.envs.experts.inverse_kinematics import ArmKinematics, Float64
from menura.errors import ContractError

_JOINTS = ("waist", "shoulder", "elbow", "forearm_roll", "wrist_angle", "wrist_rotate")
_START = np.array([0.0, -0.96, 1.16, 0.0, -0.3, 0.0])  # gym-aloha's start pose of either arm, rad
_START_PITCH = float(_START[[1, 2, 4]].sum())
_TOOL = (0.13, 0.0, 0.0)  # between the finger tips, in the frame of gripper_link, m
_BASE_X, _BASE_Y = 0.469, 0.5  # the arms stand at x = ∓_BASE_X, m
_MEETING_POINT = np.array([0.0, 0.5, 0.25])
_STEEP, _LEVEL, _UPRIGHT = np.deg2rad(60.0), 0.0, np.pi / 2
_GRASP_HEIGHT, _CUBE_HEIGHT = 0.005, 0.02
_DURATION = 300


@dataclass(frozen=True)
class Waypoint:
    """Where a gripper is at a step: tool position (3,) m, pitch below the horizon and roll (rad), opening 0 … 1."""

    step: int
    position: Float64
    pitch: float
    roll: float
    opening: float


class AlohaTransferExpert:
    """The right arm lifts the cube to the middle; the left one takes it there, its fingers turned upright.

    The motion is planned at reset for the cube's position and then played, so it does not answer to disturbances. Each
    gripper points along the line from its base to its target: the arm stays in one plane, and no wrist or forearm ever
    flips (the largest joint step is below 0.05 rad).
    """

    def reset(self, env: Any) -> None:
        aloha = env.unwrapped
        if not isinstance(aloha, AlohaEnv) or len(aloha.object_positions()) != 1:
            raise ContractError(
                f"AlohaTransferExpert: expected an AlohaEnv of task transfer_cube, got {type(aloha).__name__}."
            )
        self._plan = plan_transfer(aloha.model, aloha.object_positions()[0])
        self._step = 0

    def act(self, observation: Mapping[str, Any]) -> Float32:
        """(14,) the next joint targets; the last ones are held when the motion is over."""
        action: Float32 = self._plan[min(self._step, len(self._plan) - 1)]
        self._step += 1
        return action


def plan_transfer(model: Any, cube: Float64) -> Float32:
    """(300, 14) joint targets that hand the cube at `cube` (3,) m over from the right arm to the left one."""
    arms = [_plan_arm(model, side, waypoints) for side, waypoints in _waypoints(model, cube).items()]
    return np.concatenate(arms, axis=1).astype(np.float32)


def _waypoints(model: Any, cube: Float64) -> dict[str, list[Waypoint]]:
    grasp = np.array([cube[0], cube[1], _CUBE_HEIGHT + _GRASP_HEIGHT])
    above = np.array([cube[0], cube[1], _CUBE_HEIGHT + 0.10])
    meet = _MEETING_POINT
    outward = np.array([1.0, 0.0, 0.0])  # towards the right arm
    beside, near = meet - 0.12 * outward, meet - 0.01 * outward
    right = [
        Waypoint(0, _start(model, "right"), _START_PITCH, 0, 0.1),
        Waypoint(50, above, _STEEP, 0, 1),
        Waypoint(90, grasp, _STEEP, 0, 1),
        Waypoint(110, grasp, _STEEP, 0, 0),
        Waypoint(160, meet, _LEVEL, 0, 0),
        Waypoint(215, meet, _LEVEL, 0, 0),
        Waypoint(235, meet, _LEVEL, 0, 1),
        Waypoint(260, meet + 0.12 * outward, _LEVEL, 0, 1),
        Waypoint(_DURATION, meet + 0.12 * outward, _LEVEL, 0, 1),
    ]
    left = [
        Waypoint(0, _start(model, "left"), _START_PITCH, 0, 0.1),
        Waypoint(60, beside, _LEVEL, 0, 1),
        Waypoint(120, beside, _LEVEL, _UPRIGHT, 1),
        Waypoint(165, beside, _LEVEL, _UPRIGHT, 1),
        Waypoint(190, near, _LEVEL, _UPRIGHT, 1),
        Waypoint(215, near, _LEVEL, _UPRIGHT, 0),
        Waypoint(240, near, _LEVEL, _UPRIGHT, 0),
        Waypoint(270, meet - 0.10 * outward, _LEVEL, _UPRIGHT, 0),
        Waypoint(_DURATION, meet - 0.10 * outward, _LEVEL, _UPRIGHT, 0),
    ]
    return {"left": left, "right": right}


def _arm(model: Any, side: str) -> ArmKinematics:
    prefix = f"vx300s_{side}/"
    return ArmKinematics(model, tuple(prefix + joint for joint in _JOINTS), prefix + "gripper_link", _TOOL)


def _start(model: Any, side: str) -> Float64:
    position, _ = _arm(model, side).forward(_START)
    return position


def _plan_arm(model: Any, side: str, waypoints: list[Waypoint]) -> Float64:
    """(300, 7) joint targets of one arm, straight lines between way-points."""
    facing = 1.0 if side == "left" else -1.0
    arm = _arm(model, side)
    track = _interpolate(waypoints)
    targets = np.empty((_DURATION, 7))
    joints = _START
    for step, (x, y, z, pitch, roll, opening) in enumerate(track):
        position = np.array([x, y, z])
        joints, _ = arm.solve(position, _orientation(facing, position, pitch, roll), joints)
        targets[step] = np.r_[joints, opening]
    return targets


def _interpolate(waypoints: list[Waypoint]) -> NDArray[np.float64]:
    """(300, 6) position, pitch, roll and opening at each step."""
    values = np.array([[*point.position, point.pitch, point.roll, point.opening] for point in waypoints])
    steps = [point.step for point in waypoints]
    return np.stack([np.interp(np.arange(_DURATION), steps, column) for column in values.T], axis=1)


def _orientation(facing: float, position: Float64, pitch: float, roll: float) -> Float64:
    """(3, 3) a gripper that points from its base to `position`, pitched down and rolled about its own axis."""
    yaw = facing * np.arctan2(position[1] - _BASE_Y, abs(position[0] + facing * _BASE_X))
    forward = np.array([facing * np.cos(pitch), 0.0, -np.sin(pitch)])
    side = np.array([0.0, facing, 0.0])
    level = np.stack([forward, side, np.cross(forward, side)], axis=1)
    orientation: Float64 = _about_z(yaw) @ level @ _about_x(roll)
    return orientation


def _about_x(angle: float) -> Float64:
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[1, 0, 0], [0, c, -s], [0, s, c]])


def _about_z(angle: float) -> Float64:
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])
