"""robomimic's HDF5 and robosuite's own recordings: `data/demo_<i>`, with what describes them in attributes of `data`.

robomimic: `data/demo_<i>/{actions,dones,rewards,states}`, `…/obs/<key>`, `mask/<name>` lists of demonstrations,
`data.attrs["env_args"]` (https://robomimic.github.io/docs/datasets/overview.html). robosuite's `demo.hdf5` has `states`
and `actions` only and says `env`, `env_info`. robosuite's quaternions are x, y, z, w.

**Upside-down frames.** robosuite renders with the lowest row first. robomimic's `dataset_states_to_obs.py` turns the
frames before it writes them, so that its files hold them upright; other programs (LIBERO's) write them as rendered.
`flip` turns them while reading.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import h5py
import numpy as np

from menura.data.readers.hdf5 import OpenFiles, dataset_paths, hdf5_files, json_attribute, natural_key, text_of
from menura.data.readers.hdf5_frames import holds_frames
from menura.data.readers.hdf5_reader import Hdf5Reader, Part, Place, known_fps
from menura.data.readers.keys import Keys
from menura.data.readers.robosuite import action_feature, control_of, object_feature, state_feature
from menura.errors import DataError, did_you_mean
from menura.features import Features, VectorFeature

_PROPRIOCEPTION = ("eef_pos", "eef_quat", "gripper_qpos")


class RobomimicReader(Hdf5Reader):
    """robomimic's HDF5, and robosuite's demonstrations as they were recorded.

    State: `robot<i>_eef_pos`, `robot<i>_eef_quat`, `robot<i>_gripper_qpos` of every robot, and `object` where there are
    no cameras: what robomimic's own policies see. Without `obs` the simulator's `states`. Action: `actions`. Cameras:
    `obs/<camera>_image`. An episode is solved where a sparse reward (0 or 1) is 1, or `dones` is 1 before its end.

    Args:
        path: a file, or a directory of them; demonstrations in natural order, file by file.
        keys, episodes, name: as every reader. A camera's key may be `agentview` or `agentview_image`.
        mask: only demonstrations of this list of the file's: `train`, `valid`, `20_percent`, ….
        fps: the file's own (`control_freq`) when not given; robosuite's recordings do not say it.
        flip: whether the file's frames are upside down and are to be turned.

    Raises:
        DataError: damage, keys or masks that are not there, a rate that nobody states or files that disagree on it.
    """

    below: ClassVar[tuple[str, ...]] = ("obs", "")
    #: Ends of a camera's key which its name has not.
    camera_ends: ClassVar[tuple[str, ...]] = ("_image", "_rgb")

    def __init__(
        self,
        path: str | Path,
        *,
        keys: Keys | Mapping[str, Any] | None = None,
        episodes: Sequence[int] | None = None,
        name: str | None = None,
        mask: str | None = None,
        fps: float | None = None,
        flip: bool = False,
    ) -> None:
        path = Path(path).expanduser().resolve()
        files = hdf5_files(path)
        opened = OpenFiles()
        places, described = [], []
        for file in files:
            with opened.reading(file) as content:
                places += [Place(file, f"/data/{demo}") for demo in _demos(content, mask)]
                described.append(self.environment(content["data"]))
        self.environment_args = described[0]
        super().__init__(
            path,
            places,
            keys=keys,
            episodes=episodes,
            name=name,
            fps=_common_rate(fps, dict(zip(files, described, strict=True)), path, self.rate_hint),
            options={"flip": flip},
            flip=flip,
        )

    #: What is said where a file does not state its rate.
    rate_hint: ClassVar[str] = "; robosuite's recorder ran at 20 unless it was told otherwise"

    @staticmethod
    def environment(data: h5py.Group) -> dict[str, Any]:
        """What made the data: `env_name` and `env_kwargs`."""
        found = json_attribute(data, "env_args")
        if found:
            return found
        return {"env_name": text_of(data.attrs.get("env", "")), "env_kwargs": json_attribute(data, "env_info")}

    @property
    def _kwargs(self) -> dict[str, Any]:
        return dict(self.environment_args.get("env_kwargs") or {})

    def default_keys(self, group: h5py.Group) -> Keys:
        obs = group.get("obs")
        if obs is None:
            return Keys(state=("states",) if "states" in group else (), action=("actions",), images={})
        cameras = {self._camera_name(key): f"obs/{key}" for key in dataset_paths(obs) if holds_frames(obs[key])}
        return Keys(state=self.default_state(obs, bool(cameras)), action=("actions",), images=cameras)

    def default_state(self, obs: h5py.Group, has_cameras: bool) -> tuple[str, ...] | None:
        """The keys below `obs` that are read as the state when nobody says; None where none of them is known."""
        robots = sorted({key.split("_")[0] for key in obs if key.startswith("robot")}, key=natural_key)
        found = [f"{robot}_{part}" for robot in robots for part in _PROPRIOCEPTION if f"{robot}_{part}" in obs]
        if not has_cameras and "object" in obs:
            found.append("object")
        return tuple(found) or none_of(obs)

    def part_feature(self, what: str, part: Part) -> VectorFeature:
        if part.path in ("actions", "actions_abs"):
            return action_feature(part.key, part.width, self._kwargs)
        if part.key in ("object", "states"):
            return object_feature(part.key, part.width)
        return state_feature(part.key, part.width, self._kwargs)

    def described(self, features: Features, group: h5py.Group) -> Features:
        space, kind = control_of(self._kwargs)
        if [part.key for part in self._action] == ["actions_abs"]:
            kind = "abs" if space is not None else None
        elif [part.key for part in self._action] != ["actions"]:
            space = kind = None
        robots = self._kwargs.get("robots")
        robot = robots if isinstance(robots, str) else "+".join(robots or ()) or None
        return replace(features, control_space=space, control_type=kind, robot=robot and robot.lower())

    def facts(self, group: h5py.Group, place: Place) -> dict[str, Any]:
        facts: dict[str, Any] = {"success": _success(group, self._kwargs.get("reward_shaping") is False)}
        language = json_attribute(group, "ep_meta").get("lang")
        return facts | {"task": language} if language else facts

    def _camera_name(self, key: str) -> str:
        return next((key.removesuffix(end) for end in self.camera_ends if key.endswith(end)), key)


def none_of(obs: h5py.Group) -> tuple[str, ...] | None:
    """No state where there are only pictures; else somebody must say which of the vectors it is."""
    vectors = [path for path in dataset_paths(obs) if obs[path].ndim <= 2 and not holds_frames(obs[path])]
    return None if vectors else ()


def _demos(file: h5py.File, mask: str | None) -> list[str]:
    """The names of a file's demonstrations, in natural order."""
    if not isinstance(file.get("data"), h5py.Group):
        raise DataError(f"{file.filename}: expected a group 'data' of demonstrations, got {list(file)}.")
    demos = sorted((name for name, item in file["data"].items() if isinstance(item, h5py.Group)), key=natural_key)
    if mask is None:
        return demos
    masks = list(file.get("mask", ()))
    if mask not in masks:
        near = did_you_mean(mask, masks) or "."
        raise DataError(f"{file.filename}: mask: expected one of {masks}, got {mask!r}{near}")
    chosen = {text_of(name) for name in file["mask"][mask][()]}
    absent = sorted(chosen.difference(demos), key=natural_key)
    if absent:
        raise DataError(f"{file.filename}:/mask/{mask}: expected demonstrations of the file, got {absent}.")
    return [demo for demo in demos if demo in chosen]


