"""Windows: a dataset as batches of observations and action chunks, gathered by integer frame from the store.

Shapes: B batch, O observation steps, T chunk, K cameras, H W pixels, D state, A action, N frames, E episodes.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Dataset

from menura.data.episode import UInt8
from menura.data.frames import LazyFrames
from menura.data.gathering import Bool, MappedTable, chunks, clip_to_episode
from menura.data.opening import open_dataset
from menura.data.statistics import Statistics, StatisticsBuilder
from menura.data.store import BUDGET_BYTES, Store, build_store
from menura.data.store_plan import ImageEncoder
from menura.data.window_statistics import delivered
from menura.errors import DataError
from menura.features import Features
from menura.files import read_json, write_json
from menura.processing.images import Resize
from menura.processing.spaces import Spaces

if TYPE_CHECKING:
    from menura.data.selection import Filter

Int64 = NDArray[np.int64]
Batch = dict[str, Any]


class Windows(Dataset[Batch]):
    """A map-style dataset with one item a frame: the observation there and the actions that follow.

    `windows[i]` is one item, `windows.__getitems__(indices)` a batch (B first), which is what a `DataLoader` asks for:

    ==================== =============================== =========================================================
    key                  shape of an item                what
    ==================== =============================== =========================================================
    state                ([O,] D) float32                absent where the dataset has none
    image                ([O,] K, H, W, 3) uint8         a dict camera -> ([O,] H, W, 3) where sizes differ
    image_features       ([O,] F) float32                instead of `image`, with an image encoder
    observation_is_pad   (O,) bool                       before the start or past the end; only with a time axis
    actions              (T, A) float32, or (A,)         (A,) when `action_offsets` is None
    is_pad               (T,) bool, or ()                before the start or past the end
    task                 str                             a list in a batch
    timestep             () int64                        the frame's number in its episode
    dataset_id           () int64                        the part's number in a mixture, else 0
    ==================== =============================== =========================================================

    O is there when there are two observation offsets or more. Where a window leaves its episode, the nearest frame is
    repeated.

    Args:
        store: where the rows are.
        observation_offsets: frames of the observations, relative to the item's.
        action_offsets: frames of the chunk; None for the item's own action without a time axis.
        episodes: numbers of the episodes to use, in order; None for all.
        rows: the rows of the store where windows begin, in order; None for every row of the episodes. What follows a
            row in its episode is part of its window, whether it is among these or not.
        identity: a digest of how episodes and rows were chosen, part of the fingerprint; empty when all were taken.
        spaces: what is delivered instead of the states and actions recorded; None for those.

    Attributes:
        lengths: (E,) int64 items of each episode used: its frames, or those of its rows that are taken.
    """

    dataset_id = 0

    def __init__(
        self,
        store: Store,
        observation_offsets: Sequence[int] | Int64 = (0,),
        action_offsets: Sequence[int] | Int64 | None = (0,),
        *,
        episodes: Sequence[int] | Int64 | None = None,
        rows: Int64 | None = None,
        identity: str = "",
        spaces: Spaces | None = None,
    ) -> None:
        self.store = store
        self.spaces = Spaces(store.features) if spaces is None else spaces
        self.identity = identity
        self.observation_offsets = _offsets("observation_offsets", observation_offsets)
        self._observes_itself = self.observation_offsets.tolist() == [0]
        self.action_offsets = None if action_offsets is None else _offsets("action_offsets", action_offsets)
        self.episodes: Int64 = _episodes(episodes, len(store.starts) - 1)
        starts: Int64 = np.asarray(store.starts)
        frames: Int64 = (starts[1:] - starts[:-1])[self.episodes]
        self.rows: Int64 | None = None
        self.lengths: Int64 = frames
        if rows is not None:
            self.rows, self.lengths = _of_episodes(rows, starts, self.episodes)
        # Of each episode used: one past its last item; its first row in the store, its last, and what an item's number
        # is short of its row; its instruction. In few tables, for a batch takes hardly longer than some calls of numpy.
        self._ends = np.cumsum(self.lengths).astype(np.uint64)
        firsts: Int64 = starts[self.episodes]
        lasts: Int64 = firsts + frames - 1
        self._bounds: Int64 = np.stack([firsts, lasts, lasts + 1 - np.cumsum(self.lengths)], axis=1)
        self._tasks = np.array(store.tasks, object)[np.asarray(store.task_index)[self.episodes]]
        # The tables as plain arrays: every slice of a np.memmap pays for its subclass.
        self._state, self._action = np.asarray(store.state), np.asarray(store.action)
        self._chunks = None if self.action_offsets is None else chunks(self._action, self.action_offsets, firsts, lasts)
        self._image_features = None if store.image_features is None else np.asarray(store.image_features)
        self._stacked = None if store.stacked is None else MappedTable(store.stacked)

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.store, self.observation_offsets, self.action_offsets, self.options())

    def options(self) -> dict[str, Any]:
        """The keyword arguments that make these windows again."""
        return {"episodes": self.episodes, "rows": self.rows, "identity": self.identity, "spaces": self.spaces}

    @property
    def name(self) -> str:
        return self.store.name

    @property
    def fingerprint(self) -> str:
        """A digest of the source's content and of how the items were chosen from it."""
        if not self.identity:
            return self.store.fingerprint
        return hashlib.sha256(f"{self.store.fingerprint} {self.identity}".encode()).hexdigest()

    @property
    def features(self) -> Features:
        """What the items mean; the cameras at the size delivered, in the order of K."""
        trained = self.spaces.trained
        return replace(
            self.store.features, state=trained.state, action=trained.action, control_type=trained.control_type
        )

    @property
    def fps(self) -> float:
        return self.store.features.fps

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __getitem__(self, index: int) -> Batch:
        return {key: _first(value) for key, value in self.__getitems__([index]).items()}

    def __getitems__(self, indices: Sequence[int] | Int64) -> Batch:
        """The items at `indices` as one batch of freshly made arrays.

        Raises:
            IndexError: an index below 0 or not below `len(self)`.
        """
        rows, first, last, used = self.locate(indices)
        observed, observed_pad = self._observed(rows, first, last)
        batch: Batch = {}
        if self._state.shape[1]:
            batch["state"] = self.spaces.encode_state(self._state.take(observed, axis=0))
        if self._image_features is not None:
            batch["image_features"] = self._image_features.take(observed, axis=0)
        elif self.store.images:
            batch["image"] = self._gather_images(observed)
        if observed_pad is not None:
            batch["observation_is_pad"] = observed_pad
        if self._chunks is None:
            batch["actions"], batch["is_pad"] = self._action.take(rows, axis=0), np.zeros(len(rows), bool)
        else:
            batch["actions"], batch["is_pad"] = self._chunks.take(rows, used)
        if self.spaces.encodes_actions:
            batch["actions"] = self.spaces.encode_actions(batch["actions"], self._state.take(rows, axis=0))
        batch["task"] = self._tasks.take(used).tolist()
        batch["timestep"] = rows - first
        batch["dataset_id"] = np.empty(len(rows), np.int64)
        batch["dataset_id"].fill(self.dataset_id)
        return batch

    def episode_of(self, index: int) -> int:
        """The number, in the dataset, of the episode that item `index` lies in."""
        return int(self.episodes[self.locate([index])[3][0]])

    def split(self, validation: float | Sequence[int], seed: int = 0) -> tuple[Windows, Windows]:
        """(training, validation) windows of whole episodes.

        Args:
            validation: the share of episodes, between 0 and 1, drawn at random; or the numbers of the episodes.
            seed: of the draw.
        """
        if isinstance(validation, (int, float)):
            count = round(validation * len(self.episodes))
            if not 0 < count < len(self.episodes):
                raise DataError(
                    f"split of {self.name!r}: expected a share that leaves episodes on both sides of "
                    f"{len(self.episodes)}, got {validation}. Choose another share or give the episodes."
                )
            chosen = np.random.default_rng(seed).permutation(self.episodes)[:count]
        else:
            chosen = _episodes(validation, len(self.store.starts) - 1)
        held_out = np.isin(self.episodes, chosen)
        return self._of(self.episodes[~held_out]), self._of(self.episodes[held_out])

    def restricted(self, episodes: Int64, rows: Int64 | None, identity: str) -> Windows:
        """Windows that begin at some of the rows of some of the episodes; `identity` says how they were chosen."""
        options = {**self.options(), "episodes": episodes, "rows": rows, "identity": identity}
        return type(self)(self.store, self.observation_offsets, self.action_offsets, **options)

    def shapes(self) -> dict[str, Any]:
        """What must be equal for two datasets to share a batch."""
        return {
            "observation_offsets": self.observation_offsets.tolist(),
            "action_offsets": None if self.action_offsets is None else self.action_offsets.tolist(),
            "state width": self.spaces.trained.state_dim,
            "action width": self.spaces.trained.action_dim,
            "cameras": [(camera, *frames.shape[1:3]) for camera, frames in self.store.images.items()],
            "image_features width": None if self._image_features is None else self._image_features.shape[1],
        }

    def statistics(self) -> dict[str, Statistics]:
        """Exact statistics of `state` (absent where there is none) and `action` as they are delivered.

        Over the items' frames, each once. Of relative and delta actions: over every action of every item's chunk that
        is no padding. Computed when first asked for and kept in the store's directory.
        """
        tables = {"state": self._state, "action": self._action}
        return {name: self._statistics(name) for name, table in tables.items() if table.shape[1]}

    def _statistics(self, name: str) -> Statistics:
        chosen = self.episodes.tobytes() + (b"" if self.rows is None else self.rows.tobytes())
        if self.spaces.trained != self.spaces.features:
            offsets = None if self.action_offsets is None else self.action_offsets.tolist()
            chosen += f"{self.spaces.key} {offsets}".encode()
        digest = hashlib.sha256(chosen).hexdigest()[:16]
        kept = self.store.directory / f"statistics.{name}.{digest}.json"
        if kept.exists():
            return Statistics.from_dict(read_json(kept, DataError))
        feature = self.spaces.trained.state if name == "state" else self.spaces.trained.action
        builder = StatisticsBuilder(feature=f"{name} of {self.name!r}", names=feature.names if feature else None)
        with closing(delivered(self, name)) as parts:  # so that an error here ends its bar
            for rows in parts:
                builder.update(rows)
        statistics = builder.result()
        if os.access(self.store.directory, os.W_OK):  # a store shared by others may be for reading only
            write_json(kept, statistics.to_dict())
        return statistics

    def locate(self, indices: Sequence[int] | Int64) -> tuple[Int64, Int64, Int64, Int64]:
        """(B,) each: the item's row in the store, the first and last row of its episode, its place in `episodes`."""
        items = np.asarray(indices, np.int64)
        # Read as a number without a sign, one below 0 is beyond any end, too.
        used = self._ends.searchsorted(items.view(np.uint64), side="right")
        try:
            first, last, short = self._bounds.take(used, axis=0).T
        except IndexError:
            raise IndexError(
                f"windows of {self.name!r}: expected indices 0 … {len(self) - 1}, got {indices}."
            ) from None
        return items + short if self.rows is None else self.rows.take(items), first, last, used

    def _observed(self, rows: Int64, first: Int64, last: Int64) -> tuple[Int64, Bool | None]:
        """(B, O) rows of the observations and whether each is a repetition; (B,) and None where it is one an item."""
        if self._observes_itself:
            return rows, None
        observed, padded = clip_to_episode(rows, self.observation_offsets, first, last)
        return (observed, padded) if len(self.observation_offsets) > 1 else (observed[:, 0], None)

    def _gather_images(self, rows: Int64) -> UInt8 | dict[str, UInt8]:
        """(*rows.shape, K, H, W, 3), or camera -> (*rows.shape, H, W, 3) where sizes differ."""
        if self._stacked is not None:
            return self._stacked.take(rows)
        flat, store = rows.ravel(), self.store.images
        sizes = {frames.shape[1:] for frames in store.values()}
        if len(sizes) > 1:
            return {
                camera: np.asarray(frames[flat]).reshape(*rows.shape, *frames.shape[1:])
                for camera, frames in store.items()
            }
        stacked = np.empty((len(flat), len(store), *sizes.pop()), np.uint8)
        for place, frames in enumerate(store.values()):
            if isinstance(frames, LazyFrames):
                frames.read_into(stacked[:, place], flat)
            else:
                stacked[:, place] = frames[flat]
        return stacked.reshape(*rows.shape, *stacked.shape[1:])

    def _of(self, episodes: Int64) -> Windows:
        options = {**self.options(), "episodes": episodes}
        return type(self)(self.store, self.observation_offsets, self.action_offsets, **options)


