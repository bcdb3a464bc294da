"""Batches of state windows against slicing the same windows item by item in numpy. Prints one JSON line.

50 episodes of 400 frames, 14 dimensions, chunks of 100 actions, batches of 64. `ratio` is how many times faster
`Windows.__getitems__` is; both give the same arrays. `memcpy_ratio` is the time of one plain copy of as many bytes of
the actions, which lie side by side, at another place each time, into memory already there, over that of the windows.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time

os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np
from numpy.typing import NDArray

from menura.data import Episode, Windows, windows

BATCH = 64
CHUNK = 100
WIDTH = 14


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


def measure(repeats: int, episodes: int = 50, frames: int = 400) -> dict[str, float]:
    """Median microseconds a batch of all ways, taken in turns, and their ratios."""
    with tempfile.TemporaryDirectory() as cache:
        data = windows(Walks(episodes, frames), (0,), range(CHUNK), cache_dir=cache, progress=False)
        # Plain arrays are what a careful hand would slice: a np.memmap pays for its subclass at every slice.
        data.store.state, data.store.action = np.asarray(data.store.state), np.asarray(data.store.action)
        rng = np.random.default_rng(1)
        times: dict[str, list[float]] = {"windows_us": [], "item_by_item_us": [], "memcpy_us": []}
        table = data.store.action.reshape(-1)
        target = np.zeros(BATCH * (CHUNK + 1) * WIDTH, np.float32)
        check(data, rng.integers(len(data), size=BATCH).tolist())
        for _ in range(repeats):
            indices = rng.integers(len(data), size=BATCH).tolist()
            place = int(rng.integers(len(table) - len(target)))
            start = time.perf_counter()
            data.__getitems__(indices)
            middle = time.perf_counter()
            item_by_item(data, indices)
            copied = time.perf_counter()
            np.copyto(target, table[place : place + len(target)])
            end = time.perf_counter()
            times["windows_us"].append(1e6 * (middle - start))
            times["item_by_item_us"].append(1e6 * (copied - middle))
            times["memcpy_us"].append(1e6 * (end - copied))
    medians = {name: round(statistics.median(values), 2) for name, values in times.items()}
    return {
        "ratio": round(medians["item_by_item_us"] / medians["windows_us"], 2),
        "memcpy_ratio": round(medians["memcpy_us"] / medians["windows_us"], 3),
        **medians,
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=2000)
    print(json.dumps({"benchmark": "windows_state", **measure(parser.parse_args().repeats)}))
