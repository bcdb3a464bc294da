"""LeRobotDataset v3.0, read as it lies on disk.

Everything is found through the episodes table, so any rule of dividing data and videos into files can be read. Time is
integers: an episode begins in a video at frame `round(from_timestamp * fps)`, and the file is asked whether it agrees.
"""

from __future__ import annotations

import hashlib
import json
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from menura.data.episode import Episode, Float32, Frames
from menura.data.frames import ImageFrames
from menura.data.readers.base import Reader
from menura.data.readers.keys import Keys
from menura.data.readers.lerobot_cameras import Camera, video_frames
from menura.data.readers.lerobot_meta import (
    ACTION,
    STATE,
    matrix,
    open_parquet,
    read_episodes,
    read_info,
    read_parquet,
    read_tasks,
)
from menura.errors import DataError, did_you_mean
from menura.features import CameraFeature, Features, VectorFeature

_BOOKKEEPING = frozenset({"timestamp", "frame_index", "episode_index", "index", "task_index"})
_OPEN_FILES = 8


class LeRobotReader(Reader):
    """A LeRobotDataset v3.0.

    Args:
        path: the directory that holds `meta/`, `data/` and perhaps `videos/`.
        keys: what is read: the state is `observation.state` and the action `action` when not said, cameras are all RGB
            ones; a camera's key may be its name (`top`) or whole (`observation.images.top`).
        episodes: which ones, in this order; all when not given.
        name: what to call it; the directory's name when not given.

    Raises:
        DataError: absent or damaged files, another version of the format, keys that are not there.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        keys: Keys | Mapping[str, Any] | None = None,
        episodes: Sequence[int] | None = None,
        name: str | None = None,
    ) -> None:
        keys = Keys.of(keys)
        self.root = Path(path).expanduser().resolve()
        self.name = name or self.root.name
        self._info = read_info(self.root)
        self._state_keys = self._vector_keys("state", STATE, keys.state)
        self._action_keys = self._vector_keys("action", ACTION, keys.action)
        self._cameras = self._select_cameras(keys.images)
        video_keys = [camera.key for camera in self._cameras.values() if camera.video]
        self._table = read_episodes(self.root, video_keys)
        if self._info.total_episodes > len(self._table):
            raise DataError(
                f"{self.root}: meta/info.json counts {self._info.total_episodes} episodes, "
                f"meta/episodes holds {len(self._table)}. The recording was cut off; fetch the dataset again."
            )
        self._tasks = read_tasks(self.root)
        self._selected = self._select_episodes(episodes)
        self._files: OrderedDict[Path, _DataFile] = OrderedDict()
        self.features = self._features()

    def __len__(self) -> int:
        return len(self._selected)

    def lengths(self) -> NDArray[np.int64]:
        return self._table.length[self._selected]

    def episode(self, index: int) -> Episode:
        """Episode `index`; its frames are decoded when asked for."""
        if not 0 <= index < len(self):
            raise IndexError(f"{self.name}: expected an episode in 0 … {len(self) - 1}, got {index}.")
        row = int(self._selected[index])
        table = self._rows(row, [*self._state_keys, *self._action_keys, "episode_index", "task_index"])
        facts = self.metadata(index)
        return Episode(
            state=self._vector(table, self._state_keys, row),
            action=self._vector(table, self._action_keys, row),
            images={camera: self._frames(selected, row) for camera, selected in self._cameras.items()},
            task=self._task(row, table),
            fps=self._info.fps,
            success=facts.get("success"),
            seed=facts.get("seed"),
            extra=facts.get("extra", {}),
        )

    def metadata(self, index: int) -> dict[str, Any]:
        return dict(self._table.own[int(self._selected[index])])

    def fingerprint(self) -> str:
        digest = hashlib.sha256()
        selection = [self._selected.tolist(), self._state_keys, self._action_keys, list(self._cameras)]
        digest.update(json.dumps(selection).encode())
        digest.update((self.root / "meta/info.json").read_bytes())
        for part in ("meta", "data", "videos"):
            for path in sorted((self.root / part).rglob("[!.]*.*")):
                stat = path.stat()
                digest.update(f"{path.relative_to(self.root)}\0{stat.st_size}\0{stat.st_mtime_ns}\n".encode())
        return digest.hexdigest()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_files": OrderedDict()}  # open files stay in their process

    # What is in the dataset

    def _vector_keys(self, what: str, default: str, given: Sequence[str] | None) -> list[str]:
        vectors = [key for key, spec in self._info.features.items() if _is_vector(spec) and key not in _BOOKKEEPING]
        keys = [default] if given is None else list(given)
        for key in keys:
            if key in vectors:
                continue
            others = [vector for vector in vectors if vector.startswith("observation.")]
            if given is None and what == "state" and not others:
                return []  # nothing but pictures
            raise DataError(
                f"{self.root / 'meta/info.json'}: expected a vector feature {key!r} as {what}, got {vectors}"
                f"{did_you_mean(key, vectors) or '.'} Say which: keys.{what}."
            )
        return keys

    def _select_cameras(self, given: Mapping[str, str] | None) -> dict[str, Camera]:
        cameras = {}
        for key, spec in self._info.features.items():
            if spec["dtype"] in ("video", "image"):
                camera = Camera.of(key, spec)
                cameras[camera.name] = camera
        if given is None:
            return {name: camera for name, camera in cameras.items() if not camera.depth}
        selected = {}
        for name, wanted in given.items():
            found = cameras.get(wanted) or next((c for c in cameras.values() if c.key == wanted), None)
            if found is None:
                near = did_you_mean(wanted, cameras)
                raise DataError(f"{self.root}: expected cameras among {list(cameras)}, got {wanted!r}{near or '.'}")
            if found.depth:
                raise DataError(
                    f"{self.root}: camera {wanted!r}: expected RGB, got a depth map. Leave it out of keys.images."
                )
            selected[found.name if name == wanted else name] = found
        return selected

    def _select_episodes(self, given: Sequence[int] | None) -> NDArray[np.int64]:
        total = len(self._table)
        if total == 0:
            raise DataError(f"{self.root}: expected episodes, got none. Record some, or fetch the dataset again.")
        if given is None:
            return np.arange(total)
        selected = np.asarray(given, np.int64).reshape(-1)
        outside = selected[(selected < 0) | (selected >= total)]
        if len(selected) == 0 or len(outside):
            raise DataError(f"{self.root}: episodes: expected some of 0 … {total - 1}, got {outside.tolist()}.")
        return selected

    def _features(self) -> Features:
        """What `meta/info.json` says, and what our writer noted of the same vectors and cameras."""
        own = Features.from_dict(self._info.own["features"]) if "features" in self._info.own else None
        state = self._vector_feature("state", self._state_keys) if self._state_keys else None
        action = self._vector_feature("action", self._action_keys)
        features = Features(
            state=state,
            action=action,
            cameras={name: CameraFeature(camera.height, camera.width) for name, camera in self._cameras.items()},
            fps=self._info.fps,
            language=any(self._tasks) or any(any(tasks) for tasks in self._table.tasks),
            robot=self._info.robot_type,
        )
        return features if own is None else _enriched(features, own)

    def _vector_feature(self, what: str, keys: list[str]) -> VectorFeature:
        names: list[str] = []
        numbered: list[str] = []
        for key in keys:
            spec = self._info.features[key]
            plain = [f"{what if len(keys) == 1 else key}_{i}" for i in range(int(spec["shape"][0]))]
            found = _flat_names(spec.get("names"))
            names += found if len(found) == len(plain) else plain
            numbered += plain
        return VectorFeature(tuple(names if len(set(names)) == len(names) else numbered))

    # One episode

    def _rows(self, row: int, columns: list[str]) -> pa.Table:
        """The episode's rows of these columns of its data file."""
        path = self.root / self._info.data_path.format(
            chunk_index=int(self._table.chunk[row]), file_index=int(self._table.file[row])
        )
        file = self._files.pop(path, None) or _DataFile(path)
        self._files[path] = file
        while len(self._files) > _OPEN_FILES:
            self._files.popitem(last=False)
        length, offset = int(self._table.length[row]), int(self._table.offset[row])
        table = file.rows(offset, offset + length, columns)
        episodes = (
            table.column("episode_index").to_numpy() if "episode_index" in table.column_names else np.array([row])
        )
        if len(table) != length or (episodes != row).any():
            raise DataError(
                f"{path}: expected rows {offset} … {offset + length - 1} to be the {length} frames of episode {row}, "
                f"got {int((episodes == row).sum())} of them. Fetch the dataset again."
            )
        return table

    def _vector(self, table: pa.Table, keys: list[str], row: int) -> Float32:
        """(T, D) the columns of these keys, joined."""
        parts = [
            matrix(table.column(key), int(self._info.features[key]["shape"][0]), f"{self.root}: episode {row}: {key}")
            for key in keys
        ]
        return np.concatenate(parts, axis=1) if parts else np.zeros((len(table), 0), np.float32)

    def _task(self, row: int, table: pa.Table) -> str:
        """The task of the episode's first frame."""
        task_index = table.column("task_index")[0].as_py() if "task_index" in table.column_names else len(self._tasks)
        if task_index < len(self._tasks):
            return self._tasks[task_index] or ""
        return next(iter(self._table.tasks[row]), "")

    def _frames(self, camera: Camera, row: int) -> Frames:
        length = int(self._table.length[row])
        if camera.video:
            return video_frames(self.root, self._info, self._table.videos[camera.key], camera, row, length)
        what = f"{self.root}: episode {row}, camera {camera.name!r}"
        return ImageFrames(partial(self._pictures, camera.key, row), length, camera.height, camera.width, what)

    def _pictures(self, key: str, row: int) -> list[bytes]:
        """The encoded frames of an episode; empty ones where they are missing."""
        column = self._rows(row, [key, "episode_index"]).column(key).combine_chunks()
        return [encoded or b"" for encoded in column.field("bytes").to_pylist()]


