"""How a store is written: share by share, by several processes where there are frames to decode."""

from __future__ import annotations

import platform
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from menura.data.episode import Episode, UInt8
from menura.data.pictures import encode_jpeg
from menura.data.readers.base import Reader
from menura.data.store_frames import BLOCK, Passage, shaped
from menura.data.store_plan import ImageEncoder, Piece, Plan, camera_groups, shares
from menura.data.store_tables import JpegFiles, TableFile, flushing
from menura.data.threads import available_cores
from menura.data.workers import open_workers
from menura.errors import ContractError, DataError
from menura.files import write_json
from menura.processing.images import NAMED, to_channels_first


@dataclass
class ShareRecord:
    """What the process that wrote a share tells the one that keeps the books.

    Attributes:
        frames: how many rows it wrote.
        tasks: the instruction of each episode that begins in it.
        episodes: the facts of each.
        jpegs: camera -> its pictures, in the order of the rows.
    """

    frames: int = 0
    tasks: list[str] = field(default_factory=list)
    episodes: list[dict[str, Any]] = field(default_factory=list)
    jpegs: dict[str, list[bytes]] = field(default_factory=dict)


class EpisodeWriter:
    """Writes the rows of any episode of a plan into the tables in `directory`, which it creates."""

    def __init__(self, directory: Path, name: str, plan: Plan) -> None:
        features, frames = plan.features, plan.frames
        self._name = name
        self._plan = plan
        self._starts = plan.starts
        self._state = TableFile(directory / "state.npy", np.float32, (frames, features.state_dim))
        self._action = TableFile(directory / "action.npy", np.float32, (frames, features.action_dim))
        self._images: dict[tuple[str, ...], TableFile] = {}
        self._encoded: TableFile | None = None
        if plan.feature_dim is not None:
            self._encoded = TableFile(directory / "image_features.npy", np.float32, (frames, plan.feature_dim))
        elif plan.mode == "raw":
            for number, cameras in enumerate(camera_groups(features)):
                camera = features.cameras[cameras[0]]
                shape = (frames, len(cameras), camera.height, camera.width, 3)
                self._images[cameras] = TableFile(directory / f"images.{number}.npy", np.uint8, shape)

    @property
    def image_files(self) -> list[Path]:
        """The large ones."""
        return [table.path for table in self._images.values()]

    def write(
        self, piece: Piece, episode: Episode, passages: Mapping[str, Passage], encoder: ImageEncoder | None
    ) -> dict[str, list[bytes]]:
        """Write a piece of an episode; JPEG pictures are handed back, for their place depends on those before them.

        Args:
            piece: which frames.
            episode: the whole of it.
            passages: of each camera that is read, continued from piece to piece.
            encoder: its features are written instead of frames.
        """
        self._check(piece.episode, episode)
        frames, row = slice(piece.start, piece.stop), int(self._starts[piece.episode]) + piece.start
        self._state.write(row, episode.state[frames])
        self._action.write(row, episode.action[frames])
        pictures = {camera: self._frames(piece, episode, camera, passages[camera]) for camera in passages}
        if self._encoded is not None and encoder is not None:
            self._encoded.write(row, self._encode(pictures, encoder))
            return {}
        if self._plan.stores_jpegs:
            return {camera: [encode_jpeg(frame) for frame in each] for camera, each in pictures.items()}
        for cameras, table in self._images.items():
            for place, camera in enumerate(cameras):
                table.write_column(row, place, pictures[camera])
        return {}

    def _frames(self, piece: Piece, episode: Episode, camera: str, passage: Passage) -> Iterator[UInt8]:
        """Frames (H, W, 3) of one camera at the wanted size."""
        what = f"Dataset {self._name!r}, episode {piece.episode}, camera {camera!r}"
        feature = self._plan.features.cameras[camera]
        shape = (feature.height, feature.width, 3)
        if camera not in episode.images:
            raise DataError(f"{what}: expected frames, got none; there is {list(episode.images)}. Name its cameras.")
        count = 0
        frames = passage.through(episode.images[camera], piece.start, piece.stop)
        for frame in shaped(frames, shape[:2], self._plan.resize):
            if frame.shape != shape or frame.dtype != np.uint8:
                raise DataError(
                    f"{what}: expected uint8 frames {shape} as its features say, "
                    f"got {frame.dtype} {frame.shape}. Set image_size to resize them."
                )
            count += 1
            yield frame
        expected = piece.stop - piece.start
        if count != expected:
            raise DataError(f"{what}: expected {expected} frames, got {count}. Fetch it again or remove the episode.")

    def _encode(self, pictures: Mapping[str, Iterator[UInt8]], encoder: ImageEncoder) -> NDArray[np.float32]:
        """(T, K·F) float32; the pixels are made as the processor makes them in inference."""
        pixel_table = NAMED["zero_one"].table()
        columns = []
        with torch.inference_mode():
            for each in pictures.values():
                rows = []
                while block := list(islice(each, BLOCK)):
                    frames = np.stack(block)
                    features = encoder(to_channels_first(torch.from_numpy(frames), pixel_table))
                    if features.shape != (len(frames), encoder.feature_dim):
                        raise ContractError(
                            f"{type(encoder).__name__}: expected features of shape "
                            f"{(len(frames), encoder.feature_dim)} (feature_dim), got {tuple(features.shape)}."
                        )
                    rows.append(features.to(torch.float32).numpy())
                columns.append(np.concatenate(rows))
        return np.concatenate(columns, axis=1)

    def _check(self, index: int, episode: Episode) -> None:
        expected = (int(self._plan.lengths[index]), self._plan.features.state_dim, self._plan.features.action_dim)
        got = (len(episode), episode.state.shape[1], episode.action.shape[1])
        if got != expected:
            raise DataError(
                f"Dataset {self._name!r}, episode {index}: expected (frames, state, action) {expected} as the dataset "
                f"says of itself, got {got}. Fetch the dataset again or remove the episode."
            )


