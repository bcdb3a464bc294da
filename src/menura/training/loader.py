"""Training batches in an order that is a function of (seed, epoch, rank) and of nothing else."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any, Protocol

import torch
from torch.utils.data import DataLoader, Dataset


class EpochOrder(Protocol):
    """An order of samples that can be asked for any epoch, as `menura.data.EpochSampler`."""

    def __len__(self) -> int: ...
    def __iter__(self) -> Iterator[int]: ...
    def set_epoch(self, epoch: int) -> None: ...


class EpochBatches:
    """The indices of each batch of an epoch, as lists of `batch_size` (the last may be shorter)."""

    def __init__(self, order: EpochOrder, batch_size: int, drop_last: bool) -> None:
        self.order = order
        self.batch_size = batch_size
        self.drop_last = drop_last

    def __len__(self) -> int:
        whole, rest = divmod(len(self.order), self.batch_size)
        return whole + (rest > 0 and not self.drop_last)

    def __iter__(self) -> Iterator[list[int]]:
        indices = iter(self.order)
        for _ in range(len(self)):
            yield list(islice(indices, self.batch_size))

    def set_epoch(self, epoch: int) -> None:
        self.order.set_epoch(epoch)


class EpochLoader(DataLoader):  # type: ignore[type-arg]
    """A DataLoader over whole gathered batches (`dataset.__getitems__`) that the Trainer can point at any epoch.

    It has a random generator of its own (torch draws the workers' seed from it), so that reading data never moves the
    generator that dropout draws from. The samples of a rank are chosen by `order`, so accelerate need not shard it.
    """

    def __init__(
        self,
        dataset: Dataset[Any],
        order: EpochOrder,
        *,
        batch_size: int,
        drop_last: bool,
        collate: Callable[[Any], Any],
        seed: int,
        **options: Any,
    ) -> None:
        self.epoch_batches = EpochBatches(order, batch_size, drop_last)
        super().__init__(
            dataset,
            batch_sampler=self.epoch_batches,
            collate_fn=collate,
            generator=torch.Generator().manual_seed(seed),
            **options,
        )

    def set_epoch(self, epoch: int) -> None:
        self.epoch_batches.set_epoch(epoch)