def _common_rate(fps: float | None, described: Mapping[Path, Mapping[str, Any]], path: Path, hint: str) -> float:
    """The rate of all files, which must have their actions' meaning in common, too."""
    kwargs = {file: args.get("env_kwargs") or {} for file, args in described.items()}
    rates = {file: args.get("control_freq") if fps is None else fps for file, args in kwargs.items()}
    _require_equal("control_freq", rates)
    _require_equal("control space and type", {file: control_of(args) for file, args in kwargs.items()})
    return known_fps(next(iter(rates.values())), path, hint)


def _require_equal(what: str, values: Mapping[Path, Any]) -> None:
    first = next(iter(values.values()))
    for file, value in values.items():
        if value != first:
            raise DataError(f"{file}: {what}: expected {first} as the other files have, got {value}.")


def _success(group: h5py.Group, sparse: bool) -> bool | None:
    """Whether a demonstration solved its task, where that can be known.

    A sparse reward is 1 where it did. `dones` is 1 at the end of every demonstration, or where it was solved, or both
    (robomimic's `done_mode`): only before the last step does it prove a success. Shaped rewards prove nothing.
    """
    rewards = np.unique(group["rewards"][()]).tolist() if "rewards" in group else []
    if 1 in rewards and set(rewards) <= {0, 1}:
        return True
    if "dones" in group and bool(np.any(group["dones"][:-1])):
        return True
    return False if sparse and rewards == [0] else None
