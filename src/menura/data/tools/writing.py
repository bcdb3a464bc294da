"""Writes what a reader gives as a new dataset: the one way of all tools that change data."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from menura.data.encoding import encoder_like
from menura.data.episode import Frames
from menura.data.episode_writer import EpisodeWriter
from menura.data.frames import LazyFrames, VideoFrames
from menura.data.hdf5_writer import Hdf5Writer
from menura.data.joining import coding
from menura.data.readers.base import Reader
from menura.data.writer import LeRobotWriter
from menura.errors import ConfigError, DataError, did_you_mean
from menura.files import TEMPORARY, read_json, replace_directory, write_json

#: What is being written, of what: there until the dataset is whole.
UNFINISHED = ".menura-unfinished.json"


def unfinished(directory: Path) -> str | None:
    """The dataset that was being written here when a tool was interrupted; None where nothing is unfinished."""
    note = directory / UNFINISHED
    return str(read_json(note, DataError).get("source")) if note.exists() else None


WRITERS: dict[str, Callable[..., EpisodeWriter]] = {"lerobot": LeRobotWriter, "menura": Hdf5Writer}


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

    Videos keep their codec where `codec` does not ask for another one and we can write it, and their packets are
    copied: every pixel stays. Encoded again is what must be: a camera of an episode whose video is of another codec or
    pixel format than the dataset's first one, is cut where it cannot be (between keyframes), or runs at another rate.

    Args:
        reader: what is written, as `open_dataset` or a wrapper gives it.
        output_dir: new or empty.
        to: `lerobot` (LeRobotDataset v3.0) or `menura` (our HDF5).
        lossless: cameras as PNG pictures; else as videos (lerobot) or JPEG (menura). None: as the source's frames are
            where those are single pictures, else not.
        codec: of videos: `libx264`, `libx264-ultrafast`, `libx264-420` or `libsvtav1`. None: that of the source's first
            video, or `libx264`.
        progress: show a bar of the frames done on stderr.

    Returns:
        The directory.

    Raises:
        ConfigError: another `to`, or a codec where no video is written.
        DataError: the directory holds something else, or an episode cannot be written.
        OSError: the disk is full; what was finished stays.
        KeyboardInterrupt: its text says how far this came.
    """
    if to not in WRITERS:
        raise ConfigError(f"to: expected one of {list(WRITERS)}, got {to!r}{did_you_mean(to, WRITERS) or '.'}")
    directory = Path(output_dir).expanduser()
    options = _options(reader, to, lossless, codec)
    resume = claim(directory, reader, [to, options])
    writer = WRITERS[to](directory, reader.features, resume=resume, **options)
    try:
        for index in _with_progress(reader, len(writer), progress):
            writer.add_episode(reader.episode(index))
    except KeyboardInterrupt:
        stop = f"Interrupted: {len(writer):,} of {len(reader):,} episodes are written. The same command goes on."
        _tell(stop, progress)
        raise KeyboardInterrupt(stop) from None
    except OSError as error:
        if error.errno is None or error.filename is not None:
            raise
        raise OSError(error.errno, error.strerror, str(directory)) from error  # a library that does not say where
    finally:
        writer.finalize()
    (directory / UNFINISHED).unlink()
    again = getattr(writer, "encoded_again", 0)
    if again:
        _tell(f"{again:,} videos could not be copied and were encoded again, by {options['codec']}.", progress)
    return directory


def _tell(line: str, progress: bool) -> None:
    if progress:
        Console(stderr=True, highlight=False).print(line, soft_wrap=True, markup=False)


@contextmanager
def written_in_place(source: Path) -> Iterator[Path]:
    """A directory beside `source` that takes its place when the block ends; interrupted, `source` is as it was."""
    temporary = source.with_name(f"{TEMPORARY}{source.name}")
    if temporary.exists() and not (temporary / UNFINISHED).exists():
        shutil.rmtree(temporary)  # whole, but killed before it took its place: nothing says of which change it is
    yield temporary
    replace_directory(temporary, source)


def _options(reader: Reader, to: str, lossless: bool | None, codec: str | None) -> dict[str, Any]:
    """The writer's own arguments."""
    images = reader.images(0)
    if lossless is None:
        lossless = _are_pictures(images)
    if codec is not None and (to != "lerobot" or lossless):
        raise ConfigError(f"codec: expected it for videos of a LeRobotDataset, got {codec!r}. Leave it out.")
    if to == "menura":
        return {"images": "png" if lossless else "jpeg"}
    return {"video": not lossless, "codec": codec or _codec_of(images) or "libx264"}


def _are_pictures(images: Mapping[str, Frames]) -> bool:
    """Whether the cameras are kept as single pictures, which a video would only make worse."""
    return bool(images) and all(isinstance(each, LazyFrames) and each.are_pictures for each in images.values())


def _codec_of(images: Mapping[str, Frames]) -> str | None:
    """The one that makes videos like the first of these, so that they can be copied; None where there is none."""
    video = next((frames for frames in images.values() if isinstance(frames, VideoFrames)), None)
    return None if video is None else encoder_like(coding(video.path))


def claim(directory: Path, reader: Reader, asked: Any) -> bool:
    """Whether the same work was begun here; else notes it, and refuses a directory with anything in it.

    Args:
        directory: where it goes.
        reader: what is written.
        asked: what else makes it the same work, JSON-able.
    """
    digest = hashlib.sha256(reader.fingerprint().encode())
    digest.update(json.dumps([asked, reader.features.to_dict()], sort_keys=True, default=repr).encode())
    work = {"source": reader.name, "digest": digest.hexdigest()}
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


class _Rate(ProgressColumn):
    """Frames a second, once they are known."""

    def render(self, task: Task) -> Text:
        return Text("" if task.speed is None else f"{task.speed:,.0f} a second")


def _with_progress(reader: Reader, done: int, progress: bool) -> Iterator[int]:
    """The numbers of the episodes to write, with a bar of their frames on stderr."""
    lengths = reader.lengths()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), _Rate(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), disable=not progress, transient=True) as bar:
        shown = bar.add_task(
            f"Writing {reader.name}: frames", total=int(lengths.sum()), completed=int(lengths[:done].sum())
        )
        for index in range(done, len(reader)):
            yield index
            bar.advance(shown, int(lengths[index]))
