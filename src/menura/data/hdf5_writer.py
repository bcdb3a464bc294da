"""Writes Menura's own HDF5, one durable episode at a time. `docs/formats.md` specifies the layout."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

import filelock
import h5py
import numpy as np

from menura.data.episode import Episode, Frames, UInt8
from menura.data.pictures import encode_jpeg, encode_png
from menura.data.readers.hdf5 import OpenFiles, json_attribute, natural_key
from menura.data.readers.menura_hdf5 import (
    ACTION,
    FORMAT,
    IMAGES,
    INDEX,
    MANIFEST,
    STATE,
    TIMESTAMPS,
    VERSION,
    read_index,
)
from menura.errors import DataError, FeatureMismatch, did_you_mean
from menura.features import Features
from menura.files import TEMPORARY, fsync_directory, read_json, replacing, write_json, write_text

Coding = Literal["jpeg", "png", "raw"]

_ENCODERS: dict[str, Callable[[UInt8], bytes] | None] = {"jpeg": encode_jpeg, "png": encode_png, "raw": None}


class Hdf5Writer:
    """Writes Menura's HDF5: one file an episode, and times as they were measured.

    When `add_episode` returns, the episode is on disk; killed at any moment, every episode added before is readable. An
    episode's file is written under a temporary name, flushed and renamed, which makes it part of the dataset; its line
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
        if not features.fps > 0:
            raise FeatureMismatch(f"Hdf5Writer: features.fps: expected > 0, got {features.fps}.")
        if images not in _ENCODERS:
            near = did_you_mean(images, _ENCODERS) or "."
            raise DataError(f"Hdf5Writer: images: expected one of {list(_ENCODERS)}, got {images!r}{near}")
        self.root = Path(root).expanduser().resolve()
        self.features = features
        self._described = features.to_dict() | {"robot": robot or features.robot}
        self._images = images
        self._lock = filelock.FileLock(self.root / ".menura.lock", timeout=0)
        self._episodes = self._begin(resume)

    def __len__(self) -> int:
        """The number of episodes on disk."""
        return self._episodes

    def __enter__(self) -> Hdf5Writer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.finalize()

    def add_episode(self, episode: Episode) -> None:
        """Adds an episode; it is on disk when this returns, and nothing of it is in the dataset when this raises.

        Raises:
            FeatureMismatch: its widths, cameras, sizes or rate are not the dataset's.
            DataError: a value that is not finite, or facts that JSON cannot hold.
        """
        self._require_match(episode)
        file = self.root / _file_name(len(self))
        with replacing(file) as path:
            self._write(path, episode)
        _append_line(self.root / INDEX, _index_row(file, len(episode), _facts(episode)))
        self._episodes += 1

    def finalize(self) -> None:
        """Lets go of the directory. Nothing more can be added."""
        self._lock.release()

    # One episode

    def _require_match(self, episode: Episode) -> None:
        if not self._lock.is_locked:
            raise DataError(f"Hdf5Writer: {self.root} is finalized. Open it again by resume=True.")
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
        try:
            json.dumps(_facts(episode), allow_nan=False)
        except (TypeError, ValueError) as error:
            raise DataError(f"{what}: extra: expected what JSON can hold, got {error}.") from error

    def _write(self, path: Path, episode: Episode) -> None:
        # Version 1.10 of the file format is the first whose attributes may exceed 64 kB.
        with h5py.File(path, "w", libver="v110") as file:
            file.attrs["format"] = FORMAT
            file.attrs["version"] = VERSION
            file.attrs["features"] = json.dumps(self._described)
            file.attrs["episode"] = json.dumps(_facts(episode))
            file.create_dataset(TIMESTAMPS, data=np.asarray(episode.timestamps, np.float64))
            file.create_dataset(ACTION, data=episode.action)
            if self.features.state is not None:
                file.create_dataset(STATE, data=episode.state)
            for camera in self.features.cameras:
                what = f"Episode {len(self)}, camera {camera!r}"
                self._write_frames(file, f"{IMAGES}/{camera}", episode.images[camera], what)

    def _write_frames(self, file: h5py.File, key: str, frames: Frames, what: str) -> None:
        encode = _ENCODERS[self._images]
        if encode is None:
            dataset = file.create_dataset(key, frames.shape, np.uint8, chunks=(1, *frames.shape[1:]))
        else:
            dataset = file.create_dataset(key, (len(frames),), h5py.vlen_dtype(np.uint8))
        dataset.attrs["coding"] = self._images
        indexed = (frames[number] for number in range(len(frames)))
        one_by_one: Iterable[UInt8] = frames if isinstance(frames, Iterable) else indexed
        number = -1
        for number, frame in enumerate(one_by_one):
            if frame.shape != frames.shape[1:] or frame.dtype != np.uint8 or number == len(frames):
                raise DataError(
                    f"{what}, frame {number}: expected one of {len(frames)} frames, uint8 of {frames.shape[1:]}, "
                    f"got {frame.dtype} of {frame.shape}."
                )
            dataset[number] = frame if encode is None else np.frombuffer(encode(frame), np.uint8)
        if number + 1 < len(frames):
            raise DataError(f"{what}: expected {len(frames)} frames as action has, got {number + 1}.")

    # Opening

    def _begin(self, resume: bool) -> int:
        existing = any(path.is_file() and not path.name.startswith(".") for path in self.root.rglob("*"))
        if existing and not resume:
            raise DataError(
                f"Hdf5Writer: expected a new or empty directory, got {self.root} with files in it. "
                f"Choose another one, or go on with it by resume=True."
            )
        if existing and not (self.root / MANIFEST).exists():
            raise DataError(
                f"Hdf5Writer: resume: expected a dataset of Hdf5Writer, got {self.root} without {MANIFEST}. "
                f"Choose a new directory."
            )
        self.root.mkdir(parents=True, exist_ok=True)
        try:
            self._lock.acquire()
        except filelock.Timeout as error:
            raise DataError(f"Hdf5Writer: {self.root} is being written by another process. Wait for it.") from error
        try:
            for leftover in self.root.glob(f"{TEMPORARY}*"):
                leftover.unlink()
            manifest = {"format": FORMAT, "version": VERSION, "images": self._images, "features": self._described}
            if not existing:
                write_json(self.root / MANIFEST, manifest)
                return 0
            self._require_same(manifest)
            return self._resume()
        except BaseException:
            self._lock.release()
            raise

    def _require_same(self, manifest: dict[str, Any]) -> None:
        there = read_json(self.root / MANIFEST, DataError)
        pairs = [(key, there.get(key), manifest[key]) for key in ("format", "version", "images")]
        features = there.get("features", {})
        pairs += [(f"features.{key}", features.get(key), value) for key, value in manifest["features"].items()]
        for what, old, new in pairs:
            if old != new:
                raise FeatureMismatch(
                    f"Hdf5Writer: resume: {what}: expected {old} as {self.root} has, got {new}. Choose a new directory."
                )

    def _resume(self) -> int:
        """The number of episodes on disk; completes the index of what a kill left out of it."""
        files = sorted(self.root.glob("episode_*.hdf5"), key=lambda file: natural_key(file.name))
        for number, file in enumerate(files):
            if file.name != _file_name(number):
                raise DataError(
                    f"{self.root}: expected {_file_name(number)}, got {file.name}. Fetch the dataset again."
                )
        rows = read_index(self.root)
        complete = [rows.get(file.name) or _row_of(file) for file in files]
        write_text(self.root / INDEX, "".join(f"{json.dumps(row)}\n" for row in complete))
        return len(files)


def _file_name(number: int) -> str:
    return f"episode_{number:06d}.hdf5"


def _facts(episode: Episode) -> dict[str, Any]:
    return {"task": episode.task, "success": episode.success, "seed": episode.seed, "extra": dict(episode.extra)}


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
