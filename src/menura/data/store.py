"""The store: a dataset as memory-mapped tables and frames at the wanted size, built once for each content and shape.

    <cache>/store/<key>/  store.json  episodes.json  starts.npy  task_index.npy  state.npy  action.npy
                          images.<g>.npy: raw frames (N, K, H, W, 3) of all cameras, or of one where sizes differ
                          images.<k>.jpeg and images.<k>.offsets.npy: the JPEG frames of camera k, and where each begins
                          image_features.npy: with an image encoder, instead of images

The key is a digest of the source's fingerprint and of everything that shaped the store, so a store is never stale:
another content, camera, size or encoder is another directory. Nothing is read into memory as a whole.
"""

from __future__ import annotations

import errno
import hashlib
import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from filelock import FileLock, Timeout
from numpy.typing import NDArray
from rich.console import Console

from menura.data.cache import cache_root
from menura.data.episode import Float32, Frames, UInt8
from menura.data.readers.base import Reader
from menura.data.store_frames import JpegFrames, SourceFrames
from menura.data.store_plan import ImageEncoder, Plan, camera_groups
from menura.data.store_writing import write_store
from menura.errors import DataError, did_you_mean
from menura.features import CameraFeature, Features
from menura.files import TEMPORARY, new_directory, read_json
from menura.processing.images import Resize

Mode = Literal["raw", "jpeg", "video"]
MODES = ("auto", "raw", "jpeg", "video", "stream")
VERSION = 1
BUDGET_BYTES = 20_000_000_000
# A JPEG of quality 95 takes about a seventh of the pixels; a sixth leaves room.
JPEG_SHRINKS = 6


class Store:
    """An opened store of N frames in E episodes. Pickling passes the path, so worker processes share the page cache.

    Attributes:
        directory: where it lies.
        name: what the dataset is called.
        mode: `raw`, `jpeg` or `video` (frames are read from the source each time).
        features: what observations and actions mean; the cameras at the size stored, in order.
        fingerprint: of the source's content.
        state: (N, D) float32, memory-mapped.
        action: (N, A) float32, memory-mapped.
        images: camera -> (N, H, W, 3) uint8: memory-mapped, or decoded when indexed; empty with an image encoder.
        stacked: (N, K, H, W, 3) uint8, memory-mapped: all of `images` in one table; None where sizes differ or not raw.
        image_features: (N, K·F) float32, memory-mapped, cameras concatenated in order; None without an image encoder.
        starts: (E + 1,) int64: episode e has the frames `starts[e] … starts[e + 1] - 1`.
        tasks: every instruction of the dataset, once.
        task_index: (E,) int64: the instruction of each episode.
    """

    def __init__(self, directory: str | Path, name: str, reader: Reader | None = None) -> None:
        self.directory = Path(directory)
        self.name = name
        self._reader = reader
        manifest = read_json(self.directory / "store.json", DataError)
        self.mode: Mode = manifest["mode"]
        self.features = Features.from_dict(manifest["features"])
        self.fingerprint: str = manifest["source"]
        self.tasks: list[str] = manifest["tasks"]
        self.starts: NDArray[np.int64] = self._table("starts")
        self.task_index: NDArray[np.int64] = self._table("task_index")
        self.state: Float32 = self._table("state")
        self.action: Float32 = self._table("action")
        self.image_features: Float32 | None = self._table("image_features") if manifest["encoder"] else None
        self.stacked: UInt8 | None = None
        self.images: dict[str, Frames] = {} if manifest["encoder"] else self._open_images(manifest["resize"])

    def __reduce__(self) -> tuple[Any, ...]:
        return Store, (self.directory, self.name, self._reader)

    def __len__(self) -> int:
        """The number of frames, N."""
        return len(self.action)

    @property
    def episodes(self) -> list[dict[str, Any]]:
        """One dict an episode: `task`, `success`, `seed` and what else the source says of it. Read when asked."""
        episodes: list[dict[str, Any]] = read_json(self.directory / "episodes.json", DataError)
        return episodes

    def shards(self) -> NDArray[np.int64]:
        """(E,) equal numbers for episodes whose frames lie in the same files of the source."""
        return np.arange(len(self.starts) - 1) if self._reader is None else self._reader.shards()

    def _open_images(self, resize: Resize | None) -> dict[str, Frames]:
        cameras = self.features.cameras
        if self.mode == "raw":
            groups = camera_groups(self.features)
            tables = [self._table(f"images.{number}") for number in range(len(groups))]
            self.stacked = tables[0] if len(tables) == 1 else None
            return {
                camera: table[:, place]
                for names, table in zip(groups, tables, strict=True)
                for place, camera in enumerate(names)
            }
        if self.mode == "jpeg":
            return {camera: self._jpegs(number, feature) for number, (camera, feature) in enumerate(cameras.items())}
        if self._reader is None:
            raise DataError(
                f"Store {self.directory}: expected the reader whose frames it shows, got none. Pass reader."
            )
        return {
            camera: SourceFrames(self._reader, camera, self.starts, (feature.height, feature.width), resize)
            for camera, feature in cameras.items()
        }

    def _jpegs(self, number: int, feature: CameraFeature) -> JpegFrames:
        path = self.directory / f"images.{number}.jpeg"
        blob = np.memmap(path, np.uint8, mode="r")
        return JpegFrames(blob, self._table(f"images.{number}.offsets"), feature.height, feature.width, str(path))

    def _table(self, name: str) -> NDArray[Any]:
        path = self.directory / f"{name}.npy"
        try:
            return _open_table(path)
        except (OSError, ValueError) as error:
            raise DataError(f"Store {path}: expected a table, got {error}. Delete {self.directory}.") from error


