"""ALOHA's and ACT's HDF5: one file an episode, as `record_episodes.py` and `record_sim_episodes.py` write it.

`/action`, `/observations/{qpos,qvel,effort}` and `/observations/images/<camera>`, raw or as JPEG. Layout and rate: the
recording scripts of https://github.com/tonyzhaozh/act and https://github.com/Interbotix/aloha.

**Colours.** The recorder takes frames from ROS as they come, which is RGB for the usual cameras, and hands them to
`cv2.imencode`, which takes them for BGR: in such a file red and blue are exchanged for every decoder but OpenCV, whose
`imdecode` exchanges them back. Other programs convert before they encode. The file does not say which, and the pictures
look alike but for their hues, so that `colour` must be said of JPEG files: look at a frame.

`compress_len` is not used to cut the padding off: its rows follow the recorder's list of cameras, whose order is not in
the file. A picture ends where its padding of zeros begins.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Literal

import h5py

from menura.data.readers.hdf5 import hdf5_files, place_of
from menura.data.readers.hdf5_frames import is_coded, is_frames
from menura.data.readers.hdf5_reader import Hdf5Reader, Part, Place, known_fps
from menura.data.readers.keys import Keys
from menura.errors import DataError
from menura.features import Features, VectorFeature

Colour = Literal["rgb", "bgr"]

#: `DT = 0.02` in the recorders' constants.
FPS = 50.0
JOINTS = ("waist", "shoulder", "elbow", "forearm_roll", "wrist_angle", "wrist_rotate", "gripper")
NAMES = tuple(f"{side}_{joint}" for side in ("left", "right") for joint in JOINTS)
_GRIPPERS = ("left_gripper", "right_gripper")
_UNITS = (("rad",) * 6 + ("1",)) * 2
_VELOCITY_UNITS = (("rad/s",) * 6 + ("1/s",)) * 2


class AlohaReader(Hdf5Reader):
    """ALOHA's HDF5 files.

    State: `qpos` unless `keys` says otherwise (`qvel`, `effort`, `/base_action`); action: `/action`; every camera. 14
    numbers are ALOHA's two arms: 6 joints (rad) and a gripper (0 closed, 1 open) each, absolute joint targets.

    Args:
        path: a file, which is one episode, or a directory of them.
        keys, episodes, name: as every reader.
        fps: 50, ALOHA's rate, unless the recorder's was changed.
        colour: the order of the channels as a usual decoder finds them: `bgr` where the recorder gave RGB to OpenCV's
            encoder. Raw frames are `rgb` when not said; of coded ones it must be said.

    Raises:
        DataError: damage, keys that are not there, coded frames whose colours nobody stated.
    """

    below: ClassVar[tuple[str, ...]] = ("observations", "observations/images", "")

    def __init__(
        self,
        path: str | Path,
        *,
        keys: Keys | Mapping[str, Any] | None = None,
        episodes: Sequence[int] | None = None,
        name: str | None = None,
        fps: float = FPS,
        colour: Colour | None = None,
    ) -> None:
        path = Path(path).expanduser().resolve()
        if colour not in (None, "rgb", "bgr"):
            raise DataError(f"{path}: colour: expected 'rgb' or 'bgr', got {colour!r}.")
        super().__init__(
            path,
            [Place(file, "/") for file in hdf5_files(path)],
            keys=keys,
            episodes=episodes,
            name=name,
            fps=known_fps(fps, path, ""),
            options={"colour": colour},
            bgr=colour == "bgr",
        )
        if colour is None:
            self._require_raw()

    def default_keys(self, group: h5py.Group) -> Keys:
        images = group.get("observations/images")
        return Keys(
            state=("qpos",),
            action=("action",),
            images={
                camera: f"observations/images/{camera}"
                for camera, item in ({} if images is None else images).items()
                if is_frames(item) or is_coded(item)  # and no depth maps
            },
        )

    def part_feature(self, what: str, part: Part) -> VectorFeature:
        if part.width != len(NAMES):
            return super().part_feature(what, part)
        key = part.path.rpartition("/")[2]
        if key in ("qpos", "action"):
            return VectorFeature(NAMES, _UNITS, grippers=dict.fromkeys(_GRIPPERS, (0.0, 1.0)))
        if key == "qvel":
            return VectorFeature(tuple(f"{name}_velocity" for name in NAMES), _VELOCITY_UNITS)
        return VectorFeature(tuple(f"{name}_{key}" for name in NAMES))

    def described(self, features: Features, group: h5py.Group) -> Features:
        if features.action.names != NAMES:
            return features
        return replace(features, control_space="joint", control_type="abs", robot="aloha")

    def facts(self, group: h5py.Group, place: Place) -> dict[str, Any]:
        return {"extra": {"sim": bool(group.attrs["sim"])}} if "sim" in group.attrs else {}

    def _require_raw(self) -> None:
        with self._reading(0) as group:
            coded = next((group[key] for key in self._cameras.values() if is_coded(group[key])), None)
            if coded is not None:
                raise DataError(
                    f"{place_of(coded)}: expected `colour`, for the file does not say whether these JPEGs hold RGB or, "
                    f"as ALOHA's own recorder writes them, BGR. Say args: {{colour: rgb}}, look at a frame, and "
                    f"say bgr if red things are blue."
                )
