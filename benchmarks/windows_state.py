"""Batches of state windows against slicing the same windows item by item in numpy. Prints one JSON line.

Episodes of 400 frames, 14 dimensions, chunks of 100 actions, batches of 64 from anywhere: a quarter of the windows goes
past the end of its episode. `ratio` is how many times faster `Windows.__getitems__` is; both give the same arrays.
`memcpy_ratio` is the time of one plain copy of as many bytes of the actions, which lie side by side, at another place
each time, into memory already there, over that of the windows, which are new arrays each time. Both are of 1,000
episodes, whose actions (22 MB) come from the memory as those of most datasets do; `small` is of 50, whose actions fit
the processor's second cache: a copy there is twice as fast, and what a dozen calls of numpy cost weighs more.

The ways take turns, some batches each, so that a busy machine hits all of them. A time is the median of their turns, in
processor time, which leaves out what others on the machine took between.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from itertools import cycle

os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np
from numpy.typing import NDArray

from menura.data import Episode, Windows, windows

BATCH = 64
CHUNK = 100
WIDTH = 14
FRAMES = 400
LARGE, SMALL = 1000, 50
# Batches of a turn, and before its clock starts: caches and allocator are then what they are when this way is used.
TURN, WARM = 40, 20


class Walks:
    """A user's dataset: random walks."""

    def __init__(self, episodes: int, frames: int) -> None:
        rng = np.random.default_rng(0)
        steps = rng.normal(size=(episodes, 2, frames, WIDTH)).astype(np.float32)
        self._walks = steps.cumsum(axis=2)

    def __len__(self) -> int:
        return len(self._walks)

    def episode(self, index: int) -> Episode:
        state, action = self._walks[index]
        return Episode(state=state, action=action, fps=50.0)


def item_by_item(data: Windows, indices: list[int]) -> dict[str, NDArray[np.float32] | NDArray[np.bool_]]:
    """Slice each window out of the tables, repeat the last action past the episode's end, stack."""
    store, items = data.store, []
    for index in indices:
        end = store.starts[np.searchsorted(store.starts, index, side="right")]
        actions = store.action[index : min(index + CHUNK, end)]
        missing = CHUNK - len(actions)
        if missing:
            actions = np.concatenate([actions, np.repeat(actions[-1:], missing, axis=0)])
        items.append((store.state[index], actions, np.arange(CHUNK) >= CHUNK - missing))
    state, chunks, is_pad = zip(*items, strict=True)
    return {"state": np.stack(state), "actions": np.stack(chunks), "is_pad": np.stack(is_pad)}


def check(data: Windows, indices: list[int]) -> None:
    """Both ways give the same arrays."""
    batch = data.__getitems__(indices)
    for key, value in item_by_item(data, indices).items():
        if not np.array_equal(batch[key], value):
            raise SystemExit(f"windows_state: expected equal {key} of both ways, got different ones.")


def turn(way: Callable[[], object]) -> float:
    """Microseconds a batch, over a turn."""
    for number in range(WARM + TURN):
        if number == WARM:
            start = time.process_time()
        kept = way()  # while the next one is made, as a loader does
    spent = time.process_time() - start
    del kept
    return 1e6 * spent / TURN


def measure(turns: int, episodes: int) -> dict[str, float]:
    """Median microseconds a batch of all ways, and their ratios."""
    with tempfile.TemporaryDirectory() as cache:
        data = windows(Walks(episodes, FRAMES), (0,), range(CHUNK), cache_dir=cache, progress=False)
        # Plain arrays are what a careful hand would slice: a np.memmap pays for its subclass at every slice.
        data.store.state, data.store.action = np.asarray(data.store.state), np.asarray(data.store.action)
        rng = np.random.default_rng(1)
        table = data.store.action.reshape(-1)
        target = np.zeros(BATCH * (CHUNK + 1) * WIDTH, np.float32)
        drawn = cycle(rng.integers(len(data), size=(500, BATCH)).tolist())
        places = cycle(rng.integers(len(table) - len(target), size=500).tolist())

        def copy() -> None:
            place = next(places)
            np.copyto(target, table[place : place + len(target)])

        ways: dict[str, Callable[[], object]] = {
            "windows_us": lambda: data.__getitems__(next(drawn)),
            "item_by_item_us": lambda: item_by_item(data, next(drawn)),
            "memcpy_us": copy,
        }
        check(data, next(drawn))
        times: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(turns):
            for name, way in ways.items():
                times[name].append(turn(way))
    medians = {name: round(statistics.median(values), 2) for name, values in times.items()}
    return {
        "ratio": round(medians["item_by_item_us"] / medians["windows_us"], 2),
        "memcpy_ratio": round(medians["memcpy_us"] / medians["windows_us"], 3),
        **medians,
    }


def run() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=120)
    turns = parser.parse_args().turns
    large, small = measure(turns, LARGE), measure(turns, SMALL)
    targets = {"target": 4, "memcpy_target": 0.5}
    print(json.dumps({"benchmark": "windows_state", **targets, **large, "small": small}))


if __name__ == "__main__":
    run()
