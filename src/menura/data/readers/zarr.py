"""Zarr as Diffusion Policy's `ReplayBuffer` keeps it: `data/*`, all episodes one after the other, `meta/episode_ends`.

Source of the format: `diffusion_policy/common/replay_buffer.py` of github.com/real-stanford/diffusion_policy. Neither
the rate nor the meaning of a number is in the files; those of layouts that are well known are known here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from menura.data.episode import Episode, Float32
from menura.data.readers.base import Reader
from menura.data.readers.common import chosen_episodes, files_digest, given_rate
from menura.data.readers.keys import Keys
from menura.data.readers.zarr_store import ZarrArrays, ZarrFrames
from menura.errors import DataError, did_you_mean
from menura.features import CameraFeature, Features, Rotation, VectorFeature

_ENDS = "meta/episode_ends"
_TIMES = "timestamp"
_XYZ = ("x", "y", "z")
_PUSHT = frozenset({"img", "state", "action", "keypoint", "n_contacts"})
_PUSHT_FPS = 10.0
_PUSHT_FEATURES = {
    "state": VectorFeature(
        ("agent_x", "agent_y", "block_x", "block_y", "block_angle"),
        units=("px", "px", "px", "px", "rad"),
        object_names=("block_x", "block_y", "block_angle"),
    ),
    "action": VectorFeature(("target_x", "target_y"), units=("px", "px")),
}
_WHITES = (1.0, 255.0)


class ZarrReader(Reader):
    """A replay buffer in a directory (`x.zarr`) or a zip file (`x.zarr.zip`).

    The state, when not said, is `state`; else the pose of a real robot (`robot_eef_pose`) or of hand-held grippers as
    UMI has it (`robot<i>_eef_pos`, `…_eef_rot_axis_angle`, `…_gripper_width`). The action is `action`. Cameras are all
    arrays (N, H, W, 3) or (N, 3, H, W).

    Args:
        path: the directory or the file.
        keys: what is read, by the arrays' names below `data/`.
        episodes: which ones, in this order; all when not given.
        name: what to call it; the name of the file or directory when not given.
        fps: steps a second. Known of pusht (10), and where `timestamp` runs evenly; otherwise it has to be said.
        white: what white is in frames of floating-point numbers, 1 or 255; told by their values when not given.

    Raises:
        DataError: damaged files, keys that are not there, a rate or a range that cannot be known.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        keys: Keys | Mapping[str, Any] | None = None,
        episodes: Sequence[int] | None = None,
        name: str | None = None,
        fps: float | None = None,
        white: float | None = None,
    ) -> None:
        keys = Keys.of(keys)
        self.path = Path(path).expanduser().resolve()
        self.name = name or self.path.name.removesuffix(".zip").removesuffix(".zarr")
        self._arrays = ZarrArrays(self.path)
        self._names = [name.removeprefix("data/") for name in self._arrays.names if name.startswith("data/")]
        self._starts, self._lengths = self._episodes(episodes)
        self._state_keys = self._vector_keys("state", keys.state)
        self._action_keys = self._vector_keys("action", keys.action)
        self._cameras = self._camera_keys(keys.images)
        if keys.task is not None:
            raise DataError(f"{self.path}: keys.task: expected none, because replay buffers hold no instructions.")
        self.fps = self._rate(fps)
        if white is not None and white not in _WHITES:
            raise DataError(f"{self.path}: white: expected 1 or 255, got {white}.")
        self._scales = {key: self._scale(key, white) for key in self._cameras.values()}
        self.features = self._features()

    def __len__(self) -> int:
        return len(self._lengths)

    def lengths(self) -> NDArray[np.int64]:
        return self._lengths

    def episode(self, index: int) -> Episode:
        """Episode `index`; its frames are read when asked for."""
        self.require_episode(index)
        start, length = int(self._starts[index]), int(self._lengths[index])
        times = self._times(start, length)
        return Episode(
            state=self._vector(self._state_keys, start, length),
            action=self._vector(self._action_keys, start, length),
            images={
                camera: ZarrFrames(self._arrays, f"data/{key}", start, length, *self._size(key), self._scales[key])
                for camera, key in self._cameras.items()
            },
            fps=self.fps,
            timestamps=None if times is None else times - times[0],
        )

    def fingerprint(self) -> str:
        used = [*self._state_keys, *self._action_keys, *self._cameras.values()]
        selection = [self._starts.tolist(), self._lengths.tolist(), self._state_keys, self._action_keys]
        files = self._arrays.files([_ENDS, *(f"data/{key}" for key in dict.fromkeys(used))])
        return files_digest(files, self.path, [*selection, self._cameras, self._scales, self.fps])

    # What is in the buffer

    def _array(self, key: str) -> Any:
        return self._arrays[f"data/{key}"]

    def _episodes(self, given: Sequence[int] | None) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """First rows and lengths of the chosen episodes."""
        if _ENDS not in self._arrays.names or not self._names:
            raise DataError(
                f"{self.path}: expected arrays data/* and {_ENDS}, got {self._arrays.names}. Fetch it again, or write "
                f"a class that reads it (docs: custom datasets)."
            )
        ends = self._arrays.rows(_ENDS, slice(None)).astype(np.int64)
        lengths = np.diff(ends, prepend=0)
        if len(ends) == 0 or (lengths <= 0).any():
            raise DataError(f"{self.path}: {_ENDS}: expected increasing numbers, got {ends[:10].tolist()} …")
        chosen = chosen_episodes(self.path, given, len(ends))
        return (ends - lengths)[chosen], lengths[chosen]

    def _vector_keys(self, what: str, given: Sequence[str] | None) -> list[str]:
        keys = list(given) if given is not None else ["action"] if what == "action" else self._own_state()
        for key in keys:
            array = self._array(self._known(key, f"keys.{what}"))
            if array.ndim > 2 or array.dtype.kind not in "fiub":
                raise DataError(
                    f"{self.path}: {key}: expected numbers (N, n) as {what}, got {array.dtype} of shape {array.shape}. "
                    f"Say another: keys.{what}."
                )
            self._require_rows(key)
        if what == "action" and not keys:
            raise DataError(f"{self.path}: keys.action: expected at least one key, got none.")
        return keys

    def _own_state(self) -> list[str]:
        for key in ("state", "robot_eef_pose"):
            if key in self._names:
                return [key]
        grippers = [f"robot{i}" for i in range(len(self._names)) if f"robot{i}_eef_pos" in self._names]
        parts = ("eef_pos", "eef_rot_axis_angle", "gripper_width")
        keys = [f"{gripper}_{part}" for gripper in grippers for part in parts if f"{gripper}_{part}" in self._names]
        others = [key for key in self._names if key not in ("action", _TIMES, "stage") and not self._is_camera(key)]
        if not keys and others:
            raise DataError(f"{self.path}: expected an array state, got {others}. Say which: keys.state ([] for none).")
        return keys

    def _camera_keys(self, given: Mapping[str, str] | None) -> dict[str, str]:
        if given is None:
            given = {key: key for key in self._names if self._is_camera(key)}
        for key in given.values():
            array = self._array(self._known(key, "keys.images"))
            if not _has_colours(array.shape):
                raise DataError(
                    f"{self.path}: {key}: expected frames (N, H, W, 3) or (N, 3, H, W), got {array.dtype} of shape "
                    f"{array.shape}. Leave it out of keys.images."
                )
            self._require_rows(key)
        return dict(given)

    def _is_camera(self, key: str) -> bool:
        return _has_colours(self._array(key).shape)

    def _known(self, key: str, what: str) -> str:
        if key not in self._names:
            near = did_you_mean(key, self._names)
            raise DataError(f"{self.path}: {what}: expected one of {self._names}, got {key!r}{near or '.'}")
        return key

    def _require_rows(self, key: str) -> None:
        rows, needed = self._array(key).shape[0], int((self._starts + self._lengths).max())
        if rows < needed:
            raise DataError(
                f"{self.path}: data/{key}: expected {needed} rows as {_ENDS} says, got {rows}. Fetch it again."
            )

    def _size(self, key: str) -> tuple[int, int]:
        """(height, width)"""
        shape = self._array(key).shape[1:]
        height, width = shape[:2] if shape[2] == 3 else shape[1:]
        return int(height), int(width)

    @property
    def _is_pusht(self) -> bool:
        return set(self._names) >= _PUSHT and self._array("state").shape[1:] == (5,)

    def _rate(self, given: float | None) -> float:
        if given is not None:
            return given_rate(self.path, given)
        if self._is_pusht:
            return _PUSHT_FPS
        times = self._times(int(self._starts[0]), int(self._lengths[0]))
        if times is not None and len(times) > 1:
            steps = np.diff(times)
            step = float(np.median(steps))
            if step > 0 and (np.abs(steps - step) < 0.01 * step).all():
                return round(1 / step, 2)
        raise DataError(f"{self.path}: expected a rate, got none in the files. Say it: args: {{fps: …}}.")

    def _scale(self, key: str, white: float | None) -> float:
        """What makes 0 … 255 of the numbers of a camera.

        Whole numbers have 255 as white. Others are looked at in the first frames of some episodes: beyond 1 there is
        nothing but 255, and a fraction below 1 means that 1 is white. Frames all 0 and 1 tell nothing.
        """
        if self._array(key).dtype.kind in "ui":
            return 1.0
        if white is None:
            some = self._starts[np.linspace(0, len(self) - 1, min(len(self), 4)).astype(int)]
            frames = self._arrays.rows(f"data/{key}", np.unique(some))
            if frames.max() > 1:
                white = 255.0
            elif (frames % 1 != 0).any():
                white = 1.0
            else:
                raise DataError(
                    f"{self.path}: {key}: expected frames that show whether white is 1 or 255, got nothing but 0 and 1 "
                    f"in the first ones. Say it: args: {{white: …}}."
                )
        return 255.0 / white

    def _features(self) -> Features:
        return Features(
            state=self._joined("state", self._state_keys) if self._state_keys else None,
            action=self._joined("action", self._action_keys),
            cameras={camera: CameraFeature(*self._size(key)) for camera, key in self._cameras.items()},
            fps=self.fps,
            control_space="ee" if self._is_pusht and self._action_keys == ["action"] else None,
            control_type="abs" if self._is_pusht and self._action_keys == ["action"] else None,
        )

    def _joined(self, what: str, keys: Sequence[str]) -> VectorFeature:
        return VectorFeature.joined([self._feature(what, key, alone=len(keys) == 1) for key in keys])

    def _feature(self, what: str, key: str, *, alone: bool) -> VectorFeature:
        """What the numbers of one array mean."""
        width = math.prod(self._array(key).shape[1:])
        if self._is_pusht and key in _PUSHT_FEATURES:
            return _PUSHT_FEATURES[key]
        turned = tuple(f"{key}_r{axis}" for axis in _XYZ)
        moved = tuple(f"{key}_{axis}" for axis in _XYZ)
        if key == "robot_eef_pose" and width == 6:
            units = ("m", "m", "m", "rad", "rad", "rad")
            return VectorFeature((*moved, *turned), units, rotations=(Rotation(turned, "axis_angle"),))
        if key.endswith("_eef_pos") and width == 3:
            return VectorFeature(moved, ("m",) * 3)
        if key.endswith("_eef_rot_axis_angle") and width == 3:
            return VectorFeature(turned, ("rad",) * 3, rotations=(Rotation(turned, "axis_angle"),))
        if key.endswith("_gripper_width") and width == 1:
            return VectorFeature((key,), ("m",))
        return VectorFeature.of_width(width, what if alone else key)

    # One episode

    def _vector(self, keys: Sequence[str], start: int, length: int) -> Float32:
        """(length, D) the arrays of these keys, joined."""
        parts = [
            self._arrays.rows(f"data/{key}", slice(start, start + length)).reshape(length, -1).astype(np.float32)
            for key in keys
        ]
        return np.concatenate(parts, axis=1) if parts else np.zeros((length, 0), np.float32)

    def _times(self, start: int, length: int) -> NDArray[np.float64] | None:
        """(length,) seconds, where the buffer has them."""
        if _TIMES not in self._names or self._array(_TIMES).ndim != 1:
            return None
        return self._arrays.rows(f"data/{_TIMES}", slice(start, start + length)).astype(np.float64)


def _has_colours(shape: tuple[int, ...]) -> bool:
    return len(shape) == 4 and 3 in (shape[1], shape[3])
