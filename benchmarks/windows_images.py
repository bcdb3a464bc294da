"""Batches of ACT windows from the warm store against decoding the same from the videos. Prints one JSON line.

Two cameras of 240 x 320 in h264 as LeRobot records them, chunks of 100 actions, batches of 64 from anywhere. `ratio` is
how many times faster `Windows.__getitems__` is than PyAV item by item, which opens the file of each frame as LeRobot's
PyAV backend does; `kept_open` is against files that stay open. `memcpy_ratio` is the time of one plain copy of as many
bytes, of frames that lie side by side into memory already there, over that of the windows: 1 is the memory's speed.
`jpeg` is of a store that keeps JPEGs, which is lossy and a sixth of the size or less.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np

from _films import Films, ItemByItem, take_turns
from menura.data import windows

BATCH = 64
CHUNK = 100


def measure(root: Path, rounds: int, frames: int) -> dict[str, Any]:
    films = Films(root, "h264", frames=frames)
    raw, jpeg = (
        windows(films, (0,), range(CHUNK), cache_dir=root, store=mode, progress=False) for mode in ("raw", "jpeg")
    )
    opening, kept_open = ItemByItem(films, keep_open=False), ItemByItem(films, keep_open=True)
    for start in range(0, len(raw), BATCH):  # warm
        raw.__getitems__(range(start, min(start + BATCH, len(raw))))
    rng = np.random.default_rng(1)
    rows = rng.integers(len(raw), size=BATCH).tolist()
    if not np.array_equal(raw.__getitems__(rows)["image"], opening.batch(rows)):
        raise SystemExit("windows_images: expected equal frames of both ways, got different ones.")
    table = np.asarray(raw.store.stacked)
    target = np.zeros_like(table[:BATCH])

    def anywhere() -> list[int]:
        return rng.integers(len(raw), size=BATCH).tolist()  # type: ignore[no-any-return]

    def copy() -> None:
        start = int(rng.integers(len(table) - BATCH))
        np.copyto(target, table[start : start + BATCH])

    fast = take_turns({"windows": lambda: raw.__getitems__(anywhere()), "memcpy": copy}, 20 * rounds)
    ways = {
        "jpeg": lambda: jpeg.__getitems__(anywhere()),
        "opening": lambda: opening.batch(anywhere()),
        "kept_open": lambda: kept_open.batch(anywhere()),
    }
    slow = take_turns(ways, rounds)
    ours, items_s = fast["windows"].wall_s, slow["opening"].wall_s
    return {
        "ratio": round(items_s / ours, 1),
        "kept_open": round(slow["kept_open"].wall_s / ours, 1),
        "target": 50,
        "memcpy_ratio": round(fast["memcpy"].wall_s / ours, 3),
        "memcpy_target": 0.5,
        "megabytes": round(target.nbytes / 1e6, 1),
        "windows_ms": round(1e3 * ours, 2),
        "item_by_item_ms": round(1e3 * items_s, 1),
        "samples_per_s": round(BATCH / ours),
        "jpeg": {
            "ratio": round(items_s / slow["jpeg"].wall_s, 2),
            "ms": round(1e3 * slow["jpeg"].wall_s, 1),
            "samples_per_s": round(BATCH / slow["jpeg"].wall_s),
            "bytes_of_raw": round(_bytes(jpeg.store.directory) / _bytes(raw.store.directory), 3),
        },
    }


def _bytes(directory: Path) -> int:
    return sum(path.stat().st_size for path in directory.glob("images*"))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--frames", type=int, default=500, help="of each of 4 episodes")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        print(json.dumps({"benchmark": "windows_images", **measure(Path(directory), options.rounds, options.frames)}))
