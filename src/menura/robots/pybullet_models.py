"""The robots that PyBullet's own data bring (`pybullet_data`), and what their URDFs say of their joints. Torch-free."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from xml.etree import ElementTree

from menura.errors import did_you_mean
from menura.robots.base import RobotError

_INSTALL = "Install it: pip install 'menura[pybullet]'."
_NO_NAMES: Mapping[str, float] = MappingProxyType({})


@dataclass(frozen=True)
class Model:
    """A robot of PyBullet's.

    Attributes:
        urdf: below `pybullet_data`, or a file of the user's.
        wheels: joints that are driven by their speed; all other movable ones are by their position.
        fingers: joints that move as one, called `gripper`: 0 closed, their upper limit open.
        free: joints that turn freely and are not commanded.
        hand: the link that an end effector's pose is of; None: it has no arm.
        rest: joint -> position at which it is put; 0 for the others.
        base: "fixed" to the world, or "free" to move on the floor.
        height: of the base above the floor at first (m).
        force: the most a joint pushes where its URDF does not say (N m).
    """

    urdf: str
    wheels: tuple[str, ...] = ()
    fingers: tuple[str, ...] = ()
    free: tuple[str, ...] = ()
    hand: str | None = None
    rest: Mapping[str, float] = field(default_factory=lambda: _NO_NAMES)
    base: str = "free"
    height: float = 0.0
    force: float = 20.0


def _legs(sides: tuple[str, ...], joints: Mapping[str, float]) -> dict[str, float]:
    return {f"{side}_{joint}": angle for side in sides for joint, angle in joints.items()}


_FR_FL_RR_RL = ("FR", "FL", "RR", "RL")

MODELS: Mapping[str, Model] = MappingProxyType(
    {
        "franka": Model(
            "franka_panda/panda.urdf",
            fingers=("panda_finger_joint1", "panda_finger_joint2"),
            hand="panda_grasptarget",
            # The pose Franka's own examples begin with (libfranka, communication_test).
            rest={
                "panda_joint2": -math.pi / 4,
                "panda_joint4": -3 * math.pi / 4,
                "panda_joint6": math.pi / 2,
                "panda_joint7": math.pi / 4,
                "panda_finger_joint1": 0.04,
                "panda_finger_joint2": 0.04,
            },
            base="fixed",
        ),
        "kuka": Model(
            "kuka_iiwa/model.urdf",
            hand="lbr_iiwa_link_7",
            rest={"lbr_iiwa_joint_2": 0.5, "lbr_iiwa_joint_4": -1.5, "lbr_iiwa_joint_6": 1.14},
            base="fixed",
        ),
        "a1": Model(
            "a1/a1.urdf",
            rest=_legs(_FR_FL_RR_RL, {"upper_joint": 0.9, "lower_joint": -1.8}),
            height=0.3,
        ),
        "aliengo": Model(
            "aliengo/aliengo.urdf",
            rest=_legs(_FR_FL_RR_RL, {"upper_joint": 0.8, "lower_joint": -1.6}),
            height=0.42,
        ),
        "laikago": Model("laikago/laikago_toes_zup.urdf", height=0.5),
        # Peak torque of its actuators: Katz, Di Carlo, Kim 2019, "Mini Cheetah", ICRA.
        "mini_cheetah": Model("mini_cheetah/mini_cheetah.urdf", height=0.4, force=17.0),
        "husky": Model(
            "husky/husky.urdf",
            wheels=("front_left_wheel", "front_right_wheel", "rear_left_wheel", "rear_right_wheel"),
            height=0.01,
        ),
        "racecar": Model(
            "racecar/racecar.urdf",
            wheels=("left_rear_wheel_joint", "right_rear_wheel_joint"),
            free=("left_front_wheel_joint", "right_front_wheel_joint"),
            height=0.05,
        ),
        "pr2_gripper": Model("pr2_gripper.urdf", fingers=("left_gripper_joint", "right_gripper_joint"), base="fixed"),
    }
)


@dataclass(frozen=True)
class Joint:
    """A movable joint as its URDF has it: position in rad or m, speed per second; None where the URDF does not say."""

    name: str
    unit: str
    low: float | None
    high: float | None
    velocity: float | None
    force: float | None


def find_model(name: str) -> Model:
    """A robot of PyBullet's by its name, or one of a URDF file: joints by their positions, on a fixed base.

    Raises:
        RobotError: there is neither.
    """
    if name in MODELS:
        return MODELS[name]
    if name.endswith(".urdf"):
        return Model(str(Path(name).absolute()), base="fixed")
    hint = did_you_mean(name, MODELS) or "."
    raise RobotError(f"PyBullet: expected one of {', '.join(MODELS)}, or a .urdf file, got {name!r}{hint}")


def urdf_file(model: Model) -> Path:
    """Where a model's URDF is.

    Raises:
        RobotError: PyBullet is not installed, or it has no such file.
    """
    spec = importlib.util.find_spec("pybullet_data")
    if spec is None or spec.origin is None:
        raise RobotError(f"PyBullet: expected the package pybullet, got no module 'pybullet_data'. {_INSTALL}")
    file = Path(spec.origin).parent / model.urdf
    if not file.is_file():
        raise RobotError(f"PyBullet: expected a URDF, got no file {file}.")
    return file


def read_joints(file: Path) -> tuple[Joint, ...]:
    """The movable joints of a URDF, in its order.

    Raises:
        RobotError: it is no URDF.
    """
    try:
        root = ElementTree.parse(file).getroot()
    except ElementTree.ParseError as error:
        raise RobotError(f"{file}: expected a URDF, got what is no XML: {error}.") from error
    found = []
    for joint in root.iter("joint"):
        kind = joint.get("type")
        if kind not in ("revolute", "continuous", "prismatic"):
            continue
        limit = joint.find("limit")
        said = {} if limit is None else {key: float(value) for key, value in limit.attrib.items() if _number(value)}
        low, high = said.get("lower"), said.get("upper")
        if low is None or high is None or low >= high:
            low = high = None
        found.append(
            Joint(
                name=joint.get("name", ""),
                unit="m" if kind == "prismatic" else "rad",
                low=low,
                high=high,
                velocity=said.get("velocity") or None,
                force=said.get("effort") or None,
            )
        )
    return tuple(found)


def _number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
