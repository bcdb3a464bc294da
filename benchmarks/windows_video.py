"""Batches of image windows straight from videos, without a store, against decoding item by item. Prints one JSON line.

Two cameras of 240 x 320 in h264 and AV1 as LeRobot records them, batches of 64 from anywhere, one observation each. The
other way looks every frame up by its time, item by item, and opens its file for it, as LeRobot's PyAV backend does.
`ratio` is how many times faster `Windows.__getitems__` is, for the codec where that is less. `cpu_ratio` is that by
processor time, and `kept_open` and `kept_open_cpu` are against a way item by item that keeps its files open.
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

from _films import CODECS, Films, ItemByItem, take_turns
from menura.data import windows
from menura.data.threads import available_cores

BATCH = 64


def measure(films: Films, cache: Path, rounds: int) -> dict[str, Any]:
    data = windows(films, cache_dir=cache, store="video", progress=False)
    opening, kept_open = ItemByItem(films, keep_open=False), ItemByItem(films, keep_open=True)
    rows = np.random.default_rng(1).integers(len(data), size=BATCH).tolist()
    if not np.array_equal(data.__getitems__(rows)["image"], kept_open.batch(rows)):
        raise SystemExit("windows_video: expected equal frames of both ways, got different ones.")
    ways = {
        "windows": lambda: data.__getitems__(rows),
        "opening": lambda: opening.batch(rows),
        "kept_open": lambda: kept_open.batch(rows),
    }
    cost = take_turns(ways, rounds)
    ours = cost["windows"]
    return {
        "ratio": round(cost["opening"].wall_s / ours.wall_s, 2),
        "cpu_ratio": round(cost["opening"].cpu_s / ours.cpu_s, 2),
        "kept_open": round(cost["kept_open"].wall_s / ours.wall_s, 2),
        "kept_open_cpu": round(cost["kept_open"].cpu_s / ours.cpu_s, 2),
        "windows_ms": round(1e3 * ours.wall_s, 1),
        "item_by_item_ms": round(1e3 * cost["opening"].wall_s, 1),
        "samples_per_s": round(BATCH / ours.wall_s),
    }


def run() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--frames", type=int, default=250, help="of each of 8 episodes")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory)
        results = {
            codec: measure(Films(root, codec, files=2, frames=options.frames), root, options.rounds) for codec in CODECS
        }
    ratio = min(result["ratio"] for result in results.values())
    line = {"benchmark": "windows_video", "ratio": ratio, "target": 2.0, "threads": available_cores(), **results}
    print(json.dumps(line))


if __name__ == "__main__":
    run()