def _open_table(path: Path) -> NDArray[Any]:
    with open(path, "rb") as file:
        np.lib.format.read_magic(file)
        shape, _, _ = np.lib.format.read_array_header_1_0(file)
    # An empty file region cannot be mapped.
    table: NDArray[Any] = np.load(path, mmap_mode="r" if 0 not in shape else None)
    return table


def build_store(
    reader: Reader,
    *,
    cameras: Sequence[str] | None = None,
    image_size: tuple[int, int] | int | None = None,
    resize: Resize = "stretch",
    cache_dir: str | Path | None = None,
    budget_bytes: float = BUDGET_BYTES,
    num_workers: int | None = None,
    progress: bool = True,
    mode: str = "auto",
    image_encoder: ImageEncoder | None = None,
    encoder_fingerprint: str | None = None,
    ray: bool = False,
) -> Store:
    """Open the store of a dataset at a shape, and build it first where it is not there yet.

    One process builds, others that want the same store wait for it. A build killed at any moment leaves nothing that
    could be opened; its remains are removed by the next build.

    Args:
        reader: the dataset.
        cameras: which, in which order; None for all.
        image_size: (height, width), or one number for both; None for the camera's own.
        resize: `stretch` or `pad`, as `menura.processing.images.resize_images` says.
        cache_dir: where stores are kept; None for `$MENURA_CACHE`, else `~/.cache/menura`.
        budget_bytes: what the frames may take on the disk. Raw if they fit, else JPEG if that fits, else straight
            from the source.
        num_workers: processes that decode; None for one a core.
        progress: show a progress bar on stderr.
        mode: `raw`, `jpeg` or `video` to choose whatever the budget; `auto` to let the budget choose; `stream` is
            `video`, for those who mean to draw in a `ShardOrder`.
        image_encoder: a frozen model; its features are stored instead of frames.
        encoder_fingerprint: a digest of the encoder's weights and code.
        ray: build it on the Ray cluster that is there (`$RAY_ADDRESS`, or one of `ray start`), else on one of this
            machine's cores, instead of processes. Its machines share the source and `cache_dir`.

    Raises:
        DataError: the dataset contradicts itself, or the cache cannot be written or has no room.
    """
    plan = _plan(reader, cameras, image_size, resize, mode, budget_bytes, image_encoder)
    if (image_encoder is None) != (encoder_fingerprint is None):
        raise DataError("image_encoder: expected it with its encoder_fingerprint, got one of the two. Give both.")
    cache = _cache_directory(cache_dir)
    directory = cache / _key(reader, plan, encoder_fingerprint)
    if not directory.exists():
        _build(directory, reader, plan, image_encoder, num_workers, progress, ray)
    return Store(directory, reader.name, reader if plan.mode == "video" else None)


def _plan(
    reader: Reader,
    cameras: Sequence[str] | None,
    image_size: tuple[int, int] | int | None,
    resize: Resize,
    mode: str,
    budget_bytes: float,
    image_encoder: ImageEncoder | None,
) -> Plan:
    if mode not in MODES:
        raise DataError(f"store: expected one of {', '.join(MODES)}, got {mode!r}{did_you_mean(mode, MODES) or '.'}")
    if resize not in ("stretch", "pad"):
        raise DataError(f"resize: expected stretch or pad, got {resize!r}.")
    lengths = np.asarray(reader.lengths(), np.int64)
    if not len(lengths):
        raise DataError(f"Dataset {reader.name!r}: expected episodes, got none. Record or fetch some.")
    chosen = _choose_cameras(reader, cameras, image_size)
    frame_bytes = sum(3 * camera.height * camera.width for camera in chosen.values())
    raw_bytes = frame_bytes * int(lengths.sum())
    if mode == "stream":
        mode = "video"
    if mode == "auto":
        mode = "raw" if raw_bytes <= budget_bytes else "jpeg" if raw_bytes / JPEG_SHRINKS <= budget_bytes else "video"
    return Plan(
        lengths=lengths,
        features=replace(reader.features, cameras=chosen),
        mode=mode,
        resize=resize if image_size is not None else None,
        source=reader.fingerprint(),
        feature_dim=None if image_encoder is None else image_encoder.feature_dim * len(chosen),
    )


