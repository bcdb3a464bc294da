"""How a store is written: episode by episode, by several processes where there are frames to decode."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from menura.data.episode import Episode, UInt8
from menura.data.readers.base import Reader
from menura.data.store_frames import blocks, encode_jpeg, resized
from menura.data.store_workers import in_order
from menura.data.threads import available_cores
from menura.errors import ContractError, DataError
from menura.features import Features
from menura.files import write_json
from menura.processing.images import NAMED, Resize, to_channels_first


class ImageEncoder(Protocol):
    """A frozen `torch.nn.Module`, on the CPU: (B, 3, H, W) float32 in [0, 1] -> (B, feature_dim)."""

    feature_dim: int

    def __call__(self, images: Any) -> Any: ...


@dataclass(frozen=True)
class Plan:
    """Everything that shapes a store.

    Attributes:
        lengths: (E,) frames of each episode.
        features: the dataset's, with the wanted cameras at the wanted size.
        mode: `raw`, `jpeg` or `video`.
        resize: `stretch` or `pad`; None where frames are stored as they are.
        source: the fingerprint of the source.
        feature_dim: K·F of an image encoder; None without one.
    """

    lengths: NDArray[np.int64]
    features: Features
    mode: str
    resize: Resize | None
    source: str
    feature_dim: int | None = None

    @property
    def frames(self) -> int:
        return int(self.lengths.sum())

    @property
    def starts(self) -> NDArray[np.int64]:
        return np.concatenate([[0], np.cumsum(self.lengths)])

    @property
    def stores_frames(self) -> bool:
        return bool(self.features.cameras) and self.mode != "video" and self.feature_dim is None

    @property
    def stores_jpegs(self) -> bool:
        return self.stores_frames and self.mode == "jpeg"

    def disk_bytes(self, jpeg_shrinks: float) -> int:
        """What the store will take on the disk; an estimate for JPEG."""
        values = self.features.state_dim + self.features.action_dim + (self.feature_dim or 0)
        pixels = 3 * sum(camera.height * camera.width for camera in self.features.cameras.values())
        factor = 0.0 if not self.stores_frames else 1 / jpeg_shrinks if self.stores_jpegs else 1.0
        return int(self.frames * (4 * values + pixels * factor))


@dataclass(frozen=True)
class EpisodeRecord:
    """What the process that wrote an episode tells the one that keeps the books."""

    task: str
    metadata: dict[str, Any]
    jpegs: dict[str, list[bytes]] = field(default_factory=dict)


class TableFile:
    """A `.npy` file of which several processes write rows.

    Rows are written, not assigned to a memory map: a full disk is then an OSError and not the end of the process.
    """

    def __init__(self, path: Path, dtype: Any, shape: tuple[int, ...]) -> None:
        self.path = path
        self.dtype: np.dtype[Any] = np.dtype(dtype)
        self.shape = shape
        with open(path, "wb") as file:
            header = {"descr": self.dtype.str, "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(file, header)
            self._offset = file.tell()
            file.truncate(self._offset + self._row_bytes * shape[0])

    @property
    def _row_bytes(self) -> int:
        return math.prod((*self.shape[1:], self.dtype.itemsize))

    def write(self, row: int, values: NDArray[Any]) -> None:
        """Put values (n, *shape[1:]) at the rows from `row` on."""
        assert values.dtype == self.dtype
        assert values.shape[1:] == self.shape[1:]
        with open(self.path, "r+b") as file:
            file.seek(self._offset + row * self._row_bytes)
            file.write(np.ascontiguousarray(values).data.cast("B") if values.size else b"")


def camera_groups(features: Features) -> list[tuple[str, ...]]:
    """The cameras that share a file (N, K, H, W, 3), so that one copy gathers them: all where sizes are equal."""
    if len({(camera.height, camera.width) for camera in features.cameras.values()}) == 1:
        return [tuple(features.cameras)]
    return [(camera,) for camera in features.cameras]


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

    def write(
        self, index: int, episode: Episode, metadata: dict[str, Any], encoder: ImageEncoder | None
    ) -> EpisodeRecord:
        """Write one episode; JPEG pictures are handed back, for their place depends on those before them."""
        self._check(index, episode)
        row = int(self._starts[index])
        self._state.write(row, episode.state)
        self._action.write(row, episode.action)
        jpegs: dict[str, list[bytes]] = {}
        if self._encoded is not None and encoder is not None:
            self._encoded.write(row, self._encode(index, episode, encoder))
        elif self._plan.stores_jpegs:
            for camera in self._plan.features.cameras:
                frames = chain.from_iterable(self._frames(index, episode, camera))
                jpegs[camera] = [encode_jpeg(frame) for frame in frames]
        for cameras, table in self._images.items():
            at = row
            for views in zip(*(self._frames(index, episode, camera) for camera in cameras), strict=True):
                table.write(at, np.stack(views, axis=1))
                at += len(views[0])
        facts = {"task": episode.task, "success": episode.success, "seed": episode.seed, **episode.extra, **metadata}
        return EpisodeRecord(episode.task, facts, jpegs)

    def _frames(self, index: int, episode: Episode, camera: str) -> Iterator[UInt8]:
        """Blocks (n, H, W, 3) of one camera at the wanted size."""
        what = f"Dataset {self._name!r}, episode {index}, camera {camera!r}"
        feature = self._plan.features.cameras[camera]
        size = (feature.height, feature.width)
        if camera not in episode.images:
            raise DataError(f"{what}: expected frames, got none; there is {list(episode.images)}. Name its cameras.")
        count = 0
        for frames in blocks(episode.images[camera]):
            shaped = resized(frames, size, self._plan.resize)
            if shaped.shape[1:] != (*size, 3) or shaped.dtype != np.uint8:
                raise DataError(
                    f"{what}: expected uint8 frames {(*size, 3)} as its features say, "
                    f"got {shaped.dtype} {shaped.shape[1:]}. Set image_size to resize them."
                )
            count += len(shaped)
            yield shaped
        if count != len(episode):
            raise DataError(
                f"{what}: expected {len(episode)} frames, got {count}. Fetch it again or remove the episode."
            )

    def _encode(self, index: int, episode: Episode, encoder: ImageEncoder) -> NDArray[np.float32]:
        """(T, K·F) float32; the pixels are made as the processor makes them in inference."""
        pixel_table = NAMED["zero_one"].table()
        columns = []
        with torch.inference_mode():
            for camera in self._plan.features.cameras:
                rows = []
                for frames in self._frames(index, episode, camera):
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


class JpegFiles:
    """The pictures of each camera, one after the other in a file, and where each lies."""

    def __init__(self, directory: Path, cameras: Iterable[str]) -> None:
        self._paths = {camera: directory / f"images.{number}" for number, camera in enumerate(cameras)}
        self._sizes: dict[str, list[int]] = {camera: [] for camera in self._paths}

    def append(self, jpegs: Mapping[str, list[bytes]]) -> None:
        for camera, pictures in jpegs.items():
            with open(f"{self._paths[camera]}.jpeg", "ab") as file:
                file.writelines(pictures)
            self._sizes[camera].extend(len(picture) for picture in pictures)

    def finish(self) -> None:
        for camera, path in self._paths.items():
            np.save(f"{path}.offsets.npy", np.cumsum([0, *self._sizes[camera]], dtype=np.int64))


@dataclass(frozen=True)
class _WriteEpisode:
    """The work of one process: read episode `index` and write its rows."""

    reader: Reader
    writer: EpisodeWriter
    image_encoder: ImageEncoder | None

    def __call__(self, index: int) -> EpisodeRecord:
        return self.writer.write(index, self.reader.episode(index), self.reader.metadata(index), self.image_encoder)


def write_store(
    directory: Path,
    reader: Reader,
    plan: Plan,
    image_encoder: ImageEncoder | None,
    num_workers: int | None,
    progress: bool,
) -> None:
    """Write every file of a store into the empty `directory`."""
    if not plan.stores_frames:
        num_workers = 0  # tables alone are read faster than processes start; an encoder has threads of its own
    elif num_workers is None:
        num_workers = min(available_cores(), len(plan.lengths))
    work = _WriteEpisode(reader, EpisodeWriter(directory, reader.name, plan), image_encoder)
    tasks: dict[str, int] = {}
    task_index: list[int] = []
    episodes: list[dict[str, Any]] = []
    records = in_order(work, len(plan.lengths), num_workers)
    jpegs = JpegFiles(directory, plan.features.cameras if plan.stores_jpegs else ())
    for record in _with_progress(records, plan, reader.name, progress):
        task_index.append(tasks.setdefault(record.task, len(tasks)))
        episodes.append(record.metadata)
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


def _with_progress(records: Iterator[EpisodeRecord], plan: Plan, name: str, progress: bool) -> Iterator[EpisodeRecord]:
    """The records, with a bar of the frames done on stderr."""
    first = next(records)  # before the bar: processes are forked now, and the bar has a thread
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), disable=not progress, transient=True) as bar:
        shown = bar.add_task(f"Building the store of {name}: frames", total=plan.frames)
        for index, record in enumerate(chain([first], records)):
            bar.advance(shown, int(plan.lengths[index]))
            yield record
