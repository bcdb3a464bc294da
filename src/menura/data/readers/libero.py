"""LIBERO's HDF5: robomimic's layout, one file a task, with the instruction in `data.attrs["problem_info"]`.

Layout: `scripts/create_dataset.py` of https://github.com/Lifelong-Robot-Learning/LIBERO. The frames lie as robosuite
renders them; `macros_image_convention` says how: `opengl` begins with the lowest row.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py

from menura.data.readers.hdf5 import OpenFiles, hdf5_files, json_attribute, text_of
from menura.data.readers.hdf5_reader import Part, Place
from menura.data.readers.keys import Keys
from menura.data.readers.robomimic import RobomimicReader, none_of
from menura.errors import DataError
from menura.features import Rotation, VectorFeature

#: `control_freq` of LIBERO's scripts, which its files repeat.
FPS = 20.0
_STATE = ("ee_states", "gripper_states")
_POSE = ("ee_x", "ee_y", "ee_z", "ee_rx", "ee_ry", "ee_rz")
_UNITS = ("m", "m", "m", "rad", "rad", "rad")
_ORIENTATION = Rotation(_POSE[3:], "axis_angle")
_FINGERS = ("gripper_0", "gripper_1")
_STATES = {
    "ee_states": VectorFeature(_POSE, _UNITS, rotations=(_ORIENTATION,)),
    "ee_pos": VectorFeature(_POSE[:3], _UNITS[:3]),
    "ee_ori": VectorFeature(_POSE[3:], _UNITS[3:], rotations=(_ORIENTATION,)),
    "joint_states": VectorFeature(tuple(f"joint_{i}" for i in range(7)), ("rad",) * 7),
    "gripper_states": VectorFeature(
        _FINGERS, ("m", "m"), grippers=dict(zip(_FINGERS, ((0.0, 0.04), (0.0, -0.04)), strict=True))
    ),
}


class LiberoReader(RobomimicReader):
    """LIBERO's demonstrations.

    State: `ee_states` (position in m, axis-angle) and `gripper_states`; `joint_states`, `ee_pos`, `ee_ori` by `keys`.
    Action: `actions`, seven deltas. Cameras: `agentview` and `eye_in_hand`, turned upright. The task is the file's own.

    Args:
        path: a file, or a directory of them: many tasks.
        keys, episodes, name, mask: as `RobomimicReader`.
        fps: the file's own when not given; 20 where it has none.
        flip: whether the file's frames are upside down; what `macros_image_convention` says when not given.

    Raises:
        DataError: as `RobomimicReader`, and cameras of files that do not say how they were rendered, or differ in it.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        keys: Keys | Mapping[str, Any] | None = None,
        episodes: Sequence[int] | None = None,
        name: str | None = None,
        mask: str | None = None,
        fps: float | None = None,
        flip: bool | None = None,
    ) -> None:
        conventions = _conventions(Path(path).expanduser().resolve()) if flip is None else {}
        found = set(conventions.values())
        super().__init__(
            path,
            keys=keys,
            episodes=episodes,
            name=name,
            mask=mask,
            fps=fps,
            flip=found == {"opengl"} if flip is None else flip,
        )
        if flip is None and self._cameras and found not in ({"opengl"}, {"opencv"}):
            raise DataError(
                f"{self.path}: macros_image_convention: expected 'opengl' or 'opencv', the same in every file, got "
                f"{sorted(map(str, found))}. Look at a frame, and say args: {{flip: true}} if it is upside down."
            )

    @staticmethod
    def environment(data: h5py.Group) -> dict[str, Any]:
        found = RobomimicReader.environment(data)
        return found | {"env_kwargs": {"control_freq": FPS, **(found.get("env_kwargs") or {})}}

    def default_state(self, obs: h5py.Group, has_cameras: bool) -> tuple[str, ...] | None:
        return tuple(key for key in _STATE if key in obs) or none_of(obs)

    def part_feature(self, what: str, part: Part) -> VectorFeature:
        known = _STATES.get(part.key)
        return known if known is not None and known.dim == part.width else super().part_feature(what, part)

    def facts(self, group: h5py.Group, place: Place) -> dict[str, Any]:
        words = json_attribute(group.parent, "problem_info").get("language_instruction", "")
        return super().facts(group, place) | {"task": "".join(words)}  # a text, or a list of its characters


def _conventions(path: Path) -> dict[Path, str | None]:
    """How the frames of each file were rendered; None where it does not say."""
    opened = OpenFiles()
    found: dict[Path, str | None] = {}
    for file in hdf5_files(path):
        with opened.reading(file) as content:
            attributes = content["data"].attrs if "data" in content else {}
            given = attributes.get("macros_image_convention")
            found[file] = None if given is None else text_of(given)
    return found