@dataclass(frozen=True)
class _WriteShare:
    """The work of one process: read the pieces of a share, and write their rows."""

    reader: Reader
    writer: EpisodeWriter
    plan: Plan
    shares: list[list[Piece]]
    image_encoder: ImageEncoder | None
    directory: Path

    def __call__(self, number: int) -> ShareRecord:
        if not self.directory.is_dir():  # its name is of this build alone, so that no other can be meant
            raise DataError(
                f"Store of {self.reader.name!r}: expected {self.directory.parent} to be the same directory on every "
                f"machine, got another one on {platform.node()}. Set data.cache_dir to a directory that all share."
            )
        record = ShareRecord()
        passages = {camera: Passage() for camera in self.plan.cameras_read}
        for piece in self.shares[number]:
            episode = self.reader.episode(piece.episode)
            jpegs = self.writer.write(piece, episode, passages, self.image_encoder)
            for camera, pictures in jpegs.items():
                record.jpegs.setdefault(camera, []).extend(pictures)
            if piece.start == 0:
                facts = {"task": episode.task, "success": episode.success, "seed": episode.seed, **episode.extra}
                record.tasks.append(episode.task)
                record.episodes.append({**facts, **self.reader.metadata(piece.episode)})
            record.frames += piece.stop - piece.start
        return record


def write_store(
    directory: Path,
    reader: Reader,
    plan: Plan,
    image_encoder: ImageEncoder | None,
    num_workers: int | None,
    progress: bool,
    ray: bool = False,
) -> None:
    """Write every file of a store into the empty `directory`."""
    writer = EpisodeWriter(directory, reader.name, plan)
    tasks: dict[str, int] = {}
    task_index: list[int] = []
    episodes: list[dict[str, Any]] = []
    jpegs = JpegFiles(directory, plan.features.cameras if plan.stores_jpegs else ())
    ray = ray and image_encoder is None  # which has threads of its own; and the last bits depend on their number
    with open_workers(_processes(plan, num_workers), ray=ray) as workers:
        parts = shares(plan.lengths, workers.count)
        work = _WriteShare(reader, writer, plan, parts, image_encoder, directory)
        # Closed, so that neither processes nor the thread that flushes outlive an error here.
        with (
            closing(workers.in_order(work, len(parts))) as records,
            closing(_with_progress(records, plan, reader.name, progress, writer.image_files)) as shown,
        ):
            for record in shown:
                task_index += [tasks.setdefault(task, len(tasks)) for task in record.tasks]
                episodes += record.episodes
                jpegs.append(record.jpegs)
    jpegs.finish()
    np.save(directory / "starts.npy", plan.starts)
    np.save(directory / "task_index.npy", np.array(task_index, np.int64))
    write_json(directory / "episodes.json", episodes)
    manifest = {
        "source": plan.source,
        "mode": plan.mode,
        "resize": plan.resize,
        "encoder": plan.feature_dim is not None,
        "features": plan.features.to_dict(),
        "tasks": list(tasks),
    }
    write_json(directory / "store.json", manifest)


def _processes(plan: Plan, num_workers: int | None) -> int:
    if not plan.stores_frames:
        return 0  # tables alone are read faster than processes start; an encoder has threads of its own
    return available_cores() if num_workers is None else num_workers


def _with_progress(
    records: Iterator[ShareRecord], plan: Plan, name: str, progress: bool, written: Sequence[Path]
) -> Generator[ShareRecord, None, None]:
    """The records, with a bar of the frames done on stderr, while what is `written` goes to the disk."""
    first = next(records)  # before bar and flushing: processes are forked now, and those two have threads
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    bar = Progress(*columns, console=Console(stderr=True), disable=not progress, transient=True)
    with bar, flushing(written):
        shown = bar.add_task(f"Building the store of {name}: frames", total=plan.frames)
        for record in chain([first], records):
            bar.advance(shown, record.frames)
            yield record
