"""Writes LeRobotDataset v3.0, one durable episode at a time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import filelock
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from menura.data.encoding import encode_video, encoder
from menura.data.episode import Episode, Float32, Frames, UInt8
from menura.data.lerobot_stats import ChannelHistogram, sampled_frames, vector_entry
from menura.data.lerobot_tables import (
    BOOKKEEPING,
    bookkeeping_columns,
    camera_key,
    data_schema,
    episodes_table,
    feature_specs,
    info_json,
    picture_column,
    tasks_table,
    vector_column,
)
from menura.data.pictures import encode_png
from menura.data.readers.lerobot_meta import ACTION, INFO, OWN, STATE, STATS, TASKS, VIDEO_PATH
from menura.data.recording import Recording, new_recording, remove_leftovers, resume_recording
from menura.data.rolling import chunk_and_file
from menura.data.statistics import StatisticsBuilder
from menura.errors import DataError, FeatureMismatch
from menura.features import Features
from menura.files import read_json, replacing, write_json

# Times are float32 in the format; a tenth of a frame is far above its rounding and far below a jitter worth keeping.
_TIME_TOLERANCE = 0.1


class LeRobotWriter:
    """Writes a LeRobotDataset v3.0 that Menura and LeRobot read.

    When `add_episode` returns, the episode is on disk; killed at any moment, every episode added before is readable.
    Each file is written under a temporary name, flushed and renamed: first the episode's videos (one file an episode
    and camera), then its rows, then its row in the episodes table, which makes it part of the dataset, and the counts
    in `meta/info.json` last. `finalize` adds the dataset's statistics (`meta/stats.json`).

    Args:
        root: the directory; new or empty unless `resume`.
        features: what the observations and actions mean; kept whole in `meta/menura.json`.
        robot: `robot_type` of the dataset; the features' own when not given.
        video: cameras as mp4 files; else as PNG in the data files, lossless.
        codec: `libx264` (4:4:4; fast to write and to read) or `libsvtav1`.
        resume: go on with a dataset that this class wrote; what was left unfinished in it is removed.

    Raises:
        DataError: a directory that is not empty or that another writer holds, an unknown codec, a damaged dataset.
        FeatureMismatch: on resume, other features than the dataset's.
    """

    def __init__(
        self,
        root: str | Path,
        features: Features,
        *,
        robot: str | None = None,
        video: bool = True,
        codec: str = "libx264",
        resume: bool = False,
    ) -> None:
        if not features.fps > 0:
            raise FeatureMismatch(f"LeRobotWriter: features.fps: expected > 0, got {features.fps}.")
        encoder(codec)  # known?
        self.root = Path(root).expanduser().resolve()
        self.features = features
        self._codec = codec if video else None
        self._robot = robot or features.robot
        self._specs = feature_specs(features, self._codec)
        self._schema = data_schema(self._specs)
        self._lock = filelock.FileLock(self.root / ".menura.lock", timeout=0)
        self._recording = self._begin(resume)
        self._write_info()

    def __len__(self) -> int:
        """The number of episodes on disk."""
        return self._recording.episodes

    def __enter__(self) -> LeRobotWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.finalize()

    def add_episode(self, episode: Episode) -> None:
        """Adds an episode; it is on disk when this returns, and nothing of it is in the dataset when this raises.

        Raises:
            FeatureMismatch: its widths, cameras, sizes or rate are not the dataset's.
            DataError: a value that is not finite, or times that are not `frame / fps` (the format cannot keep others).
        """
        self._require_match(episode)
        recording = self._recording
        tasks = recording.tasks if episode.task in recording.tasks else [*recording.tasks, episode.task]
        columns: dict[str, Any] = bookkeeping_columns(
            len(episode), self.features.fps, recording.episodes, recording.frames, tasks.index(episode.task)
        )
        vectors = self._vectors(episode)
        builders = self._statistics({**vectors, **{key: columns[key][:, None] for key in BOOKKEEPING}})
        histograms = {camera_key(name): self._write_camera(name, episode, columns) for name in self.features.cameras}
        columns |= {key: vector_column(rows, self._schema.field(key).type) for key, rows in vectors.items()}
        table = pa.table([columns[name] for name in self._schema.names], schema=self._schema)
        data_file = recording.data.place(table.nbytes)
        recording.data.stage(table, data_file)
        if tasks is not recording.tasks:
            with replacing(self.root / TASKS) as path:
                pq.write_table(tasks_table(tasks), path)
            recording.tasks = tasks
        self._commit(episode, data_file, builders, histograms)
        self._write_info()

    def finalize(self) -> None:
        """Writes the dataset's statistics and lets go of the directory. Nothing more can be added."""
        if not self._lock.is_locked:
            return
        try:
            if len(self):
                entries = _entries(self._recording.builders, self._recording.histograms)
                write_json(self.root / STATS, {key: entries[key] for key in self._specs})
        finally:
            self._lock.release()

    # One episode

    def _require_match(self, episode: Episode) -> None:
        if not self._lock.is_locked:
            raise DataError(f"LeRobotWriter: {self.root} is finalized. Open it again by resume=True.")
        what = f"Episode {len(self)}"
        features = self.features
        pairs: list[tuple[str, object, object]] = [
            ("state width", features.state_dim, episode.state.shape[1]),
            ("action width", features.action_dim, episode.action.shape[1]),
            ("fps", features.fps, episode.fps),
            ("cameras", sorted(features.cameras), sorted(episode.images)),
        ]
        pairs += [
            (f"camera {name!r}", (camera.height, camera.width), tuple(episode.images[name].shape[1:3]))
            for name, camera in features.cameras.items()
            if name in episode.images
        ]
        for part, expected, got in pairs:
            if expected != got:
                raise FeatureMismatch(f"{what}: {part}: expected {expected} as the dataset has, got {got}.")
        regular = np.arange(len(episode)) / episode.fps
        if np.abs(np.asarray(episode.timestamps) - regular).max() * episode.fps > _TIME_TOLERANCE:
            raise DataError(
                f"{what}: timestamps: expected frame / fps, which is all that LeRobotDataset v3.0 can keep, "
                f"got other times. Resample the episode, or leave its timestamps out."
            )

    def _statistics(self, vectors: Mapping[str, Any]) -> dict[str, StatisticsBuilder]:
        builders = {}
        for key, rows in vectors.items():
            builders[key] = StatisticsBuilder(feature=f"{key} in episode {len(self)}", names=self._specs[key]["names"])
            builders[key].update(rows)
        return builders

    def _vectors(self, episode: Episode) -> dict[str, Float32]:
        return {STATE: episode.state, ACTION: episode.action} if STATE in self._specs else {ACTION: episode.action}

    def _write_camera(self, name: str, episode: Episode, columns: dict[str, Any]) -> ChannelHistogram:
        """Writes the episode's video of one camera, or adds a column of pictures; returns what values it had."""
        seen = ChannelHistogram()
        frames = _watched(episode.images[name], seen)
        if self._codec is None:
            columns[camera_key(name)] = picture_column([encode_png(frame) for frame in frames])
            return seen
        camera = self.features.cameras[name]
        chunk, file = chunk_and_file(len(self))
        final = self.root / VIDEO_PATH.format(video_key=camera_key(name), chunk_index=chunk, file_index=file)
        with replacing(final) as path:
            encode_video(
                path, frames, fps=self.features.fps, height=camera.height, width=camera.width, codec=self._codec
            )
        return seen

    def _commit(
        self,
        episode: Episode,
        data_file: int,
        builders: dict[str, StatisticsBuilder],
        histograms: dict[str, ChannelHistogram],
    ) -> None:
        """Makes the episode part of the dataset, by its row in the episodes table."""
        recording = self._recording
        number = recording.table.place(0)
        totals = {key: recording.histograms[key].merged(seen) for key, seen in histograms.items()}
        fact = {"success": episode.success, "seed": episode.seed, "extra": dict(episode.extra)}
        facts = [*(recording.facts if number == recording.table.number else []), fact]
        own = {"episodes": facts, "histograms": {key: seen.to_dict() for key, seen in totals.items()}}
        row = self._episode_row(episode, data_file, number) | {
            f"stats/{key}/{field}": value
            for key, entry in _entries(builders, histograms).items()
            for field, value in entry.items()
        }
        recording.table.stage(episodes_table([row], self._specs, own), number)

        recording.data.accept()
        recording.table.accept()
        recording.facts, recording.histograms = facts, totals
        for key, builder in builders.items():
            recording.builders[key].merge(builder)
        recording.episodes += 1
        recording.frames += len(episode)

    def _episode_row(self, episode: Episode, data_file: int, table_file: int) -> dict[str, Any]:
        first = self._recording.frames
        row: dict[str, Any] = {
            "episode_index": len(self),
            "tasks": [episode.task],
            "length": len(episode),
            "dataset_from_index": first,
            "dataset_to_index": first + len(episode),
        }
        files = {"data": data_file, "meta/episodes": table_file}
        if self._codec is not None:
            for name in self.features.cameras:
                video = f"videos/{camera_key(name)}"
                files[video] = len(self)
                row |= {f"{video}/from_timestamp": 0.0, f"{video}/to_timestamp": len(episode) / self.features.fps}
        for kind, number in files.items():
            row[f"{kind}/chunk_index"], row[f"{kind}/file_index"] = chunk_and_file(number)
        return row

    def _write_info(self) -> None:
        recording = self._recording
        counts = {"episodes": recording.episodes, "frames": recording.frames, "tasks": len(recording.tasks)}
        write_json(self.root / INFO, info_json(self._specs, self.features.fps, self._robot, counts))

    # Opening

    def _begin(self, resume: bool) -> Recording:
        existing = any(path.is_file() and not path.name.startswith(".") for path in self.root.rglob("*"))
        if existing and not resume:
            raise DataError(
                f"LeRobotWriter: expected a new or empty directory, got {self.root} with files in it. "
                f"Choose another one, or go on with it by resume=True."
            )
        if existing and not (self.root / OWN).exists():
            raise DataError(
                f"LeRobotWriter: resume: expected a dataset of LeRobotWriter, got {self.root} without {OWN}. "
                f"Choose a new directory."
            )
        (self.root / "meta").mkdir(parents=True, exist_ok=True)
        try:
            self._lock.acquire()
        except filelock.Timeout as error:
            raise DataError(f"LeRobotWriter: {self.root} is being written by another process. Wait for it.") from error
        try:
            remove_leftovers(self.root)
            if not existing:
                write_json(self.root / OWN, self._own())
                return new_recording(self.root, self._specs)
            self._require_same()
            return resume_recording(self.root, self._specs)
        except BaseException:
            self._lock.release()
            raise

    def _own(self) -> dict[str, Any]:
        return {"format": 1, "features": self.features.to_dict(), "robot": self._robot, "codec": self._codec}

    def _require_same(self) -> None:
        there, here = read_json(self.root / OWN, DataError), self._own()
        pairs = [(key, there.get(key), here[key]) for key in ("format", "robot", "codec")]
        features = there.get("features", {})
        pairs += [(f"features.{key}", features.get(key), value) for key, value in here["features"].items()]
        for what, old, new in pairs:
            if old != new:
                raise FeatureMismatch(
                    f"LeRobotWriter: resume: {what}: expected {old} as {self.root} has, got {new}. "
                    f"Choose a new directory."
                )


def _watched(frames: Frames, histogram: ChannelHistogram) -> Iterator[UInt8]:
    """The frames, one after the other; a sample of them is counted on the way."""
    wanted = sampled_frames(len(frames))
    indexed = (frames[number] for number in range(len(frames)))
    one_by_one: Iterable[UInt8] = frames if isinstance(frames, Iterable) else indexed
    for number, frame in enumerate(one_by_one):
        if number in wanted:
            histogram.add(frame)
        yield frame


def _entries(
    builders: Mapping[str, StatisticsBuilder], histograms: Mapping[str, ChannelHistogram]
) -> dict[str, dict[str, Any]]:
    """Statistics of every feature, as LeRobot keeps them."""
    entries: dict[str, dict[str, Any]] = {key: vector_entry(builder) for key, builder in builders.items()}
    return entries | {key: seen.entry() for key, seen in histograms.items()}
