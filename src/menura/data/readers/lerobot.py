"""LeRobotDataset v3.0, read as it lies on disk.

Everything is found through the episodes table, so any rule of dividing data and videos into files can be read. Time is
integers: an episode begins in a video at frame `round(from_timestamp * fps)`, and the file is asked whether it agrees.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from menura.data.episode import Episode, Float32, Frames
from menura.data.frames import ImageFrames
from menura.data.mirror import Mirror
from menura.data.readers.base import Reader
from menura.data.readers.common import chosen_episodes
from menura.data.readers.keys import Keys
from menura.data.readers.lerobot_cameras import Camera, video_frames
from menura.data.readers.lerobot_features import enriched, flat_names, width_of
from menura.data.readers.lerobot_meta import (
    ACTION,
    EPISODES,
    INFO,
    STATE,
    EpisodeTable,
    matrix,
    read_episodes,
    read_info,
    read_tasks,
)
from menura.data.readers.lerobot_rows import BOOKKEEPING, DataFile
from menura.errors import DataError, did_you_mean
from menura.features import CameraFeature, Features, VectorFeature

_NO_NUMBERS = frozenset({"string", "image", "video", "language"})
_OPEN_FILES = 4  # their footers may take tens of megabytes each


class LeRobotReader(Reader):
    """A LeRobotDataset v3.0.

    An episode's task is that of its first frame. The instruction may change in the course of an episode there
    (`task_index` is a column of the frames); an episode with several has them all in `metadata`, as `tasks`.

    Args:
        path: the directory that holds `meta/`, `data/` and perhaps `videos/`.
        keys: what is read: the state is `observation.state` and the action `action` when not said, cameras are all RGB
            ones; a camera's key may be its name (`top`) or whole (`observation.images.top`). Any feature of numbers may
            be (part of) the state or the action: scalars, whole numbers, booleans; arrays of more dimensions are
            flattened. The task may be a feature of texts.
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
        self._info = read_info(self.root, self.versions)
        self._state_keys = self._vector_keys("state", STATE, keys.state)
        self._action_keys = self._vector_keys("action", ACTION, keys.action)
        self._cameras = self._select_cameras(keys.images)
        self._task_key = self._text_key(keys.task)
        self._table = self._read_episodes([camera.key for camera in self._cameras.values() if camera.video])
        if self._info.total_episodes > len(self._table):
            raise DataError(
                f"{self.root}: meta/info.json counts {self._info.total_episodes} episodes, "
                f"{self.episodes_file} holds {len(self._table)}. The recording was cut off; fetch the dataset again."
            )
        self._tasks = self._read_tasks()
        self._selected = chosen_episodes(self.root, episodes, len(self._table))
        self._files: OrderedDict[Path, DataFile] = OrderedDict()
        self.features = self._features()

    # What differs between the versions of the format

    versions: ClassVar[Sequence[str]] = ("v3.0",)
    episodes_file: ClassVar[str] = EPISODES

    def _read_episodes(self, video_keys: list[str]) -> EpisodeTable:
        return read_episodes(self.root, video_keys)

    def _read_tasks(self) -> list[str]:
        """Texts by `task_index`; empty where the dataset has no language."""
        return read_tasks(self.root)

    # Reading

    def __len__(self) -> int:
        return len(self._selected)

    def lengths(self) -> NDArray[np.int64]:
        return self._table.length[self._selected]

    def episode(self, index: int) -> Episode:
        """Episode `index`; its frames are decoded when asked for."""
        self.require_episode(index)
        row = int(self._selected[index])
        columns = [*self._state_keys, *self._action_keys, *([self._task_key] if self._task_key else [])]
        table = self._rows(row, list(dict.fromkeys([*columns, "episode_index", "task_index", "timestamp"])))
        facts = self._table.own[row]
        return Episode(
            state=self._vector(table, self._state_keys, row),
            action=self._vector(table, self._action_keys, row),
            images=self.images(index),
            task=self._task(row, table),
            fps=self._info.fps,
            timestamps=table.column("timestamp").to_numpy() if "timestamp" in table.column_names else None,
            success=facts.get("success"),
            seed=facts.get("seed"),
            extra=facts.get("extra", {}),
        )

    def tasks(self) -> list[str]:
        """From the episodes table, which does not say with which of several tasks an episode begins."""
        known = [self._table.tasks_of(row) for row in self._selected.tolist()]
        if self._task_key is not None or not any(known):
            return super().tasks() if self.features.language else [""] * len(self)
        return [tasks[0] if len(tasks) == 1 else self.episode(index).task for index, tasks in enumerate(known)]

    def images(self, index: int) -> dict[str, Frames]:
        row = int(self._selected[index])
        return {camera: self._frames(selected, row) for camera, selected in self._cameras.items()}

    def metadata(self, index: int) -> dict[str, Any]:
        """What Menura's writer noted of the episode, and its `tasks` where there are several."""
        row = int(self._selected[index])
        tasks = self._table.tasks_of(row)
        return {**self._table.own[row], **({"tasks": tasks} if len(tasks) > 1 else {})}

    def files(self) -> list[str]:
        """The data files and videos of these episodes and cameras, as paths below the root, sorted."""
        rows, table = self._selected.tolist(), self._table
        files = {self._info.data_file(table.chunk[row], table.file[row]) for row in rows}
        for key, span in table.videos.items():
            videos = (self._info.video_file(key, span.chunk[row], span.file[row]) for row in rows)
            files.update(video for video in videos if video is not None)
        return sorted(files)

    @property
    def vector_keys(self) -> dict[str, list[str]]:
        """`state` and `action` -> the keys of the dataset's features that they are made of, in order."""
        return {"state": list(self._state_keys), "action": list(self._action_keys)}

    @property
    def episode_numbers(self) -> NDArray[np.int64]:
        """(E,) the number that each episode has in the files."""
        return self._selected

    def file_patterns(self) -> list[str]:
        """`files()`, or where all episodes are chosen the few patterns that match them all: looked for much faster."""
        files = self.files()
        if len(self) < len(self._table):
            return files
        return sorted({re.sub(r"(chunk-|file-|episode_)\d+", r"\1*", file) for file in files})

    def fingerprint(self) -> str:
        """A digest of the selection, and of the names, sizes and times of the files of `meta/` and of `files()`."""
        digest = hashlib.sha256()
        cameras = {name: camera.key for name, camera in self._cameras.items()}
        selection = [self._selected.tolist(), self._state_keys, self._action_keys, cameras, self._task_key]
        digest.update(json.dumps(selection).encode())
        digest.update((self.root / INFO).read_bytes())
        tables = (path.relative_to(self.root).as_posix() for path in (self.root / "meta").rglob("[!.]*.*"))
        for file in [*sorted(tables), *self.files()]:
            digest.update(f"{file}\0{self._version(file)}\n".encode())
        return digest.hexdigest()

    def shards(self) -> NDArray[np.int64]:
        table = self._table
        rows = np.stack([table.chunk, table.file, *(part for s in table.videos.values() for part in (s.chunk, s.file))])
        return np.unique(rows[:, self._selected], axis=1, return_inverse=True)[1].reshape(-1)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_files": OrderedDict()}  # open files stay in their process

    # Files

    #: Where files lie that are not below the root, but elsewhere, and are fetched when they are needed.
    mirror: Mirror | None = None

    def _place(self, file: str) -> Path:
        """Where a data file is."""
        return self.root / file if self.mirror is None else self.mirror.local(file)

    def _version(self, file: str) -> str:
        """What changes when a file does; empty where there is none, which is told when it is read."""
        if self.mirror is not None:
            return self.mirror.version(file)
        try:
            stat = (self.root / file).stat()
        except FileNotFoundError:
            return ""
        return f"{stat.st_size}\0{stat.st_mtime_ns}"

    # What is in the dataset

    def _vector_keys(self, what: str, default: str, given: Sequence[str] | None) -> list[str]:
        numbers = {
            key: len(spec["shape"])
            for key, spec in self._info.features.items()
            if spec["dtype"] not in _NO_NUMBERS and key not in BOOKKEEPING
        }
        vectors = [key for key, dimensions in numbers.items() if dimensions <= 1]
        keys = [default] if given is None else list(given)
        for key in keys:
            if key in numbers:
                continue
            others = [vector for vector in vectors if vector.startswith("observation.")]
            if given is None and what == "state" and not others:
                return []  # nothing but pictures
            raise DataError(
                f"{self.root / INFO}: expected a vector feature {key!r} as {what}, got {vectors}"
                f"{did_you_mean(key, vectors) or '.'} Say which: keys.{what}."
            )
        return keys

    def _select_cameras(self, given: Mapping[str, str] | None) -> dict[str, Camera]:
        cameras = {}
        for key, spec in self._info.features.items():
            if spec["dtype"] in ("video", "image"):
                camera = Camera.of(key, spec)
                if camera.name in cameras:
                    camera = replace(camera, name=key)
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

    def _text_key(self, given: str | None) -> str | None:
        texts = [key for key, spec in self._info.features.items() if spec["dtype"] == "string"]
        if given is None or given in texts:
            return given
        raise DataError(
            f"{self.root / INFO}: keys.task: expected a feature of texts, one of {texts}, got {given!r}"
            f"{did_you_mean(given, texts) or '.'} Leave keys.task out for the dataset's own tasks."
        )

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
            language=self._task_key is not None or any(self._tasks) or self._table.has_tasks,
            robot=self._info.robot_type,
        )
        return features if own is None else enriched(features, own)

    def _vector_feature(self, what: str, keys: list[str]) -> VectorFeature:
        names: list[str] = []
        numbered: list[str] = []
        for key in keys:
            spec = self._info.features[key]
            plain = [f"{what if len(keys) == 1 else key}_{i}" for i in range(width_of(spec))]
            found = flat_names(spec.get("names"))
            names += found if len(found) == len(plain) else plain
            numbered += plain
        return VectorFeature(tuple(names if len(set(names)) == len(names) else numbered))

    # One episode

    def _rows(self, row: int, columns: list[str]) -> pa.Table:
        """The episode's rows of these columns of its data file."""
        file = self._data_file(row)
        length, offset = int(self._table.length[row]), int(self._table.offset[row])
        table = file.rows(offset, offset + length, columns)
        episodes = (
            table.column("episode_index").to_numpy() if "episode_index" in table.column_names else np.array([row])
        )
        if len(table) != length or (episodes != row).any():
            raise DataError(
                f"{file.path}: expected rows {offset} … {offset + length - 1} to be the {length} frames of "
                f"episode {row}, got {int((episodes == row).sum())} of them. Fetch the dataset again."
            )
        return table

    def _data_file(self, row: int) -> DataFile:
        path = self._place(self._info.data_file(int(self._table.chunk[row]), int(self._table.file[row])))
        file = self._files.pop(path, None)
        if file is None:
            file = DataFile(path)
        self._files[path] = file
        while len(self._files) > _OPEN_FILES:
            self._files.popitem(last=False)
        return file

    def _vector(self, table: pa.Table, keys: list[str], row: int) -> Float32:
        """(T, D) the columns of these keys, joined."""
        parts = [
            matrix(table.column(key), width_of(self._info.features[key]), f"{self.root}: episode {row}: {key}")
            for key in keys
        ]
        return np.concatenate(parts, axis=1) if parts else np.zeros((len(table), 0), np.float32)

    def _task(self, row: int, table: pa.Table) -> str:
        """The task of the episode's first frame."""
        if self._task_key is not None:
            return table.column(self._task_key)[0].as_py() or ""
        task_index = table.column("task_index")[0].as_py() if "task_index" in table.column_names else len(self._tasks)
        if task_index < len(self._tasks):
            return self._tasks[task_index] or ""
        return next(iter(self._table.tasks_of(row)), "")

    def _frames(self, camera: Camera, row: int) -> Frames:
        length = int(self._table.length[row])
        if camera.video:
            span = self._table.videos[camera.key]
            return video_frames(self.root, self._info, span, camera, row, length, self.mirror)
        what = f"{self.root}: episode {row}, camera {camera.name!r}"
        return ImageFrames(partial(self._pictures, camera.key, row), length, camera.height, camera.width, what)

    def _pictures(self, key: str, row: int) -> list[bytes]:
        """The encoded frames of an episode; empty ones where they are missing."""
        column = self._rows(row, [key, "episode_index"]).column(key).combine_chunks()
        return [encoded or b"" for encoded in column.field("bytes").to_pylist()]
