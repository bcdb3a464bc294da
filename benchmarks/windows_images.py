"""Batches of image windows from the warm store against one plain copy of as many bytes of it. Prints one JSON line.

20 episodes of 200 frames, two cameras of 84 x 84, batches of 64 from anywhere. The copy takes 64 frames that lie side
by side, at another place each time, into memory that is already there. `ratio` is the time of the copy over the time
of `Windows.__getitems__`: 1 is the speed of the memory, and what is missing is all that Menura adds.
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

from menura.data import Episode, windows

BATCH = 64
SIZE = 84
CAMERAS = ("top", "wrist")


class Noise:
    """A user's dataset: random pictures."""

    def __init__(self, episodes: int, frames: int) -> None:
        self._episodes, self._frames = episodes, frames

    def __len__(self) -> int:
        return self._episodes

    def episode(self, index: int) -> Episode:
        rng = np.random.default_rng(index)
        images = {name: rng.integers(256, size=(self._frames, SIZE, SIZE, 3), dtype=np.uint8) for name in CAMERAS}
        state = rng.normal(size=(self._frames, 14)).astype(np.float32)
        return Episode(state=state, action=state, images=images, fps=50.0)


def measure(repeats: int, episodes: int = 20, frames: int = 200) -> dict[str, float]:
    """Median microseconds a batch of both, taken in turns, and their ratio."""
    with tempfile.TemporaryDirectory() as cache:
        data = windows(Noise(episodes, frames), cache_dir=cache, progress=False, num_workers=0)
        for start in range(0, len(data), BATCH):  # warm
            batch = data.__getitems__(range(start, min(start + BATCH, len(data))))
        frames = np.asarray(data.store.stacked)
        target = np.zeros_like(frames[:BATCH])
        rng = np.random.default_rng(1)
        times: dict[str, list[float]] = {"windows_us": [], "memcpy_us": []}
        for _ in range(repeats):
            indices = rng.integers(len(data), size=BATCH).tolist()
            start_s = time.perf_counter()
            batch = data.__getitems__(indices)
            middle = time.perf_counter()
            np.copyto(target, frames[indices[0] % (len(data) - BATCH) :][:BATCH])
            end = time.perf_counter()
            times["windows_us"].append(1e6 * (middle - start_s))
            times["memcpy_us"].append(1e6 * (end - middle))
        megabytes = batch["image"].nbytes / 1e6
    medians = {name: round(statistics.median(values), 2) for name, values in times.items()}
    return {
        "ratio": round(medians["memcpy_us"] / medians["windows_us"], 3),
        **medians,
        "megabytes": round(megabytes, 2),
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=500)
    print(json.dumps({"benchmark": "windows_images", **measure(parser.parse_args().repeats)}))
