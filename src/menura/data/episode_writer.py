"""What the writers of datasets share: a directory that one process holds, and one episode at a time in it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import filelock

from menura.data.episode import Episode
from menura.data.recorder import Recorder
from menura.errors import DataError, FeatureMismatch
from menura.features import Features
from menura.files import TEMPORARY, read_json, recover_directory, write_json

#: Held by the process that writes a dataset.
LOCK = ".menura.lock"

Self = TypeVar("Self", bound="EpisodeWriter")


class EpisodeWriter(ABC):
    """Writes a dataset. When `Recorder.save` or `add_episode` returns, the episode is on disk.

    Args:
        root: the directory.
        features: what the observations and actions mean.

    Raises:
        FeatureMismatch: features without a rate.
    """

    def __init__(self, root: str | Path, features: Features) -> None:
        if not features.fps > 0:
            raise FeatureMismatch(f"{self._name}: features.fps: expected > 0, got {features.fps}.")
        self.root = Path(root).expanduser().resolve()
        self.features = features
        self._recorder: Recorder | None = None
        self._lock = filelock.FileLock(self.root / LOCK, timeout=0)

    @abstractmethod
    def __len__(self) -> int:
        """The number of episodes on disk."""

    def __enter__(self: Self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        forgotten = self._recorder
        if forgotten is not None:
            forgotten.discard()
        self.finalize()
        if forgotten is not None and kind is None:
            raise DataError(f"{self._name}: episode {len(self)} was under way at the end. Save or discard it there.")

    @abstractmethod
    def begin(self, *, task: str = "", seed: int | None = None) -> Recorder:
        """An episode to record frame by frame; one at a time.

        Args:
            task: the instruction in words.
            seed: the environment seed it is recorded with; None where unknown.

        Raises:
            DataError: the writer is finalized, or another episode is under way.
        """

    @abstractmethod
    def add_episode(self, episode: Episode) -> None:
        """Adds an episode; it is on disk when this returns, and nothing of it is in the dataset when this raises.

        Raises:
            FeatureMismatch: its widths, cameras, sizes or rate are not the dataset's.
            DataError: what the format cannot keep.
        """

    def finalize(self) -> None:
        """Completes the dataset and lets go of the directory. Nothing more can be added.

        Raises:
            DataError: an episode is under way.
        """
        if not self._lock.is_locked:
            return
        self._require_idle()
        try:
            self._complete()
        finally:
            self._lock.release()

    @property
    def _name(self) -> str:
        """What the errors call it."""
        return type(self).__name__

    # The directory

    def _open(self, manifest: str, described: Mapping[str, Any], resume: bool) -> None:
        """Takes the directory, and goes on with the dataset in it, if there is one.

        Args:
            manifest: the file, relative to `root`, that says what a dataset of this class holds.
            described: its content; `features` in it are compared one by one.
            resume: whether there may be a dataset.

        Raises:
            DataError: a directory that is not empty or that another writer holds, a damaged dataset.
            FeatureMismatch: a dataset that is described otherwise.
        """
        recover_directory(self.root)
        existing = any(path.is_file() and not path.name.startswith(".") for path in self.root.rglob("*"))
        if existing and not resume:
            raise DataError(
                f"{self._name}: expected a new or empty directory, got {self.root} with files in it. "
                f"Choose another one, or go on with it by resume=True."
            )
        if existing and not (self.root / manifest).exists():
            raise DataError(
                f"{self._name}: resume: expected a dataset of {self._name}, got {self.root} without {manifest}. "
                f"Choose a new directory."
            )
        (self.root / manifest).parent.mkdir(parents=True, exist_ok=True)
        try:
            self._lock.acquire()
        except filelock.Timeout as error:
            raise DataError(f"{self._name}: {self.root} is being written by another process. Wait for it.") from error
        try:
            if existing:
                self._require_same(self.root / manifest, described)
            for leftover in self.root.rglob(f"{TEMPORARY}*"):  # of a writer that was killed
                leftover.unlink()
            if existing:
                self._take_up()
            else:
                write_json(self.root / manifest, described)
        except BaseException:
            self._lock.release()
            raise

    @abstractmethod
    def _take_up(self) -> None:
        """Goes on with the dataset in the directory; what a kill left unfinished in it is removed or completed."""

    @abstractmethod
    def _complete(self) -> None:
        """Writes what only the end of a dataset can tell."""

    def _require_same(self, manifest: Path, described: Mapping[str, Any]) -> None:
        there = read_json(manifest, DataError)
        pairs = [(key, there.get(key), value) for key, value in described.items() if key != "features"]
        features = there.get("features", {})
        pairs += [(f"features.{key}", features.get(key), value) for key, value in described["features"].items()]
        for what, old, new in pairs:
            if old != new:
                raise FeatureMismatch(
                    f"{self._name}: resume: {what}: expected {old} as {self.root} has, got {new}. "
                    f"Choose a new directory."
                )

    # One episode at a time

    def _require_open(self) -> None:
        if not self._lock.is_locked:
            raise DataError(f"{self._name}: {self.root} is finalized. Open it again by resume=True.")

    def _require_idle(self) -> None:
        if self._recorder is not None:
            raise DataError(f"{self._name}: episode {len(self)} is under way. Save or discard it first.")

    def _ended(self) -> None:
        self._recorder = None
