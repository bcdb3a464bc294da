"""Writes LeRobotDataset v3.0, one durable episode at a time."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from menura.data.background import BackgroundEncoder
from menura.data.copying import CopiedCamera, CopiedVideo, copyable
from menura.data.encoding import encoder
from menura.data.episode import Episode, Frames, UInt8
from menura.data.episode_writer import EpisodeWriter
from menura.data.frames import VideoFrames
from menura.data.lerobot_stats import ChannelHistogram, vector_entry
from menura.data.lerobot_tables import (
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
from menura.data.readers.lerobot_meta import ACTION, INFO, OWN, STATE, STATS, TASKS, VIDEO_PATH
from menura.data.recorder import TIME_TOLERANCE, Recorded, Recorder
from menura.data.rolling import chunk_and_file
from menura.data.sinks import FrameSink, PngFrames, VideoFile
from menura.data.statistics import StatisticsBuilder
from menura.data.threads import available_cores, in_threads
from menura.data.written import nothing_written, take_up
from menura.errors import DataError, FeatureMismatch
from menura.features import Features
from menura.files import replacing, write_json


class LeRobotWriter(EpisodeWriter):
    """Writes a LeRobotDataset v3.0 that Menura and LeRobot read.

    An episode is recorded frame by frame by `begin`, or added whole by `add_episode`. When `Recorder.save` or
    `add_episode` returns, it is on disk; killed at any moment, every episode finished before is readable. Each file is
    written under a temporary name, flushed and renamed: first the episode's videos (one file an episode and camera),
    then its rows, then its row in the episodes table, which makes it part of the dataset, and the counts in
    `meta/info.json` last; when only those cannot be written, the error is told, the episode is there, and the next one
    or the next opening writes them. `finalize` adds the dataset's statistics (`meta/stats.json`). `menura.data.compact`
    makes few large files of the many small ones.

    Args:
        root: the directory; new or empty unless `resume`.
        features: what the observations and actions mean; kept whole in `meta/menura.json`.
        robot: `robot_type` of the dataset; the features' own when not given.
        video: cameras as mp4 files; else as PNG in the data files, lossless, an episode of them in memory.
        codec: `libx264` (4:4:4; fast to write and to read), `libx264-ultrafast` (a third of the processor time, up to
            twice the size), `libx264-420` (for browsers and other players) or `libsvtav1` (as LeRobot writes).
        resume: go on with a dataset that this class wrote; what was left unfinished in it is removed.

    Attributes:
        encoded_again: videos given to `add_episode` that could not be copied.

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
        super().__init__(root, features)
        encoder(codec)  # known?
        self.encoded_again = 0
        self._codec = codec if video else None
        self._robot = robot or features.robot
        self._specs = feature_specs(features, self._codec)
        self._schema = data_schema(self._specs)
        self._written = nothing_written(self.root, self._specs)
        own = {"format": 1, "features": features.to_dict(), "robot": self._robot, "codec": self._codec}
        self._open(OWN, own, resume)
        self._write_info()

    def __len__(self) -> int:
        return self._written.episodes

    def begin(self, *, task: str = "", seed: int | None = None) -> Recorder:
        return self._begin(task, seed, {})

    def _begin(self, task: str, seed: int | None, copied: Mapping[str, CopiedCamera]) -> Recorder:
        """`begin` with some cameras there already, so that no frames of them are taken."""
        self._require_open()
        self._require_idle()
        cameras: dict[str, BackgroundEncoder] = {}
        encoded = {name: camera for name, camera in self.features.cameras.items() if name not in copied}
        self._recorder = Recorder(
            replace(self.features, cameras=encoded),
            f"Episode {len(self)}",
            task,
            seed,
            cameras=cameras,
            keep=lambda recorded: self._keep(replace(recorded, cameras={**recorded.cameras, **copied})),
            ended=self._ended,
        )
        try:
            for name in encoded:
                cameras[name] = self._camera(name)
        except BaseException:
            self._recorder.discard()
            raise
        return self._recorder

    def add_episode(self, episode: Episode) -> None:
        """Adds an episode; it is on disk when this returns, and nothing of it is in the dataset when this raises.

        The frames of a camera that are a stretch of a video of the same codec and pixel format are not encoded again,
        where they can be cut out (`menura.data.copying`); every pixel stays.

        Raises:
            FeatureMismatch: its widths, cameras, sizes or rate are not the dataset's.
            DataError: a value that is not finite, or times that are not `frame / fps` (the format cannot keep others).
        """
        self._require_open()
        self._require_match(episode)
        with self._copied(episode) as copied, self._begin(episode.task, episode.seed, copied) as recorder:
            images = {name: _one_by_one(frames) for name, frames in episode.images.items() if name not in copied}
            for state, action in zip(episode.state, episode.action, strict=True):
                seen = {name: next(frames) for name, frames in images.items()}
                recorder.append(state=state, action=action, images=seen)
            recorder.save(success=episode.success, extra=episode.extra)

    # One episode

    def _camera(self, name: str) -> BackgroundEncoder:
        height, width = self.features.cameras[name].height, self.features.cameras[name].width
        sink: FrameSink = PngFrames()
        if self._codec is not None:
            path = self._video_path(name)
            sink = VideoFile(path, fps=self.features.fps, height=height, width=width, codec=self._codec)
        return BackgroundEncoder(sink, height, width, f"Episode {len(self)}, camera {name!r}")

    def _video_path(self, name: str) -> Path:
        """Of the next episode."""
        chunk, file = chunk_and_file(len(self))
        return self.root / VIDEO_PATH.format(video_key=camera_key(name), chunk_index=chunk, file_index=file)

    @contextlib.contextmanager
    def _copied(self, episode: Episode) -> Iterator[dict[str, CopiedCamera]]:
        """The cameras of an episode that need not be encoded; what is not put in its place in the block is removed."""
        fps, cameras = self.features.fps, self.features.cameras
        copied: dict[str, CopiedCamera] = {}

        def copy(name: str) -> None:
            frames, camera = episode.images[name], cameras[name]
            if self._codec is None or frames.shape[1:] != (camera.height, camera.width, 3):
                return
            found = copyable(frames, fps=fps, codec=self._codec)
            if found is not None:
                copied[name] = CopiedCamera.of(found, self._video_path(name), fps)

        try:
            if episode.images.keys() == cameras.keys():
                in_threads(copy, list(cameras), available_cores())
            videos = [name for name, frames in episode.images.items() if isinstance(frames, VideoFrames)]
            self.encoded_again += len(set(videos) - set(copied))
            yield copied
        finally:
            for camera in list(copied.values()):
                camera.sink.abandon()

    def _require_match(self, episode: Episode) -> None:
        """What a frame alone cannot tell."""
        what = f"Episode {len(self)}"
        if episode.fps != self.features.fps:
            raise FeatureMismatch(
                f"{what}: fps: expected {self.features.fps} as the dataset has, got {episode.fps}. Resample it."
            )
        regular = np.arange(len(episode)) / episode.fps
        if np.abs(np.asarray(episode.timestamps) - regular).max() * episode.fps > TIME_TOLERANCE:
            raise DataError(
                f"{what}: timestamps: expected frame / fps, which is all that LeRobotDataset v3.0 can keep, "
                f"got other times. Resample the episode, or leave its timestamps out."
            )

    def _keep(self, recorded: Recorded) -> None:
        """Makes a recorded episode part of the dataset; leaves nothing of it when this raises."""
        written, length = self._written, len(recorded.action)
        _require_every_frame(recorded, f"Episode {len(self)}")
        tasks = written.tasks if recorded.task in written.tasks else [*written.tasks, recorded.task]
        bookkeeping = bookkeeping_columns(
            length, self.features.fps, written.episodes, written.frames, tasks.index(recorded.task)
        )
        vectors = {
            key: rows for key, rows in ((STATE, recorded.state), (ACTION, recorded.action)) if key in self._specs
        }
        builders = self._statistics({**vectors, **{key: rows[:, None] for key, rows in bookkeeping.items()}})
        histograms = {camera_key(name): camera.histogram for name, camera in recorded.cameras.items()}
        columns: dict[str, Any] = {
            **bookkeeping,
            **{key: vector_column(rows, self._schema.field(key).type) for key, rows in vectors.items()},
            **_picture_columns(recorded),
        }
        sinks = [camera.sink for camera in recorded.cameras.values()]
        videos = [sink for sink in sinks if isinstance(sink, (VideoFile, CopiedVideo))]
        with contextlib.ExitStack() as undo:
            for video in videos:
                undo.callback(video.path.unlink, missing_ok=True)
                video.put_in_place()
            table = pa.table([columns[name] for name in self._schema.names], schema=self._schema)
            data_file = written.data.place(table.nbytes)
            written.data.stage(table, data_file)
            if tasks is not written.tasks:
                with replacing(self.root / TASKS) as path:
                    pq.write_table(tasks_table(tasks), path)
                written.tasks = tasks
            self._commit(recorded, data_file, builders, histograms)
            undo.pop_all()
        self._write_info()

    def _statistics(self, vectors: Mapping[str, Any]) -> dict[str, StatisticsBuilder]:
        builders = {}
        for key, rows in vectors.items():
            builders[key] = StatisticsBuilder(feature=f"{key} in episode {len(self)}", names=self._specs[key]["names"])
            builders[key].update(rows)
        return builders

    def _commit(
        self,
        recorded: Recorded,
        data_file: int,
        builders: dict[str, StatisticsBuilder],
        histograms: dict[str, ChannelHistogram],
    ) -> None:
        """Makes the episode part of the dataset, by its row in the episodes table."""
        written = self._written
        number = written.table.place(0)
        totals = {key: written.histograms[key].merged(seen) for key, seen in histograms.items()}
        fact = {"success": recorded.success, "seed": recorded.seed, "extra": recorded.extra}
        facts = [*(written.facts if number == written.table.number else []), fact]
        own = {"episodes": facts, "histograms": {key: seen.to_dict() for key, seen in totals.items()}}
        row = self._episode_row(recorded, data_file, number) | {
            f"stats/{key}/{field}": value
            for key, entry in _entries(builders, histograms).items()
            for field, value in entry.items()
        }
        written.table.stage(episodes_table([row], self._specs, own), number)

        written.data.accept()
        written.table.accept()
        written.facts, written.histograms = facts, totals
        for key, builder in builders.items():
            written.builders[key].merge(builder)
        written.episodes += 1
        written.frames += len(recorded.action)

    def _episode_row(self, recorded: Recorded, data_file: int, table_file: int) -> dict[str, Any]:
        first, length = self._written.frames, len(recorded.action)
        row: dict[str, Any] = {
            "episode_index": len(self),
            "tasks": [recorded.task],
            "length": length,
            "dataset_from_index": first,
            "dataset_to_index": first + length,
        }
        files = {"data": data_file, "meta/episodes": table_file}
        if self._codec is not None:
            for name in self.features.cameras:
                video = f"videos/{camera_key(name)}"
                files[video] = len(self)
                row |= {f"{video}/from_timestamp": 0.0, f"{video}/to_timestamp": length / self.features.fps}
        for kind, number in files.items():
            row[f"{kind}/chunk_index"], row[f"{kind}/file_index"] = chunk_and_file(number)
        return row

    def _write_info(self) -> None:
        written = self._written
        counts = {"episodes": written.episodes, "frames": written.frames, "tasks": len(written.tasks)}
        write_json(self.root / INFO, info_json(self._specs, self.features.fps, self._robot, counts))

    # The directory

    def _take_up(self) -> None:
        self._written = take_up(self.root, self._specs)

    def _complete(self) -> None:
        """Writes the statistics of the dataset."""
        if len(self):
            entries = _entries(self._written.builders, self._written.histograms)
            write_json(self.root / STATS, {key: entries[key] for key in self._specs})


def _one_by_one(frames: Frames) -> Iterator[UInt8]:
    """The frames in order; those of a video are decoded one after the other."""
    return iter(frames) if isinstance(frames, Iterable) else (frames[number] for number in range(len(frames)))


def _require_every_frame(recorded: Recorded, what: str) -> None:
    for name, camera in recorded.cameras.items():
        if len(camera.sink) != len(recorded.action):
            raise DataError(
                f"{what}: camera {name!r}: expected {len(recorded.action)} frames as there are actions, "
                f"got {len(camera.sink)}. Record it again."
            )


def _picture_columns(recorded: Recorded) -> dict[str, Any]:
    return {
        camera_key(name): picture_column(camera.sink.encoded)
        for name, camera in recorded.cameras.items()
        if isinstance(camera.sink, PngFrames)
    }


def _entries(
    builders: Mapping[str, StatisticsBuilder], histograms: Mapping[str, ChannelHistogram]
) -> dict[str, dict[str, Any]]:
    """Statistics of every feature, as LeRobot keeps them."""
    entries: dict[str, dict[str, Any]] = {key: vector_entry(builder) for key, builder in builders.items()}
    return entries | {key: seen.entry() for key, seen in histograms.items()}
