"""A reader of episodes that are groups of HDF5 files. A format says where they lie, what is read and what it means."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import h5py
import numpy as np
from numpy.typing import NDArray

from menura.data.episode import Episode, Float32
from menura.data.readers.base import Reader
from menura.data.readers.common import chosen_episodes, files_digest, given_rate
from menura.data.readers.hdf5 import (
    OpenFiles,
    dataset_paths,
    find_dataset,
    place_of,
    text_of,
)
from menura.data.readers.hdf5_frames import Hdf5Frames, frame_size
from menura.data.readers.keys import Keys
from menura.errors import DataError, did_you_mean
from menura.features import CameraFeature, Features, VectorFeature


@dataclass(frozen=True)
class Place:
    """Where an episode lies: a group of a file."""

    file: Path
    group: str


@dataclass(frozen=True)
class Part:
    """An array that is a part of the state or of the action: its key as said, its path in the episode, its width."""

    key: str
    path: str
    width: int


class Hdf5Reader(Reader):
    """Episodes that are groups of HDF5 files.

    A format derives from it, finds the places of its episodes, and says what it reads by `default_keys`, what that
    means by `part_feature` and `described`, and what it knows of an episode by `facts`.

    Args:
        path: the file or the directory.
        places: of all its episodes, in order.
        keys: what is read; what it leaves out is the format's own choice.
        episodes: which of the places, in this order; all when not given.
        name: what to call it; the file's or the directory's name when not given.
        fps: steps a second.
        options: the format's own that change what is read; JSON-able, part of the fingerprint.
        bgr, flip: how frames are stored (`Hdf5Frames`).

    Raises:
        DataError: damaged files, keys that are not there, episodes that are not there.
    """

    #: Paths below an episode's group under which a key is looked for, in this order.
    below: ClassVar[tuple[str, ...]] = ("",)
    #: Rows that observations may have beyond the actions: what was seen after the last of them.
    extra_rows: ClassVar[int] = 0

    def __init__(
        self,
        path: Path,
        places: Sequence[Place],
        *,
        keys: Keys | Mapping[str, Any] | None,
        episodes: Sequence[int] | None,
        name: str | None,
        fps: float,
        options: Mapping[str, Any],
        bgr: bool = False,
        flip: bool = False,
    ) -> None:
        self.path = path
        self.name = name or (path.name if path.is_dir() else path.stem)
        self.fps = fps
        self._files = OpenFiles()
        self._options = dict(options)
        self._bgr, self._flip = bgr, flip
        self._places = [places[index] for index in chosen_episodes(path, episodes, len(places))]
        self._lengths: NDArray[np.int64] | None = None
        with self._reading(0) as group:
            own, given = self.default_keys(group), Keys.of(keys)
            self._state = self._parts(group, "state", own.state if given.state is None else given.state)
            self._action = self._parts(group, "action", own.action if given.action is None else given.action)
            if not self._action:
                raise DataError(f"{place_of(group)}: expected an action, got none. Say which: keys.action.")
            self._cameras = self._camera_paths(group, own.images or {}, given.images)
            self._task = None if given.task is None else self._task_place(group, given.task)
            sizes = {camera: frame_size(group[path]) for camera, path in self._cameras.items()}
            features = Features(
                state=self._joined("state", self._state) if self._state else None,
                action=self._joined("action", self._action),
                cameras={camera: CameraFeature(*size) for camera, size in sizes.items()},
                fps=fps,
                language=bool(self._facts(group, 0).get("task")),
            )
            self.features = self.described(features, group)

    # What a format says

    def default_keys(self, group: h5py.Group) -> Keys:
        """What of an episode is read when nobody says; None where somebody must."""
        raise NotImplementedError

    def part_feature(self, what: str, part: Part) -> VectorFeature:
        """What a part of the `state` or the `action` means; `key_0 … key_n` when a format knows no better."""
        return VectorFeature.of_width(part.width, part.key)

    def described(self, features: Features, group: h5py.Group) -> Features:
        """The features with what else the format knows: control space and type, robot."""
        return features

    def facts(self, group: h5py.Group, place: Place) -> dict[str, Any]:
        """What is known of an episode: `task`, `success`, `seed`, `timestamps`, `extra` of `Episode`, where it is."""
        return {}

    # The reader

    def __len__(self) -> int:
        return len(self._places)

    def lengths(self) -> NDArray[np.int64]:
        if self._lengths is None:
            self._lengths = np.array([self._count(index) for index in range(len(self))], np.int64)
        return self._lengths

    def episode(self, index: int) -> Episode:
        """Episode `index`; its frames are read and decoded when asked for."""
        with self._reading(index) as group:
            action = self._matrix(group, self._action, None)
            state = self._matrix(group, self._state, len(action))
            images = self._images(group, index, len(action))
            facts = self._facts(group, index)
        return Episode(state=state, action=action, images=images, fps=self.fps, **facts)

    def images(self, index: int) -> dict[str, Hdf5Frames]:
        with self._reading(index) as group:
            return self._images(group, index, self._steps(group))

    def tasks(self) -> list[str]:
        texts = []
        for index in range(len(self)):
            with self._reading(index) as group:
                texts.append(str(self._facts(group, index).get("task", "")))
        return texts

    def metadata(self, index: int) -> dict[str, Any]:
        with self._reading(index) as group:
            facts = self._facts(group, index)
        return {key: facts[key] for key in ("success", "seed", "extra") if facts.get(key) is not None}

    def fingerprint(self) -> str:
        selection = {
            "episodes": [
                [str(place.file.relative_to(self.path)) if place.file != self.path else "", place.group]
                for place in self._places
            ],
            "state": [part.path for part in self._state],
            "action": [part.path for part in self._action],
            "cameras": self._cameras,
            "task": self._task,
            "fps": self.fps,
            "options": self._options,
        }
        return files_digest(dict.fromkeys(place.file for place in self._places), self.path, selection)

    # Keys

    def _parts(self, group: h5py.Group, what: str, keys: Sequence[str] | None) -> list[Part]:
        if keys is None:
            raise DataError(
                f"{place_of(group)}: expected a {what} that is known by its name, got {dataset_paths(group)}. "
                f"Say which: keys.{what}."
            )
        parts: list[Part] = []
        for key in keys:
            path = find_dataset(group, key, self.below, f"keys.{what}")
            dataset = group[path]
            if path in [part.path for part in parts]:
                raise DataError(f"{place_of(dataset)}: keys.{what}: expected each key once, got {list(keys)}.")
            if dataset.ndim not in (1, 2) or dataset.dtype.kind not in "fiub":
                raise DataError(
                    f"{place_of(dataset)}: keys.{what}: expected numbers (T,) or (T, n), "
                    f"got {dataset.dtype} of shape {dataset.shape}. Name another key."
                )
            parts.append(Part(key.strip("/"), path, 1 if dataset.ndim == 1 else int(dataset.shape[1])))
        return parts

    def _camera_paths(
        self, group: h5py.Group, own: Mapping[str, str], given: Mapping[str, str] | None
    ) -> dict[str, str]:
        """Camera -> path. A key is a camera's name or a dataset's; a camera listed by its key alone keeps its name."""
        names = {key: camera for camera, key in own.items()}
        cameras = {}
        for camera, key in (own if given is None else given).items():
            path = find_dataset(group, own.get(key, key), self.below, "keys.images")
            cameras[names.get(key, camera) if camera == key else camera] = path
        return cameras

    def _task_place(self, group: h5py.Group, key: str) -> str:
        if key in group.attrs:
            return key
        path = find_dataset(group, key, self.below, "keys.task")
        if group[path].dtype.kind not in "SO":
            raise DataError(f"{place_of(group[path])}: keys.task: expected text, got {group[path].dtype}.")
        return path

    def _joined(self, what: str, parts: Sequence[Part]) -> VectorFeature:
        """The feature of the parts side by side."""
        features = [self.part_feature(what, part) for part in parts]
        names = [name for feature in features for name in feature.names]
        if len(set(names)) < len(names):
            features = [VectorFeature.of_width(part.width, part.path) for part in parts]
        return VectorFeature.joined(features)

    # One episode

    @contextmanager
    def _reading(self, index: int) -> Iterator[h5py.Group]:
        self.require_episode(index)
        place = self._places[index]
        with self._files.reading(place.file) as file:
            group = file.get(place.group)
            if not isinstance(group, h5py.Group):
                raise DataError(f"{place.file}: expected a group {place.group}, got none. Fetch the file again.")
            yield group

    def _dataset(self, group: h5py.Group, path: str) -> h5py.Dataset:
        """A dataset that the first episode has."""
        dataset = group.get(path)
        if not isinstance(dataset, h5py.Dataset):
            there = dataset_paths(group)
            raise DataError(
                f"{place_of(group)}: expected a dataset {path!r} as the first episode has, got {there}"
                f"{did_you_mean(path, there) or '.'}"
            )
        return dataset

    def _facts(self, group: h5py.Group, index: int) -> dict[str, Any]:
        """What the format knows of an episode, and its instruction: the text of an attribute or a dataset."""
        facts = self.facts(group, self._places[index])
        if self._task is None:
            return facts
        text = group.attrs[self._task] if self._task in group.attrs else self._dataset(group, self._task)[()]
        return facts | {"task": text_of(text)}

    def _count(self, index: int) -> int:
        with self._reading(index) as group:
            return self._steps(group)

    def _steps(self, group: h5py.Group) -> int:
        return self._require_rows(self._dataset(group, self._action[0].path), None)

    def _require_rows(self, dataset: h5py.Dataset, rows: int | None) -> int:
        """The steps of an episode: its actions, which observations may exceed by `extra_rows`."""
        steps = len(dataset) if rows is None else rows
        if steps == 0:
            raise DataError(f"{place_of(dataset)}: expected at least 1 step, got none. Leave this episode out.")
        if not steps <= len(dataset) <= steps + self.extra_rows:
            raise DataError(f"{place_of(dataset)}: expected {steps} rows as the action has, got {len(dataset)}.")
        return steps

    def _matrix(self, group: h5py.Group, parts: Sequence[Part], rows: int | None) -> Float32:
        """(rows, D) float32: the parts side by side."""
        columns = []
        for part in parts:
            dataset = self._dataset(group, part.path)
            width = 1 if dataset.ndim == 1 else dataset.shape[1]
            if width != part.width:
                raise DataError(
                    f"{place_of(dataset)}: expected {part.width} numbers a step as the first episode has, got {width}."
                )
            rows = self._require_rows(dataset, rows)
            columns.append(np.asarray(dataset[:rows], np.float32).reshape(rows, part.width))
        return np.concatenate(columns, axis=1) if columns else np.zeros((rows or 0, 0), np.float32)

    def _images(self, group: h5py.Group, index: int, steps: int) -> dict[str, Hdf5Frames]:
        place, images = self._places[index], {}
        for camera, path in self._cameras.items():
            self._require_rows(self._dataset(group, path), steps)
            key, size = f"{place.group.rstrip('/')}/{path}", self.features.cameras[camera]
            images[camera] = Hdf5Frames(
                self._files, place.file, key, steps, size.height, size.width, bgr=self._bgr, flip=self._flip
            )
        return images


def known_fps(fps: float | None, path: Path, hint: str) -> float:
    """The rate that was given or found; DataError where it is neither."""
    if fps is None:
        raise DataError(f"{path}: expected a rate, got none in the file. Say it: args: {{fps: …}}{hint}.")
    return given_rate(path, fps)
