"""What an observation and an action mean: widths, names, cameras, rate, control space.

Features travel with a dataset, a checkpoint and an environment, so that the three can be compared. Torch-free.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal

from menura.errors import FeatureMismatch, did_you_mean

ControlSpace = Literal["joint", "ee"]
ControlType = Literal["abs", "delta"]
RenderMode = Literal["fast", "full"]


#: Representation -> how many numbers it has. Quaternions say their order; `6d` are the first two columns of the matrix,
#: one after the other (Zhou et al. 2019, https://arxiv.org/abs/1812.07035); `euler_xyz` turns about fixed axes x, y, z,
#: `euler_XYZ` about the body's own (scipy's convention). `angle` is that of a joint which turns without end: radians
#: about its one axis.
ROTATIONS: Mapping[str, int] = MappingProxyType(
    {"quat_wxyz": 4, "quat_xyzw": 4, "axis_angle": 3, "euler_xyz": 3, "euler_XYZ": 3, "6d": 6, "matrix": 9, "angle": 1}
)


@dataclass(frozen=True)
class Rotation:
    """Dimensions of a vector that are one orientation.

    Attributes:
        names: the dimensions, in the order of the representation.
        representation: one of `ROTATIONS`.
    """

    names: tuple[str, ...]
    representation: str

    def __post_init__(self) -> None:
        if self.representation not in ROTATIONS:
            near = did_you_mean(self.representation, ROTATIONS) or "."
            raise FeatureMismatch(f"rotation: expected one of {list(ROTATIONS)}, got {self.representation!r}{near}")
        if len(self.names) != ROTATIONS[self.representation]:
            raise FeatureMismatch(
                f"rotation {self.representation}: expected {ROTATIONS[self.representation]} names, "
                f"got {list(self.names)}."
            )


@dataclass(frozen=True)
class VectorFeature:
    """A float32 vector of one time step.

    Attributes:
        names: one name per dimension.
        units: one unit per dimension (`rad`, `m`, …), or None where unknown.
        object_names: the dimensions that tell of the object or the goal and not of the robot (a cube's pose, say):
            what a blind policy must not see.
        rotations: the orientations in it; what is none of them is a plain number.
        grippers: name of a gripper's dimension -> (value when closed, value when open).
    """

    names: tuple[str, ...]
    units: tuple[str, ...] | None = None
    object_names: tuple[str, ...] = ()
    rotations: tuple[Rotation, ...] = ()
    grippers: Mapping[str, tuple[float, float]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.units is not None and len(self.units) != len(self.names):
            raise FeatureMismatch(f"units: expected {len(self.names)} (one per name), got {len(self.units)}.")
        rotated = [name for rotation in self.rotations for name in rotation.names]
        for what, names in (("object_names", self.object_names), ("rotations", rotated), ("grippers", self.grippers)):
            unknown = [name for name in names if name not in self.names]
            if unknown:
                raise FeatureMismatch(f"{what}: expected some of {list(self.names)}, got {unknown}.")
        if len(set(rotated)) < len(rotated):
            raise FeatureMismatch(f"rotations: expected each dimension in one of them, got {rotated}.")

    @property
    def dim(self) -> int:
        return len(self.names)

    @property
    def object_indices(self) -> tuple[int, ...]:
        return tuple(self.names.index(name) for name in self.object_names)

    @classmethod
    def of_width(cls, dim: int, prefix: str) -> VectorFeature:
        """A feature nobody named: `prefix_0 … prefix_{dim-1}`."""
        return cls(tuple(f"{prefix}_{i}" for i in range(dim)))

    @property
    def unnamed(self) -> bool:
        """Whether the names are mere numbers, as `of_width` gives them: what they mean is not known."""
        prefix = self.names[0].rpartition("_")[0] if self.names else ""
        return bool(prefix) and self.names == self.of_width(len(self.names), prefix).names

    @classmethod
    def joined(cls, parts: Sequence[VectorFeature]) -> VectorFeature:
        """The vector of several, side by side; without units where one has none."""
        units = [part.units for part in parts]
        return cls(
            names=tuple(name for part in parts for name in part.names),
            units=None if None in units else tuple(unit for each in units for unit in each or ()),
            object_names=tuple(name for part in parts for name in part.object_names),
            rotations=tuple(rotation for part in parts for rotation in part.rotations),
            grippers={name: ends for part in parts for name, ends in part.grippers.items()},
        )


@dataclass(frozen=True)
class CameraFeature:
    """An RGB uint8 camera. `render` is how a simulator drew it; None for a real camera or where unknown."""

    height: int
    width: int
    render: RenderMode | None = None


@dataclass(frozen=True)
class Features:
    """The meaning of the observations and actions of a dataset, an environment, a robot or a policy.

    Attributes:
        state: the state vector, or None where there is none.
        action: the action vector.
        cameras: camera name -> feature, in order.
        fps: observations (and actions) per second.
        language: whether each episode has a task in words.
        control_space: `joint` or `ee`; None where unknown.
        control_type: `abs` or `delta`; None where unknown.
        robot: what was driven, in one word; None where unknown.
    """

    state: VectorFeature | None
    action: VectorFeature
    cameras: Mapping[str, CameraFeature] = field(default_factory=dict)
    fps: float = 0.0
    language: bool = False
    control_space: ControlSpace | None = None
    control_type: ControlType | None = None
    robot: str | None = None

    @property
    def state_dim(self) -> int:
        return 0 if self.state is None else self.state.dim

    @property
    def action_dim(self) -> int:
        return self.action.dim

    def to_dict(self) -> dict[str, Any]:
        """A JSON-able dict; `from_dict` reads it back equal."""

        def vector(feature: VectorFeature | None) -> dict[str, Any] | None:
            if feature is None:
                return None
            return {
                "names": list(feature.names),
                "units": None if feature.units is None else list(feature.units),
                "object_names": list(feature.object_names),
                "rotations": [
                    {"names": list(rotation.names), "representation": rotation.representation}
                    for rotation in feature.rotations
                ],
                "grippers": {name: list(values) for name, values in feature.grippers.items()},
            }

        return {
            "state": vector(self.state),
            "action": vector(self.action),
            "cameras": {
                name: {"height": camera.height, "width": camera.width, "render": camera.render}
                for name, camera in self.cameras.items()
            },
            "fps": self.fps,
            "language": self.language,
            "control_space": self.control_space,
            "control_type": self.control_type,
            "robot": self.robot,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Features:
        def vector(value: Mapping[str, Any] | None) -> VectorFeature | None:
            if value is None:
                return None
            units: Sequence[str] | None = value.get("units")
            return VectorFeature(
                names=tuple(value["names"]),
                units=None if units is None else tuple(units),
                object_names=tuple(value.get("object_names", ())),
                rotations=tuple(
                    Rotation(tuple(rotation["names"]), rotation["representation"])
                    for rotation in value.get("rotations", ())
                ),
                grippers={name: (closed, open_) for name, (closed, open_) in value.get("grippers", {}).items()},
            )

        action = vector(data["action"])
        if action is None:
            raise FeatureMismatch("features.action: expected names, got null.")
        return cls(
            state=vector(data.get("state")),
            action=action,
            cameras={name: CameraFeature(**camera) for name, camera in data.get("cameras", {}).items()},
            fps=float(data.get("fps", 0.0)),
            language=bool(data.get("language", False)),
            control_space=data.get("control_space"),
            control_type=data.get("control_type"),
            robot=data.get("robot"),
        )

    def differences(self, other: Features) -> list[str]:
        """What an action or an observation of `other` would be misread as: one line each, empty when they agree.

        A field that either side does not know (None, 0) is no difference; of names that are mere numbers, as those of
        converted checkpoints are, only how many there are.
        """
        found: list[str] = []

        def differ(what: str, mine: object, theirs: object) -> None:
            if mine and theirs and mine != theirs:
                found.append(f"{what}: {mine} here, {theirs} there")

        def differ_in_names(what: str, mine: VectorFeature | None, theirs: VectorFeature | None) -> None:
            if mine is None or theirs is None:
                return
            if mine.unnamed or theirs.unnamed:
                differ(f"width of the {what}", len(mine.names), len(theirs.names))
            else:
                differ(f"{what} names", mine.names, theirs.names)

        differ_in_names("state", self.state, other.state)
        differ_in_names("action", self.action, other.action)
        differ("fps", self.fps, other.fps)
        differ("control space", self.control_space, other.control_space)
        differ("control type", self.control_type, other.control_type)
        differ("rotations of the state", self.state and self.state.rotations, other.state and other.state.rotations)
        differ("rotations of the action", self.action.rotations, other.action.rotations)
        differ("grippers (closed, open)", self.action.grippers, other.action.grippers)
        for name in self.cameras:
            if name in other.cameras:
                mine, theirs = self.cameras[name], other.cameras[name]
                differ(f"render mode of camera {name!r}", mine.render, theirs.render)
        return found

    def require_same(self, other: Features, *, where: str, expected: str, step: str) -> None:
        """Raises FeatureMismatch that names every difference of `other`.

        Args:
            where: what the others belong to.
            expected: what these belong to, in words.
            step: what to do about it.
        """
        differences = self.differences(other)
        if differences:
            raise FeatureMismatch(
                f"{where}: expected {expected} (here), got (there):\n  " + "\n  ".join(differences) + f"\n{step}"
            )

    def require_cameras(self, cameras: Sequence[str], *, where: str, step: str) -> None:
        """Raises FeatureMismatch where one of the cameras that a policy looks at is not here; `where`, `step` as of
        `require_same`."""
        for camera in cameras:
            if camera not in self.cameras:
                raise FeatureMismatch(
                    f"{where}: expected the cameras the policy looks at ({', '.join(cameras)}), "
                    f"got {', '.join(self.cameras) or 'none'}{did_you_mean(camera, self.cameras) or '.'} {step}"
                )