def windows(
    dataset: object,
    observation_offsets: Sequence[int] = (0,),
    action_offsets: Sequence[int] | None = (0,),
    *,
    filter: Filter | Mapping[str, Any] | None = None,
    cameras: Sequence[str] | None = None,
    image_size: tuple[int, int] | int | None = None,
    resize: Resize = "stretch",
    cache_dir: str | Path | None = None,
    store: str = "auto",
    budget_bytes: float = BUDGET_BYTES,
    num_workers: int | None = None,
    progress: bool = True,
    image_encoder: ImageEncoder | None = None,
    encoder_fingerprint: str | None = None,
    spaces: Spaces | None = None,
    ray: bool = False,
) -> Windows:
    """Windows over a dataset; its store is built first where it is not there yet.

    Args:
        dataset: a path, a spec, a reader, or any object with `__len__` and `episode(i)`: what `open_dataset` takes.
        observation_offsets: frames of the observations, relative to the item's; `(-1, 0)` gives two steps.
        action_offsets: frames of the chunk; None for one action without a time axis.
        filter: which episodes and frames are used, as `menura.data.selection.Filter` says; that of a spec when None.
        cameras, image_size, resize, cache_dir, budget_bytes, num_workers, progress, image_encoder,
            encoder_fingerprint, ray: as `build_store` says.
        store: its mode: `auto`, `raw`, `jpeg`, `video` or `stream`.
        spaces: as `Windows` says.
    """
    from menura.data.selection import Filter, select  # which knows of windows, too

    if isinstance(dataset, Mapping):
        filter = filter or dataset.get("filter")
        dataset = {**dataset, "filter": None}  # it chooses items, so that the store can be shared
    chosen = Filter.of(filter)  # refused before a store is built
    built = build_store(
        open_dataset(dataset),
        cameras=cameras,
        image_size=image_size,
        resize=resize,
        cache_dir=cache_dir,
        budget_bytes=budget_bytes,
        num_workers=num_workers,
        progress=progress,
        mode=store,
        image_encoder=image_encoder,
        encoder_fingerprint=encoder_fingerprint,
        ray=ray,
    )
    return select(Windows(built, observation_offsets, action_offsets, spaces=spaces), chosen)


