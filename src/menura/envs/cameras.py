"""The cameras of a MuJoCo environment: what was asked for, and where they stand."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from menura.errors import EnvironmentFailure, did_you_mean
from menura.features import CameraFeature, RenderMode


@dataclass(frozen=True)
class Pose:
    """A free camera: looks at a point (m) from a distance (m), azimuth and elevation in degrees, as MuJoCo says it."""

    lookat: tuple[float, float, float]
    distance: float
    azimuth: float
    elevation: float


@dataclass(frozen=True)
class Camera:
    """A camera at the size it is drawn. `pose` None: the camera of that name in the simulator's own model."""

    name: str
    height: int
    width: int
    pose: Pose | None = None

    def feature(self, render: RenderMode) -> CameraFeature:
        return CameraFeature(self.height, self.width, render)


def poses(cameras: Mapping[str, Camera]) -> dict[str, Any]:
    """Where cameras stand, for the protocol: a pose as a dict, or None for a camera of the model."""
    return {name: None if camera.pose is None else asdict(camera.pose) for name, camera in cameras.items()}


def parse_cameras(asked: Mapping[str, Any], own: Mapping[str, Pose], model: Iterable[str]) -> dict[str, Camera]:
    """Cameras from a YAML's `{name: [height, width]}` or `{name: {size: [height, width], lookat: …, distance: …, …}}`.

    Args:
        asked: what the user wrote.
        own: the free cameras the environment defines.
        model: the names of the cameras in the simulator's model.

    Raises:
        EnvironmentFailure: unknown name, wrong size, or unknown or missing field of a pose.
    """
    return {name: _parse(name, value, own, tuple(model)) for name, value in asked.items()}


def _parse(name: str, value: Any, own: Mapping[str, Pose], model: Sequence[str]) -> Camera:
    if isinstance(value, Mapping):
        fields = dict(value)
        height, width = _size(name, fields.pop("size", None))
        return Camera(name, height, width, _pose(name, fields))
    height, width = _size(name, value)
    if name not in own and name not in model:
        known = (*own, *model)
        raise EnvironmentFailure(
            f"cameras: expected one of {', '.join(known)}, got {name!r}{did_you_mean(name, known) or '.'} "
            f"Give a pose (size, lookat, distance, azimuth, elevation) for a camera of your own."
        )
    return Camera(name, height, width, own.get(name))


def _size(name: str, value: Any) -> tuple[int, int]:
    if (
        not isinstance(value, Sequence)
        or isinstance(value, str)
        or len(value) != 2
        or not all(isinstance(side, int) and side > 0 for side in value)
    ):
        raise EnvironmentFailure(f"cameras.{name}: expected [height, width] in pixels, got {value!r}.")
    return value[0], value[1]


def _pose(name: str, fields: Mapping[str, Any]) -> Pose:
    expected = ("lookat", "distance", "azimuth", "elevation")
    if set(fields) != set(expected):
        raise EnvironmentFailure(
            f"cameras.{name}: expected size, {', '.join(expected)}, got size, {', '.join(fields)}."
        )
    x, y, z = fields["lookat"]
    return Pose((float(x), float(y), float(z)), *(float(fields[key]) for key in expected[1:]))
