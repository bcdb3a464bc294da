"""The order of samples: a pure function of (seed, epoch, rank)."""

from __future__ import annotations

from collections.abc import Iterator, Sized

import numpy as np
from torch.utils.data import Sampler

from menura.data.mixture import Mixture
from menura.data.permutation import permute
from menura.errors import DataError

# Indices that are computed together.
_BLOCK = 4096


class EpochSampler(Sampler[int]):
    """Every item of a dataset once an epoch, in a random order that takes no memory, shared by the ranks.

    Rank r of W takes positions r, r + W, r + 2W, … of one order, so no two ranks see the same item. The order depends
    on the seed and the epoch alone, so an epoch is resumed at any place by saying where.

    Args:
        dataset: anything with a length; a `Mixture` is drawn anew each epoch.
        seed: of every epoch's order.
        rank: this process's number.
        world_size: how many processes.
        drop_last: leave out what does not divide among the ranks (fewer than `world_size` items, others each epoch), so
            that all have equally many; else some ranks have one more.
    """

    def __init__(
        self, dataset: Sized, *, seed: int, rank: int = 0, world_size: int = 1, drop_last: bool = True
    ) -> None:
        if not 0 <= rank < world_size:
            raise DataError(f"EpochSampler.rank: expected 0 … {world_size - 1}, got {rank}.")
        if len(dataset) < world_size:
            raise DataError(f"EpochSampler: expected at least {world_size} items, one a rank, got {len(dataset)}.")
        if seed < 0:
            raise DataError(f"EpochSampler.seed: expected a whole number ≥ 0, got {seed}.")
        self._size = len(dataset)
        self._draws = isinstance(dataset, Mixture)
        self._seed = seed
        self._rank = rank
        self._world_size = world_size
        left_over = 0 if drop_last else self._size % world_size
        self._length = self._size // world_size + (rank < left_over)
        self.epoch = 0
        self.start_index = 0

    def __len__(self) -> int:
        """Items of this rank in a whole epoch, wherever it is resumed."""
        return self._length

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
        base = self.epoch * self._size if self._draws else 0
        for start in range(self.start_index, self._length, _BLOCK):
            mine = np.arange(start, min(start + _BLOCK, self._length))
            order = permute(self._rank + mine * self._world_size, self._size, (self._seed, self.epoch))
            yield from (base + order).tolist()
