"""Minari's HDF5: `data/main_data.hdf5` with a group `episode_<i>` an episode, `data/metadata.json` beside it.

Layout: https://minari.farama.org/content/dataset_standards. An episode has T actions and T + 1 observations; the last,
seen after the last action, is not read. Dict observations and infos are groups.
Pictures are raw, or from Minari 0.5.3 on JPEG, padded or of varying length.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import h5py
import numpy as np

from menura.data.readers.hdf5 import OpenFiles, dataset_paths, hdf5_files, natural_key, place_of, text_of
from menura.data.readers.hdf5_frames import holds_frames
from menura.data.readers.hdf5_reader import Hdf5Reader, Part, Place, known_fps
from menura.data.readers.keys import Keys
from menura.errors import DataError
from menura.features import Features, VectorFeature
from menura.files import read_json

_METADATA = "metadata.json"


class MinariReader(Hdf5Reader):
    """A Minari dataset.

    State: `observations`, or of a Dict space every part that is a vector, in the file's order. Action: `actions`, which
    must be continuous. Cameras: every part that is RGB frames. Solved where `infos/success` was true.

    Args:
        path: the dataset's directory, its `data`, or the HDF5 file.
        keys, episodes, name: as every reader.
        fps: steps a second, which the format does not keep.

    Raises:
        DataError: damage, keys that are not there, discrete actions, no `fps`.
    """

    below: ClassVar[tuple[str, ...]] = ("observations", "")
    extra_rows: ClassVar[int] = 1

    def __init__(
        self,
        path: str | Path,
        *,
        keys: Keys | Mapping[str, Any] | None = None,
        episodes: Sequence[int] | None = None,
        name: str | None = None,
        fps: float | None = None,
    ) -> None:
        path = Path(path).expanduser().resolve()
        opened = OpenFiles()
        places = []
        for file in hdf5_files(path):
            with opened.reading(file) as content:
                names = sorted((name for name in content if name.startswith("episode_")), key=natural_key)
                places += [Place(file, f"/{name}") for name in names]
        self._about = _metadata(path)
        hint = "; Minari keeps no rate: it is the environment's, `env.metadata['render_fps']` or 1 / `env.unwrapped.dt`"
        super().__init__(
            path,
            places,
            keys=keys,
            episodes=episodes,
            name=name or self._about.get("dataset_id"),
            fps=known_fps(fps, path, hint),
            options={},
        )

    def default_keys(self, group: h5py.Group) -> Keys:
        observations = group.get("observations")
        if isinstance(observations, h5py.Dataset):
            if holds_frames(observations):
                return Keys(state=(), action=("actions",), images={"observations": "observations"})
            return Keys(state=("observations",), action=("actions",), images={})
        paths = [] if observations is None else dataset_paths(observations)
        vectors = [path for path in paths if _is_vector(observations[path])]
        cameras = [path for path in paths if holds_frames(observations[path])]
        return Keys(
            state=tuple(vectors),
            action=("actions",),
            images={path.replace("/", "."): f"observations/{path}" for path in cameras},
        )

    def part_feature(self, what: str, part: Part) -> VectorFeature:
        prefix = "state" if part.path == "observations" else "action" if part.path == "actions" else part.key
        return VectorFeature.of_width(part.width, prefix.replace("/", "."))

    def described(self, features: Features, group: h5py.Group) -> Features:
        for part in self._action:
            dataset = group[part.path]
            if dataset.dtype.kind not in "f":
                raise DataError(
                    f"{place_of(dataset)}: expected continuous actions, got {dataset.dtype}: categories, which are no "
                    f"numbers to be regressed. Write a class that gives them as one-hot vectors."
                )
        return features

    def facts(self, group: h5py.Group, place: Place) -> dict[str, Any]:
        facts: dict[str, Any] = {}
        success = group.get("infos/success")
        if isinstance(success, h5py.Dataset):
            facts["success"] = bool(np.any(success[()]))
        seed = group.attrs.get("seed")
        if isinstance(seed, (int, np.integer)):
            facts["seed"] = int(seed)
        mission = group.get("observations/mission")
        if isinstance(mission, h5py.Dataset):
            facts["task"] = text_of(mission[()])
        return facts


def _metadata(path: Path) -> dict[str, Any]:
    """`metadata.json` of a dataset, wherever in it the path points; empty where there is none."""
    folder = path if path.is_dir() else path.parent
    found = next((file for file in (folder / _METADATA, folder / "data" / _METADATA) if file.exists()), None)
    return {} if found is None else dict(read_json(found, DataError))


def _is_vector(dataset: h5py.Dataset) -> bool:
    return dataset.ndim in (1, 2) and dataset.dtype.kind in "fiub" and not holds_frames(dataset)
