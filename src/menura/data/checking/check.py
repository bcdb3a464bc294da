"""The check of a dataset: every table once, pictures as far as asked. Torch-free."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from menura.data.checking import remembered
from menura.data.checking.cameras import EVERY_S, PICKED, Cameras
from menura.data.checking.control import ControlType, Copied
from menura.data.checking.declared import Statistics
from menura.data.checking.duplicates import Duplicates
from menura.data.checking.grippers import Grippers
from menura.data.checking.jumps import Jumps, Wraps
from menura.data.checking.language import Language
from menura.data.checking.remedies import delete
from menura.data.checking.report import Finding, Place, Report, worst_first
from menura.data.checking.rotations import Rotations
from menura.data.checking.saturation import Saturated
from menura.data.checking.stillness import Constant, Frozen, Idle, Short
from menura.data.checking.tables import Check, Context, Tables
from menura.data.checking.times import Times
from menura.data.checking.values import NotFinite
from menura.data.checking.videos import VideoLengths
from menura.data.episode import Episode
from menura.data.opening import open_dataset
from menura.data.readers.base import Reader
from menura.errors import ContractError, DataError, FeatureMismatch

Pictures = Literal["none", "sampled", "all"]
# How the dataset usually moves is measured on so many episodes.
_SAMPLED_EPISODES = 64
# Opening a video takes milliseconds: of more files than this, some are opened when pictures are not looked at.
_QUICK_VIDEOS = 500


def check_dataset(
    dataset: Reader | str | Path | object,
    *,
    pictures: Pictures = "sampled",
    cache_dir: str | Path | None = None,
    progress: bool | Progress = False,
) -> Report:
    """Looks for everything that is known to go wrong in recorded data. Nothing is changed.

    Tables are read whole, once, an episode at a time.

    Args:
        dataset: what `open_dataset` takes.
        pictures: `none`: videos are counted by their headers (of more than 500 files a camera, 500), nothing is
            decoded. `sampled`: besides, about 1,500 frames a camera, four a second, from evenly spaced episodes.
            `all`: every frame.
        cache_dir: where the report is kept for the next time, by the data's fingerprint; as `build_store`.
        progress: show a bar on stderr; or one to show it in.

    Raises:
        DataError: the dataset cannot be opened at all. A damaged episode is a finding.
    """
    reader = open_dataset(dataset)
    kept = remembered.place(cache_dir, reader.fingerprint(), pictures)
    if (report := remembered.load(kept)) is not None:
        return report
    with progress if isinstance(progress, Progress) else _bar(progress) as bar:
        report = _Checking(reader, pictures, bar).report()
    remembered.save(kept, report)
    return report


def _bar(shown: bool) -> Progress:
    columns = (TextColumn("checking {task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=Console(stderr=True), disable=not shown, transient=True)


class _Checking:
    """One check of one dataset."""

    def __init__(self, reader: Reader, pictures: Pictures, bar: Progress) -> None:
        self._reader = reader
        self._pictures = pictures
        self._bar = bar
        self._lengths = reader.lengths()
        self._broken = _Broken()
        self._videos = VideoLengths(_QUICK_VIDEOS if pictures == "none" else None)

    def report(self) -> Report:
        sampled = {index: tables for index in self._sample() if (tables := self._read(index)) is not None}
        context = Context.of(self._reader.features, list(sampled.values()))
        findings: list[Finding] = []
        facts: dict[str, str] = {}
        seen: list[str] = []
        if sampled:
            checks, control = _checks(context, self._reader)
            for tables in self._every(sampled):
                for check in checks:
                    check.see(tables)
            findings += [finding for check in checks for finding in check.findings()]
            if control.guess and not self._reader.features.control_type:
                facts["control_type"] = control.guess
            if self._pictures != "none":
                cameras = Cameras(context)
                seen += self._look(cameras)
                findings += cameras.findings()
        findings += self._videos.findings()
        findings += self._broken.findings()
        return Report(
            self._reader.name,
            len(self._reader),
            int(self._lengths.sum()),
            worst_first(findings),
            (*seen, *self._videos.seen),
            facts,
        )

    def _sample(self) -> list[int]:
        """Evenly spaced episodes, all of a small dataset."""
        return [int(index) for index in _evenly(len(self._reader), _SAMPLED_EPISODES)]

    def _every(self, sampled: dict[int, Tables]) -> Iterator[Tables]:
        task = self._bar.add_task("tables", total=len(self._reader))
        for index in range(len(self._reader)):
            tables = sampled.get(index) or self._read(index)
            if tables is not None:
                yield tables
            self._bar.advance(task)

    def _read(self, index: int) -> Tables | None:
        """An episode's tables; None, and a finding, where they cannot be read or are not what the dataset says."""
        episode = self._broken.episode(self._reader, index)
        if episode is None or not self._broken.fits(self._reader, index, episode, int(self._lengths[index])):
            return None
        self._videos.note(index, episode.images)
        return Tables.of(index, episode)

    # Pictures

    def _look(self, cameras: Cameras) -> list[str]:
        """Shows the cameras' pictures to the check; says what was left out."""
        names = list(self._reader.features.cameras)
        stride, episodes = self._picked()
        task = self._bar.add_task("pictures", total=len(episodes) * len(names))
        for index in episodes.tolist():
            if self._broken.is_broken(index) or (episode := self._broken.episode(self._reader, index)) is None:
                continue
            tables = Tables.of(index, episode)
            for camera in names:
                try:
                    cameras.see(tables, episode, camera, stride)
                except DataError as error:
                    self._broken.note(index, str(error))
                self._bar.advance(task)
        if not names or self._pictures == "all":
            return []
        count = len(self._reader)
        which = "every episode" if len(episodes) == count else f"{len(episodes)} of {count} episodes"
        return [f"one picture in {stride} of {which} (--full looks at all)"]

    def _picked(self) -> tuple[int, NDArray[np.int64]]:
        """(every how many frames, of which episodes)."""
        count = len(self._reader)
        if self._pictures == "all":
            return 1, np.arange(count)
        stride = max(1, round(self._reader.features.fps * EVERY_S))
        picked_of_each = max(1.0, float(self._lengths.mean()) / stride)
        return stride, _evenly(count, max(1, round(PICKED / picked_of_each)))