def _choose_cameras(
    reader: Reader, cameras: Sequence[str] | None, image_size: tuple[int, int] | int | None
) -> dict[str, CameraFeature]:
    """The wanted cameras, in order, at the wanted size."""
    known = reader.features.cameras
    names = list(known if cameras is None else cameras)
    for camera in names:
        if camera not in known:
            near = did_you_mean(camera, known) or "."
            raise DataError(f"Dataset {reader.name!r}: expected a camera of {list(known)}, got {camera!r}{near}")
    if len(set(names)) < len(names):
        raise DataError(f"Dataset {reader.name!r}: expected each camera once, got {names}.")
    if image_size is None:
        return {camera: known[camera] for camera in names}
    height, width = (image_size, image_size) if isinstance(image_size, int) else image_size
    if height <= 0 or width <= 0:
        raise DataError(f"image_size: expected (height, width) > 0, got {image_size}.")
    return {camera: replace(known[camera], height=height, width=width) for camera in names}


def _key(reader: Reader, plan: Plan, encoder_fingerprint: str | None) -> str:
    shape = {
        "version": VERSION,
        "reader": type(reader).__qualname__,
        "source": plan.source,
        "features": plan.features.to_dict(),
        "mode": plan.mode,
        "resize": plan.resize,
        "encoder": encoder_fingerprint,
    }
    return hashlib.sha256(json.dumps(shape).encode()).hexdigest()[:32]


def _cache_directory(cache_dir: str | Path | None) -> Path:
    directory = cache_root(cache_dir) / "store"
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _unwritable(directory, error) from error
    return directory


def _unwritable(directory: Path, error: OSError) -> DataError:
    return DataError(
        f"Store {directory}: expected a directory that can be written, got {error.strerror}. "
        "Set MENURA_CACHE or data.cache_dir to another one."
    )


def _build(
    directory: Path,
    reader: Reader,
    plan: Plan,
    image_encoder: ImageEncoder | None,
    num_workers: int | None,
    progress: bool,
    ray: bool,
) -> None:
    try:
        with _locked(directory, reader.name, progress):
            if directory.exists():  # another process was quicker
                return
            _remove_remains(directory)
            _require_room(directory.parent, reader.name, plan)
            with new_directory(directory) as temporary:
                write_store(temporary, reader, plan, image_encoder, num_workers, progress, ray)
                if reader.fingerprint() != plan.source:
                    raise DataError(
                        f"Dataset {reader.name!r}: expected no change while it was read, got one. Try again."
                    )
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        ours = error.filename is not None and Path(error.filename).is_relative_to(directory.parent)
        if not full and not ours:  # the reader's own trouble with its files
            raise
        raise _unwritable(directory.parent, error) from error


def _lock(directory: Path) -> FileLock:
    return FileLock(directory.with_suffix(".lock"))


@contextmanager
def _locked(directory: Path, name: str, progress: bool) -> Iterator[None]:
    lock = _lock(directory)
    try:
        held = lock.acquire(timeout=0)
    except Timeout:
        Console(stderr=True, quiet=not progress).print(f"Another process builds the store of {name}; waiting for it.")
        held = lock.acquire()
    with held:
        yield


def _remove_remains(directory: Path) -> None:
    """Remove what killed builds left: temporary directories whose lock is ours, or nobody's."""
    for remains in directory.parent.glob(f"{TEMPORARY}*"):
        key = remains.name.removeprefix(TEMPORARY).split("-")[0]
        try:
            with nullcontext() if key == directory.name else _lock(directory.with_name(key)).acquire(timeout=0):
                shutil.rmtree(remains)
        except Timeout:
            continue


def _require_room(cache: Path, name: str, plan: Plan) -> None:
    needed, free = plan.disk_bytes(JPEG_SHRINKS), shutil.disk_usage(cache).free
    if needed > free:
        raise DataError(
            f"Store of {name!r} in {cache}: expected {needed / 1e9:.2f} GB free, got {free / 1e9:.2f} GB. Make room, "
            "set MENURA_CACHE or data.cache_dir to another disk, or lower data.store_budget_gb."
        )
