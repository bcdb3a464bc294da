"""Writes what a reader gives as a new dataset: the one way of all tools that change data."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from menura.data.episode import Episode
from menura.data.frames import LazyFrames
from menura.data.hdf5_writer import Hdf5Writer
from menura.data.readers.base import Reader
from menura.data.writer import LeRobotWriter
from menura.errors import ConfigError, DataError, did_you_mean
from menura.files import TEMPORARY, read_json, replace_directory, write_json

#: What is being written, of what: there until the dataset is whole.
UNFINISHED = ".menura-unfinished.json"


class Writer(Protocol):
    """What both writers have."""

    def __len__(self) -> int: ...

    def add_episode(self, episode: Episode) -> None: ...

    def finalize(self) -> None: ...


WRITERS: dict[str, Callable[..., Any]] = {"lerobot": LeRobotWriter, "menura": Hdf5Writer}


def write_dataset(
    reader: Reader,
    output_dir: str | Path,
    *,
    to: str = "lerobot",
    lossless: bool | None = None,
    codec: str | None = None,
    progress: bool = True,
) -> Path:
    """Write every episode of `reader` into a new directory.

    Each episode is durable once it is written. When this is killed or interrupted, the same call goes on where it
    stopped; a call of something else refuses the directory.

    Args:
        reader: what is written, as `open_dataset` or a wrapper gives it.
        output_dir: new or empty.
        to: `lerobot` (LeRobotDataset v3.0) or `menura` (our HDF5).
        lossless: cameras as PNG pictures; else as videos (lerobot) or JPEG (menura). None: as the source's frames are
            where those are single pictures, else not.
        codec: of videos: `libx264`, `libx264-ultrafast` or `libsvtav1`.
        progress: show a bar of the frames done on stderr.

    Returns:
        The directory.

    Raises:
        ConfigError: another `to`, or a codec where no video is written.
        DataError: the directory holds something else, or an episode cannot be written.
    """
    if to not in WRITERS:
        raise ConfigError(f"to: expected one of {list(WRITERS)}, got {to!r}{did_you_mean(to, WRITERS) or '.'}")
    directory = Path(output_dir).expanduser()
    options = _options(to, _has_pictures(reader) if lossless is None else lossless, codec)
    resume = _claim(directory, _work(reader, to, options))
    writer: Writer = WRITERS[to](directory, reader.features, resume=resume, **options)
    try:
        for index in _with_progress(reader, len(writer), progress):
            writer.add_episode(reader.episode(index))
    finally:
        writer.finalize()
    (directory / UNFINISHED).unlink()
    return directory


@contextmanager
def written_in_place(source: Path) -> Iterator[Path]:
    """A directory beside `source` that takes its place when the block ends; interrupted, `source` is as it was."""
    temporary = source.with_name(f"{TEMPORARY}{source.name}")
    yield temporary
    replace_directory(temporary, source)


def _options(to: str, lossless: bool, codec: str | None) -> dict[str, Any]:
    """The writer's own arguments."""
    if codec is not None and (to != "lerobot" or lossless):
        raise ConfigError(f"codec: expected it for videos of a LeRobotDataset, got {codec!r}. Leave it out.")
    if to == "menura":
        return {"images": "png" if lossless else "jpeg"}
    return {"video": not lossless} | ({} if codec is None else {"codec": codec})


def _has_pictures(reader: Reader) -> bool:
    """Whether the cameras are kept as single pictures, which a video would only make worse."""
    frames = reader.episode(0).images.values()
    return bool(frames) and all(isinstance(each, LazyFrames) and each.are_pictures for each in frames)


def _work(reader: Reader, to: str, options: dict[str, Any]) -> dict[str, Any]:
    """What is asked for, so that only the same is gone on with."""
    digest = hashlib.sha256(reader.fingerprint().encode())
    digest.update(json.dumps([to, options, reader.features.to_dict()], sort_keys=True, default=repr).encode())
    return {"source": reader.name, "digest": digest.hexdigest()}


def _claim(directory: Path, work: dict[str, Any]) -> bool:
    """Whether the same work was begun here; refuses a directory with anything else in it."""
    note = directory / UNFINISHED
    if note.exists():
        begun = read_json(note, DataError)
        if begun != work:
            raise DataError(
                f"{directory}: expected a new or empty directory, got an unfinished dataset of other work (from "
                f"{begun.get('source')!r}). Finish that, remove it, or choose another directory."
            )
        return any(path.name != UNFINISHED for path in directory.iterdir())
    if directory.exists() and any(directory.iterdir()):
        raise DataError(f"{directory}: expected a new or empty directory, got files in it. Choose another one.")
    directory.mkdir(parents=True, exist_ok=True)
    write_json(note, work)
    return False


def _with_progress(reader: Reader, done: int, progress: bool) -> Iterator[int]:
    """The numbers of the episodes to write, with a bar of their frames on stderr."""
    lengths = reader.lengths()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), disable=not progress, transient=True) as bar:
        shown = bar.add_task(
            f"Writing {reader.name}: frames", total=int(lengths.sum()), completed=int(lengths[:done].sum())
        )
        for index in range(done, len(reader)):
            yield index
            bar.advance(shown, int(lengths[index]))