def _first(value: Any) -> Any:
    return {key: part[0] for key, part in value.items()} if isinstance(value, Mapping) else value[0]


def _offsets(name: str, offsets: Sequence[int] | Int64) -> Int64:
    values = np.asarray(offsets)
    if values.ndim != 1 or not len(values) or values.dtype.kind not in "iu":
        raise DataError(f"{name}: expected one or more whole numbers of frames, got {offsets!r}. Time is in frames.")
    return values.astype(np.int64)


def _episodes(episodes: Sequence[int] | Int64 | None, count: int) -> Int64:
    chosen = np.arange(count) if episodes is None else np.asarray(episodes, np.int64)
    if not len(chosen) or not 0 <= chosen.min() <= chosen.max() < count or len(np.unique(chosen)) < len(chosen):
        raise DataError(f"episodes: expected one or more different numbers 0 … {count - 1}, got {episodes!r}.")
    return chosen


def _of_episodes(rows: Int64, starts: Int64, episodes: Int64) -> tuple[Int64, Int64]:
    """The rows that lie in these episodes, in the order of the episodes, and (E,) how many lie in each."""
    places = np.full(len(starts) - 1, -1)
    places[episodes] = np.arange(len(episodes))
    of_row = places[starts.searchsorted(rows, side="right") - 1]
    order = np.argsort(of_row, kind="stable")
    order = order[of_row[order] >= 0]
    return np.asarray(rows, np.int64)[order], np.bincount(of_row[order], minlength=len(episodes))


def _rebuild(
    cls: type[Windows], store: Store, observed: Int64, acted: Int64 | None, options: Mapping[str, Any]
) -> Windows:
    return cls(store, observed, acted, **options)