class _DataFile:
    """One data file, with the rows at which its row groups begin."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.file: pq.ParquetFile = open_parquet(path)
        metadata = self.file.metadata
        counts = [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]
        self.begins = np.concatenate([[0], np.cumsum(counts, dtype=np.int64)])
        self.columns = frozenset(self.file.schema_arrow.names)

    def rows(self, start: int, stop: int, columns: list[str]) -> pa.Table:
        """Rows `start … stop - 1`, fewer where the file ends; only the row groups that hold them are read."""
        missing = [column for column in columns if column not in self.columns and column not in _BOOKKEEPING]
        if missing:
            raise DataError(
                f"{self.path}: expected columns {missing} as meta/info.json says, got {sorted(self.columns)}. "
                f"Fetch the dataset again."
            )
        first = int(np.searchsorted(self.begins, start, side="right")) - 1
        last = int(np.searchsorted(self.begins, stop, side="left"))
        groups = list(range(first, min(last, len(self.begins) - 1)))
        table = read_parquet(self.path, self.file, [column for column in columns if column in self.columns], groups)
        return table.slice(start - int(self.begins[first]), stop - start)


def _enriched(features: Features, own: Features) -> Features:
    """`features` with the units, objects, control and render modes of `own`, where the two speak of the same."""
    state = own.state if features.state and own.state and own.state.names == features.state.names else features.state
    same_action = own.action.names == features.action.names
    return replace(
        features,
        state=state,
        action=own.action if same_action else features.action,
        control_space=own.control_space if same_action else None,
        control_type=own.control_type if same_action else None,
        cameras={
            name: replace(camera, render=own.cameras[name].render if name in own.cameras else None)
            for name, camera in features.cameras.items()
        },
    )


def _is_vector(spec: Mapping[str, Any]) -> bool:
    return len(spec["shape"]) == 1 and spec["dtype"] not in ("string", "image", "video", "language")


def _flat_names(names: Any) -> list[str]:
    """Names as datasets have them: a list, lists in a mapping (`{"motors": […]}`), or a mapping name -> index."""
    if isinstance(names, Mapping):
        nested = [value for value in names.values() if isinstance(value, list)]
        return [str(name) for value in nested for name in value] if nested else [str(name) for name in names]
    return [str(name) for name in names] if isinstance(names, list) else []
