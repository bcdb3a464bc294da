"""Batches of data that does not fit a disk, one after the other."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from torch.utils.data import IterableDataset, get_worker_info

from menura.data.shard_order import ShardOrder
from menura.data.windows import Batch, Windows


class Stream(IterableDataset[Batch]):
    """The batches of one epoch in a `ShardOrder`, for a loop of one's own; `menura train` uses the order itself.

    In a `DataLoader` (with `batch_size=None`) each worker delivers its own batches, from files of its own, and
    together they come in the order of the stream. Each batch is what `Windows.__getitems__` gives.

    Args:
        windows: over a dataset opened with `store="stream"`.
        batch_size: items of a batch; incomplete ones are left out.
        seed, buffer, rank, world_size: as of `ShardOrder`.
    """

    def __init__(
        self,
        windows: Windows,
        batch_size: int,
        *,
        seed: int = 0,
        buffer: int = 16384,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self.windows = windows
        self.batch_size = batch_size
        self._options = {"seed": seed, "buffer": buffer, "rank": rank, "world_size": world_size}
        self._epoch = self._delivered = 0

    def state_dict(self, delivered: int = 0) -> dict[str, int]:
        """Where the stream stands after `delivered` batches of this epoch: `load_state_dict` goes on there."""
        return {"epoch": self._epoch, "delivered": self._delivered + delivered}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self._epoch, self._delivered = state["epoch"], state["delivered"]

    def set_epoch(self, epoch: int) -> None:
        """Deliver that epoch next, from its start."""
        self._epoch, self._delivered = epoch, 0

    def __iter__(self) -> Iterator[Batch]:
        worker = get_worker_info()
        number, workers = (0, 1) if worker is None else (worker.id, worker.num_workers)
        order = ShardOrder(self.windows, self.batch_size, streams=workers, **self._options)
        order.set_epoch(self._epoch)
        batches = len(order) // self.batch_size
        for batch in range(self._delivered + number, batches, workers):
            positions = np.arange(batch * self.batch_size, (batch + 1) * self.batch_size)
            yield self.windows.__getitems__(order.items(positions))
