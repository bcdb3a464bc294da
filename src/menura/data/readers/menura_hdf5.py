"""Menura's own HDF5, one file an episode: `docs/formats.md` specifies it, `Hdf5Writer` writes it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from menura.data.readers.hdf5 import OpenFiles, hdf5_files, json_attribute, place_of
from menura.data.readers.hdf5_reader import Hdf5Reader, Part, Place
from menura.data.readers.keys import Keys
from menura.errors import DataError
from menura.features import Features, VectorFeature

FORMAT = "menura"
VERSION = 1
MANIFEST = "menura.json"
INDEX = "episodes.jsonl"
FACTS = ("task", "success", "seed", "extra")
STATE, ACTION, TIMESTAMPS, IMAGES = "state", "action", "timestamps", "images"


class MenuraHdf5Reader(Hdf5Reader):
    """Episodes that `Hdf5Writer` recorded, with their features, times, success, seed and further facts.

    Args:
        path: the directory, or one file of it.
        keys, episodes, name: as every reader.

    Raises:
        DataError: damage, an episode of the index without its file, a newer version of the format.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        keys: Keys | Mapping[str, Any] | None = None,
        episodes: Sequence[int] | None = None,
        name: str | None = None,
    ) -> None:
        path = Path(path).expanduser().resolve()
        if (path / MANIFEST).exists() and not any(path.glob("episode_*.hdf5")):
            raise DataError(f"{path}: expected episodes, got none. No episode was finished; record some.")
        files = hdf5_files(path)
        with OpenFiles().reading(files[0]) as file:
            self._recorded = recorded_features(file)
        self._index = _valid_rows(path, files) if path.is_dir() else {}
        super().__init__(
            path,
            [Place(file, "/") for file in files],
            keys=keys,
            episodes=episodes,
            name=name,
            fps=self._recorded.fps,
            options={},
        )

    def default_keys(self, group: h5py.Group) -> Keys:
        return Keys(
            state=(STATE,) if self._recorded.state else (),
            action=(ACTION,),
            images={camera: f"{IMAGES}/{camera}" for camera in self._recorded.cameras},
        )

    def part_feature(self, what: str, part: Part) -> VectorFeature:
        known = {STATE: self._recorded.state, ACTION: self._recorded.action}.get(part.path)
        return known or super().part_feature(what, part)

    def described(self, features: Features, group: h5py.Group) -> Features:
        recorded = self._recorded
        cameras = {
            camera: replace(feature, render=recorded.cameras[key.removeprefix(f"{IMAGES}/")].render)
            for (camera, feature), key in zip(features.cameras.items(), self._cameras.values(), strict=True)
        }
        own_action = [part.path for part in self._action] == [ACTION]
        return replace(
            features,
            cameras=cameras,
            language=recorded.language,
            control_space=recorded.control_space if own_action else None,
            control_type=recorded.control_type if own_action else None,
            robot=recorded.robot,
        )

    def facts(self, group: h5py.Group, place: Place) -> dict[str, Any]:
        noted = json_attribute(group, "episode")
        timestamps = self._dataset(group, TIMESTAMPS)
        self._require_rows(timestamps, self._steps(group))
        facts: dict[str, Any] = {key: noted[key] for key in FACTS if key in noted}
        return facts | {"timestamps": np.asarray(timestamps[()])}

    def metadata(self, index: int) -> dict[str, Any]:
        row = self._index.get(self._places[index].file.name)
        if row is None:
            return super().metadata(index)
        return {key: row[key] for key in ("success", "seed", "extra") if row.get(key) is not None}

    def tasks(self) -> list[str]:
        rows = [self._index.get(place.file.name) for place in self._places]
        if self._task is not None or None in rows:
            return super().tasks()
        return [str(row["task"]) for row in rows if row is not None]

    def _count(self, index: int) -> int:
        row = self._index.get(self._places[index].file.name)
        return super()._count(index) if row is None else int(row["length"])


def recorded_features(file: h5py.File) -> Features:
    """What an episode's file says of itself.

    Raises:
        DataError: a newer version, or no features.
    """
    version = int(file.attrs.get("version", 0))
    if version != VERSION:
        raise DataError(f"{place_of(file)}: version: expected {VERSION}, got {version}. Install a newer Menura.")
    features = json_attribute(file, "features")
    if not features:
        raise DataError(f"{place_of(file)}: expected an attribute 'features', got {list(file.attrs)}.")
    return Features.from_dict(features)


def read_index(directory: Path) -> dict[str, dict[str, Any]]:
    """File name -> what `episodes.jsonl` says of it. A last line that a kill cut off is left out.

    Raises:
        DataError: another line is damaged.
    """
    path = directory / INDEX
    lines = path.read_text(encoding="utf-8").split("\n")[:-1] if path.exists() else []
    rows = (_row(line, f"{path}:{number}") for number, line in enumerate(lines, 1))
    return {row["file"]: row for row in rows}


def _row(line: str, where: str) -> dict[str, Any]:
    try:
        row: dict[str, Any] = json.loads(line)
        return {**row, "file": str(row["file"])}
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise DataError(f"{where}: expected a JSON object with 'file', got {line[:60]!r}.") from error


def _valid_rows(directory: Path, files: Sequence[Path]) -> dict[str, dict[str, Any]]:
    """The rows of the index that still fit their files; a file without one is asked itself.

    Raises:
        DataError: a file of the index is not there.
    """
    rows = read_index(directory)
    there = {file.name: file for file in files}
    absent = [name for name in rows if name not in there]
    if absent:
        raise DataError(f"{directory / absent[0]}: expected an episode as {INDEX} has, found nothing. Fetch it again.")
    return {name: row for name, row in rows.items() if there[name].stat().st_size == row.get("bytes")}
