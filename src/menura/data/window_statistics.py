"""What the statistics of windows are made of: every row, or every action of every chunk, as it is delivered.

Shapes: D state, A action, T chunk; with a prime as trained.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from menura.data.gathering import clip_to_episode
from menura.errors import DataError
from menura.processing.spaces import Floats

if TYPE_CHECKING:
    from menura.data.windows import Windows

Int64 = NDArray[np.int64]
# Chosen rows that are read together; and items whose chunks are.
_BLOCK = 65536
_CHUNKS = 16384
# From so many actions on, which take some seconds, a bar is shown.
_MANY = 5_000_000


def delivered(items: Windows, name: str) -> Generator[Floats, None, None]:
    """(n, D') or (n, A') `state` or `action` of all items, in parts.

    Of relative and delta actions: every action of every chunk that is no padding.

    Raises:
        DataError: numbers that are no rotation; it names the dataset, the episode and the frame.
    """
    spaces = items.spaces
    if name == "action" and spaces.needs_state:
        yield from _differences(items)
        return
    state, action = np.asarray(items.store.state), np.asarray(items.store.action)
    for rows in _blocks(items):
        numbers = range(rows.start, rows.stop) if isinstance(rows, slice) else rows
        if name == "state":
            yield _encoded(items, numbers, spaces.encode_state, state[rows])
        else:
            yield _encoded(items, numbers, spaces.encode_actions, action[rows], state[rows])


def _blocks(items: Windows) -> Iterator[slice | Int64]:
    """The rows of all items: neighbouring episodes joined, or so many rows at a time where they are chosen."""
    if items.rows is not None:
        yield from (items.rows[start : start + _BLOCK] for start in range(0, len(items.rows), _BLOCK))
        return
    used, starts = np.sort(items.episodes), items.store.starts
    for run in np.split(used, np.flatnonzero(np.diff(used) > 1) + 1):
        yield slice(int(starts[run[0]]), int(starts[run[-1] + 1]))


def _differences(items: Windows) -> Iterator[Floats]:
    """(n, A') every action of every chunk that is no padding: of many items, one place of the chunk at a time."""
    spaces, state, action = items.spaces, np.asarray(items.store.state), np.asarray(items.store.action)
    offsets = np.zeros(1, np.int64) if items.action_offsets is None else items.action_offsets
    for numbers in _with_progress(items, len(offsets)):
        rows, first, last, _ = items.locate(numbers)
        acted, padded = clip_to_episode(rows, offsets, first, last)  # (n, T)
        reference = _encoded(items, rows, spaces.reference, state.take(rows, axis=0))  # (n, A)
        for place in range(len(offsets)):
            real = ~padded[:, place]
            now, before = acted[real, place], reference[real]
            if place and spaces.action_type == "delta":
                before = action.take(acted[real, place - 1], axis=0)
            yield _encoded(items, now, spaces.encode_step, action.take(now, axis=0), before)


def _with_progress(items: Windows, chunk: int) -> Iterator[Int64]:
    """The numbers of all items, some thousand at a time, with a bar on stderr where there is much to do."""
    columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
    few = len(items) * chunk < _MANY
    with Progress(*columns, console=Console(stderr=True), disable=few, transient=True) as bar:
        shown = bar.add_task(f"Statistics of the actions of {items.name}", total=len(items))
        for start in range(0, len(items), _CHUNKS):
            numbers = np.arange(start, min(start + _CHUNKS, len(items)))
            yield numbers
            bar.advance(shown, len(numbers))


def _encoded(items: Windows, rows: Sequence[int] | Int64, encode: Callable[..., Floats], *tables: Floats) -> Floats:
    """`encode` of tables whose rows (n, …) are these of the store; where it refuses one, an error that says which."""
    try:
        return encode(*tables)
    except DataError:
        refused = _first_refused(encode, tables)
    row = int(rows[refused])
    episode = int(items.store.starts.searchsorted(row, side="right")) - 1
    frame = row - int(items.store.starts[episode])
    try:
        return encode(*(table[refused : refused + 1] for table in tables))
    except DataError as error:
        raise DataError(
            f"Dataset {items.name!r}, episode {episode}, frame {frame}: {error} Mend or leave out that episode."
        ) from error


def _first_refused(encode: Callable[..., Floats], tables: Sequence[Floats]) -> int:
    """The first row that `encode` refuses, of which there is one: by halves."""
    low, high = 0, len(tables[0])  # all before `low` are taken, one before `high` is not
    while high - low > 1:
        middle = (low + high) // 2
        try:
            encode(*(table[low:middle] for table in tables))
            low = middle
        except DataError:
            high = middle
    return low
