"""An order of samples for data that is fetched file by file: random, and yet never far from one file to the next."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Sampler

from menura.data.permutation import permute
from menura.data.windows import Windows
from menura.errors import DataError

Int64 = NDArray[np.int64]


class ShardOrder(Sampler[int]):
    """Every item of windows about once an epoch, shard by shard, shuffled within a buffer.

    Shards (the files that episodes share) come in a random order, and so do the episodes of each. This line of frames
    is cut into equal pieces, one for each rank and stream. A stream takes so many frames of its piece at a time as the
    buffer holds and draws them in a random order: what is in use at any time lies in few files. Batch b of a rank comes
    from stream b modulo `streams`, which is how a `DataLoader` deals batches to its workers: each reads files of its
    own.

    All of it is computed from (seed, epoch, rank), so that an epoch is resumed at any place by saying where.

    Args:
        windows: what is drawn from.
        batch_size: items of a batch.
        seed: of every epoch's order.
        buffer: frames that are shuffled together, ≥ 1.
        streams: workers that read, ≥ 1.
        rank: this process's number.
        world_size: how many processes. What does not divide among ranks and streams is left out, others each epoch.
    """

    def __init__(
        self,
        windows: Windows,
        batch_size: int,
        *,
        seed: int,
        buffer: int = 16384,
        streams: int = 1,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        if not 0 <= rank < world_size:
            raise DataError(f"ShardOrder.rank: expected 0 … {world_size - 1}, got {rank}.")
        if seed < 0 or buffer < 1 or batch_size < 1 or streams < 1:
            raise DataError(
                "ShardOrder: expected seed ≥ 0 and batch_size, buffer and streams ≥ 1, got "
                f"{seed}, {batch_size}, {buffer} and {streams}."
            )
        self._lengths: Int64 = windows.lengths
        self._firsts: Int64 = np.cumsum(self._lengths) - self._lengths  # the first item of each episode
        self._shards: Int64 = windows.store.shards()[windows.episodes]
        self._piece = len(windows) // world_size  # items of a rank
        if not self._piece:
            raise DataError(f"ShardOrder: expected at least {world_size} items, one a rank, got {len(windows)}.")
        # A stream that could not fill a batch has nothing to read.
        self._streams = max(1, min(streams, self._piece // batch_size))
        self._batch_size = batch_size
        whole = self._piece // self._streams
        self._of_stream = whole if self._streams == 1 else whole // batch_size * batch_size
        self._seed, self._rank, self._buffer = seed, rank, buffer
        self._drawn_line: tuple[int, Int64, Int64] | None = None  # of which epoch
        self.epoch = 0
        self.start_index = 0

    def __len__(self) -> int:
        """Items of this rank in a whole epoch, wherever it is resumed."""
        return self._of_stream * self._streams

    def set_epoch(self, epoch: int) -> None:
        """Take the order of `epoch`. Another epoch than the present one begins at its start."""
        if epoch != self.epoch:
            self.epoch, self.start_index = epoch, 0

    def state_dict(self) -> dict[str, int]:
        return {"epoch": self.epoch, "start_index": self.start_index}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on in `epoch` after `start_index` items of this rank."""
        self.epoch, self.start_index = state["epoch"], state["start_index"]

    def __iter__(self) -> Iterator[int]:
        for start in range(self.start_index, len(self), self._batch_size):
            batch = np.arange(start, min(start + self._batch_size, len(self)))
            yield from self.items(batch).tolist()

    def items(self, positions: Int64) -> Int64:
        """(n,) the items at these positions of this rank in the present epoch."""
        batches, within = np.divmod(positions, self._batch_size)
        rounds, streams = np.divmod(batches, self._streams)
        in_stream = rounds * self._batch_size + within
        blocks, offsets = np.divmod(in_stream, self._buffer)
        drawn = np.empty_like(positions)
        for stream, block in sorted(set(zip(streams.tolist(), blocks.tolist(), strict=True))):
            chosen = (streams == stream) & (blocks == block)
            first = block * self._buffer
            size = min(self._buffer, self._of_stream - first)
            key = (self._seed, self.epoch, self._rank, stream, block)
            drawn[chosen] = stream * self._of_stream + first + permute(offsets[chosen], size, key)
        frames = self._rank * self._piece + drawn  # along the line
        line, ends = self._line()
        places = ends.searchsorted(frames, side="right")
        episodes = line[places]
        items: Int64 = self._firsts[episodes] + frames - (ends[places] - self._lengths[episodes])
        return items

    def _line(self) -> tuple[Int64, Int64]:
        """(E,) the places of the episodes in this epoch's order, shard by shard, and (E,) the frames up to each end."""
        if self._drawn_line is None or self._drawn_line[0] != self.epoch:
            rng = np.random.default_rng((self._seed, self.epoch))
            ids, of_shard = np.unique(self._shards, return_inverse=True)
            shard_places, episode_places = rng.permutation(len(ids)), rng.random(len(self._shards))
            line = np.lexsort((episode_places, shard_places[of_shard]))
            self._drawn_line = (self.epoch, line, np.cumsum(self._lengths[line]))
        return self._drawn_line[1:]
