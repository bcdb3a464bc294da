"""Writes Menura's own HDF5, one durable episode at a time. `docs/formats.md` specifies the layout."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np

from menura.data.background import BackgroundEncoder
from menura.data.episode import Episode, Frames, UInt8
from menura.data.episode_writer import EpisodeWriter
from menura.data.hdf5_sinks import CODINGS, EpisodeFile
from menura.data.readers.hdf5 import OpenFiles, json_attribute, natural_key
from menura.data.readers.menura_hdf5 import (
    ACTION,
    FORMAT,
    INDEX,
    MANIFEST,
    STATE,
    TIMESTAMPS,
    VERSION,
    read_index,
)
from menura.data.recorder import Recorded, Recorder
from menura.errors import DataError, FeatureMismatch, did_you_mean
from menura.features import Features
from menura.files import fsync_directory, write_text

Coding = Literal["jpeg", "png", "raw"]


class Hdf5Writer(EpisodeWriter):
    """Writes Menura's HDF5: one file an episode, and times as they were measured.

    An episode is recorded frame by frame by `begin`, or added whole by `add_episode`. When `Recorder.save` or
    `add_episode` returns, it is on disk; killed at any moment, every episode finished before is readable. An episode's
    file is written under a temporary name, flushed and renamed, which makes it part of the dataset; its line
    in the index follows.

    Args:
        root: the directory; new or empty unless `resume`.
        features: what the observations and actions mean; kept whole in every episode's file.
        robot: what was driven; the features' own when not given.
        images: `jpeg` (quality about 95, colours at full resolution), `png` (lossless) or `raw`.
        resume: go on with a dataset that this class wrote; what was left unfinished in it is removed.

    Raises:
        DataError: a directory that is not empty or that another writer holds, an unknown coding, a damaged dataset.
        FeatureMismatch: on resume, other features than the dataset's.
    """

    def __init__(
        self,
        root: str | Path,
        features: Features,
        *,
        robot: str | None = None,
        images: Coding = "jpeg",
        resume: bool = False,
    ) -> None:
        super().__init__(root, features)
        if images not in CODINGS:
            near = did_you_mean(images, CODINGS) or "."
            raise DataError(f"Hdf5Writer: images: expected one of {list(CODINGS)}, got {images!r}{near}")
        self._described = features.to_dict() | {"robot": robot or features.robot}
        self._images = images
        self._episodes = 0
        self._open(
            MANIFEST, {"format": FORMAT, "version": VERSION, "images": images, "features": self._described}, resume
        )

    def __len__(self) -> int:
        return self._episodes

    def begin(self, *, task: str = "", seed: int | None = None) -> Recorder:
        self._require_open()
        self._require_idle()
        what = f"Episode {len(self)}"
        under_way = EpisodeFile(self.root / _file_name(len(self)), self._images)
        cameras: dict[str, BackgroundEncoder] = {}

        def keep(recorded: Recorded) -> None:
            self._keep(recorded, under_way)

        def ended() -> None:
            self._ended()
            under_way.abandon()

        self._recorder = Recorder(
            self.features, what, task, seed, cameras=cameras, keep=keep, ended=ended, keeps_times=True
        )
        try:
            for name, camera in self.features.cameras.items():
                sink = under_way.camera(name, camera.height, camera.width)
                cameras[name] = BackgroundEncoder(sink, camera.height, camera.width, f"{what}, camera {name!r}")
        except BaseException:
            self._recorder.discard()
            raise
        return self._recorder

    def add_episode(self, episode: Episode) -> None:
        """Adds an episode; it is on disk when this returns, and nothing of it is in the dataset when this raises.

        Raises:
            FeatureMismatch: its widths, cameras, sizes or rate are not the dataset's.
            DataError: a value that is not finite, or facts that JSON cannot hold.
        """
        self._require_match(episode)
        what = f"Episode {len(self)}"
        with self.begin(task=episode.task, seed=episode.seed) as recorder:
            images = {name: _one_by_one(each, f"{what}, camera {name!r}") for name, each in episode.images.items()}
            for state, action, time in zip(episode.state, episode.action, np.asarray(episode.timestamps), strict=True):
                seen = {name: next(frames) for name, frames in images.items()}
                recorder.append(state=state, action=action, images=seen, timestamp=float(time))
            for frames in images.values():
                next(frames, None)  # raises where there are more
            recorder.save(success=episode.success, extra=episode.extra)

    # One episode

    def _require_match(self, episode: Episode) -> None:
        what, features = f"Episode {len(self)}", self.features
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
        for part, values in ((STATE, episode.state), (ACTION, episode.action), (TIMESTAMPS, episode.timestamps)):
            bad = np.flatnonzero(~np.isfinite(np.asarray(values)).reshape(len(episode), -1).all(axis=1))
            if len(bad):
                raise DataError(f"{what}: {part}: expected finite numbers, got NaN or infinity at step {bad[0]}.")

    def _keep(self, recorded: Recorded, file: EpisodeFile) -> None:
        """Makes a recorded episode part of the dataset."""
        length = len(recorded.action)
        times = np.arange(length) / self.features.fps if recorded.timestamps is None else recorded.timestamps
        facts = {name: getattr(recorded, name) for name in ("task", "success", "seed", "extra")}
        tables = {TIMESTAMPS: times, ACTION: recorded.action}
        if self.features.state is not None:
            tables[STATE] = recorded.state
        attributes = {"format": FORMAT, "version": VERSION, "features": json.dumps(self._described)}
        file.finish(tables, attributes | {"episode": json.dumps(facts)})
        _append_line(self.root / INDEX, _index_row(file.path, length, facts))
        self._episodes += 1

    # The directory

    def _take_up(self) -> None:
        """Counts the episodes on disk; completes the index of what a kill left out of it."""
        files = sorted(self.root.glob("episode_*.hdf5"), key=lambda file: natural_key(file.name))
        for number, file in enumerate(files):
            if file.name != _file_name(number):
                raise DataError(
                    f"{self.root}: expected {_file_name(number)}, got {file.name}. Fetch the dataset again."
                )
        rows = read_index(self.root)
        complete = [rows.get(file.name) or _row_of(file) for file in files]
        write_text(self.root / INDEX, "".join(f"{json.dumps(row)}\n" for row in complete))
        self._episodes = len(files)

    def _complete(self) -> None:
        """There is nothing to write: the index is complete after each episode."""


def _file_name(number: int) -> str:
    return f"episode_{number:06d}.hdf5"


def _one_by_one(frames: Frames, what: str) -> Iterator[UInt8]:
    """The frames in order, as many and as large as they say."""
    indexed = (frames[number] for number in range(len(frames)))
    number = -1
    for number, frame in enumerate(frames if isinstance(frames, Iterable) else indexed):
        if frame.shape != frames.shape[1:] or frame.dtype != np.uint8 or number == len(frames):
            raise DataError(
                f"{what}, frame {number}: expected one of {len(frames)} frames, uint8 of {frames.shape[1:]}, "
                f"got {frame.dtype} of {frame.shape}."
            )
        yield frame
    if number + 1 < len(frames):
        raise DataError(f"{what}: expected {len(frames)} frames as action has, got {number + 1}.")


def _index_row(file: Path, length: int, facts: dict[str, Any]) -> dict[str, Any]:
    return {"file": file.name, "bytes": file.stat().st_size, "length": length, **facts}


def _row_of(file: Path) -> dict[str, Any]:
    """The index row of an episode that is on disk."""
    with OpenFiles().reading(file) as content:
        return _index_row(file, len(content[ACTION]), json_attribute(content, "episode"))


def _append_line(path: Path, row: dict[str, Any]) -> None:
    new = not path.exists()
    with open(path, "a", encoding="utf-8") as file:
        file.write(f"{json.dumps(row)}\n")
        file.flush()
        os.fsync(file.fileno())
    if new:
        fsync_directory(path.parent)
