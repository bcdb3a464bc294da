"""Batches of image windows straight from videos, without a store, against decoding item by item. Prints one JSON line.

Two cameras of 240 x 320 in h264 and AV1 as LeRobot records them (a keyframe every two frames), batches of 64 from
anywhere, one observation each. The other way is a dataset's `__getitem__`, by one thread: of every item and camera it
seeks the frame's time and decodes it; its files stay open. `ratio` is how many times faster `Windows.__getitems__` is,
which uses a thread a core (`threads`), and `cpu_ratio` that by processor time, each for the codec where it is less.
`opening` and `opening_cpu` are against a way that opens the file of every frame.

`least_cpu_ms` is what PyAV takes to decode the packets that the frames need, and nothing else: no way takes less.
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

from _films import CODECS, Films, ItemByItem, OnlyDecoding, take_turns
from menura.data import windows
from menura.data.threads import available_cores

BATCH = 64


def measure(films: Films, cache: Path, rounds: int) -> dict[str, Any]:
    data = windows(films, cache_dir=cache, store="video", progress=False)
    opening, kept_open = ItemByItem(films, keep_open=False), ItemByItem(films, keep_open=True)
    least = OnlyDecoding(films)
    rows = np.random.default_rng(1).integers(len(data), size=BATCH).tolist()
    if not np.array_equal(data.__getitems__(rows)["image"], kept_open.batch(rows)):
        raise SystemExit("windows_video: expected equal frames of both ways, got different ones.")
    ways = {
        "windows": lambda: data.__getitems__(rows),
        "opening": lambda: opening.batch(rows),
        "kept_open": lambda: kept_open.batch(rows),
        "least": lambda: least.batch(rows),
    }
    cost = take_turns(ways, rounds)
    ours = cost["windows"]
    return {
        "ratio": round(cost["kept_open"].wall_s / ours.wall_s, 2),
        "cpu_ratio": round(cost["kept_open"].cpu_s / ours.cpu_s, 2),
        "opening": round(cost["opening"].wall_s / ours.wall_s, 2),
        "opening_cpu": round(cost["opening"].cpu_s / ours.cpu_s, 2),
        "windows_ms": round(1e3 * ours.wall_s, 1),
        "windows_cpu_ms": round(1e3 * ours.cpu_s, 1),
        "least_cpu_ms": round(1e3 * cost["least"].cpu_s, 1),
        "item_by_item_ms": round(1e3 * cost["kept_open"].wall_s, 1),
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
    least = {key: min(result[key] for result in results.values()) for key in ("ratio", "cpu_ratio", "opening")}
    line = {"benchmark": "windows_video", **least, "target": 2.0, "threads": available_cores(), **results}
    print(json.dumps(line))


if __name__ == "__main__":
    run()