def _evenly(count: int, most: int) -> NDArray[np.int64]:
    """At most so many of 0 … count - 1."""
    return np.unique(np.linspace(0, count - 1, min(count, most)).round().astype(np.int64))


def _checks(context: Context, reader: Reader) -> tuple[list[Check], ControlType]:
    control = ControlType(context)
    families: Iterable[Any] = (
        NotFinite, Constant, Frozen, Idle, Short, Jumps, Wraps, Saturated, Duplicates, Times, Language, Copied,
        Rotations, Grippers,
    )  # fmt: skip
    return [*(family(context) for family in families), Statistics(context, reader), control], control


class _Broken:
    """Episodes that cannot be read, or are not what the dataset says they are."""

    def __init__(self) -> None:
        self._messages: dict[int, str] = {}
        self._kinds: dict[int, str] = {}

    def episode(self, reader: Reader, index: int) -> Episode | None:
        try:
            return reader.episode(index)
        except (DataError, FeatureMismatch, ContractError) as error:
            self.note(index, str(error))
            return None

    def fits(self, reader: Reader, index: int, episode: Episode, length: int) -> bool:
        """Whether widths, cameras and length are what the dataset says."""
        features = reader.features
        for what, expected, got in (
            ("state width", features.state_dim, episode.state.shape[1]),
            ("action width", features.action_dim, episode.action.shape[1]),
            ("cameras", sorted(features.cameras), sorted(episode.images)),
        ):
            if expected != got:
                self.note(index, f"{what}: expected {expected} as the dataset says, got {got}", "widths")
                return False
        if len(episode) != length:
            self.note(index, f"expected {length} frames as the dataset says, got {len(episode)} rows", "frames_rows")
            return False
        return True

    def note(self, index: int, message: str, kind: str = "damaged") -> None:
        self._messages[index], self._kinds[index] = message, kind

    def is_broken(self, index: int) -> bool:
        return index in self._messages

    def findings(self) -> Iterable[Finding]:
        """One a kind, with the first message."""
        for kind in sorted(set(self._kinds.values())):
            indices = sorted(index for index, own in self._kinds.items() if own == kind)
            places = tuple(map(Place, indices))
            remedy = f"Fetch or record them anew, or leave them out: {delete(places)}"
            yield Finding(kind, "error", self._messages[indices[0]], remedy, 1.0, places)
