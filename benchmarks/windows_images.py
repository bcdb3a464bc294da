"""Batches of ACT windows from the warm store against decoding the same from the videos. Prints one JSON line.

Two cameras of 240 x 320 in h264 and AV1 as LeRobot records them, chunks of 100 actions, batches of 64 from anywhere.
The other way is a dataset's `__getitem__` by PyAV, one thread: of every item and camera it seeks the frame's time and
decodes it. `ratio` is how many times faster `Windows.__getitems__` is where files stay open, `opening` where each frame
opens its file as LeRobot's PyAV backend does; both for the codec where they are less, and by processor time:
`cpu_ratio`, `opening_cpu`. `memcpy_ratio` is the time of one plain copy of as many bytes, of frames that lie side by
side into memory already there, over that of the windows: 1 is the memory's speed, so that `ratio / memcpy_ratio` is
what no way to bring pixels to a policy exceeds. `jpeg` is of a store that keeps JPEGs, lossy and far smaller.
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

from _films import CODECS, Cost, Films, ItemByItem, take_turns
from menura.data import windows

BATCH = 64
CHUNK = 100


def measure(root: Path, rounds: int, frames: int) -> dict[str, Any]:
    films = Films(root, "h264", frames=frames)
    raw, jpeg = (
        windows(films, (0,), range(CHUNK), cache_dir=root, store=mode, progress=False) for mode in ("raw", "jpeg")
    )
    for start in range(0, len(raw), BATCH):  # warm
        raw.__getitems__(range(start, min(start + BATCH, len(raw))))
    rng = np.random.default_rng(1)
    rows = rng.integers(len(raw), size=BATCH).tolist()
    if not np.array_equal(raw.__getitems__(rows)["image"], ItemByItem(films, keep_open=True).batch(rows)):
        raise SystemExit("windows_images: expected equal frames of both ways, got different ones.")
    table = np.asarray(raw.store.stacked)
    target = np.zeros_like(table[:BATCH])

    def anywhere() -> list[int]:
        return rng.integers(len(raw), size=BATCH).tolist()  # type: ignore[no-any-return]

    def copy() -> None:
        start = int(rng.integers(len(table) - BATCH))
        np.copyto(target, table[start : start + BATCH])

    fast = take_turns({"windows": lambda: raw.__getitems__(anywhere()), "memcpy": copy}, 20 * rounds)
    jpegs = take_turns({"jpeg": lambda: jpeg.__getitems__(anywhere())}, rounds)["jpeg"]
    ours = fast["windows"]
    decoded = {
        codec: _decoding(films if codec == "h264" else Films(root, codec, frames=max(1, frames // 4)), ours, rounds)
        for codec in CODECS
    }
    least = {
        key: min(each[key] for each in decoded.values()) for key in ("ratio", "opening", "cpu_ratio", "opening_cpu")
    }
    return {
        **least,
        "target": 50,
        "memcpy_ratio": round(fast["memcpy"].wall_s / ours.wall_s, 3),
        "memcpy_target": 0.5,
        "megabytes": round(target.nbytes / 1e6, 1),
        "windows_ms": round(1e3 * ours.wall_s, 2),
        "windows_cpu_ms": round(1e3 * ours.cpu_s, 2),
        "samples_per_s": round(BATCH / ours.wall_s),
        **decoded,
        "jpeg": {
            "ms": round(1e3 * jpegs.wall_s, 1),
            "samples_per_s": round(BATCH / jpegs.wall_s),
            "bytes_of_raw": round(_bytes(jpeg.store.directory) / _bytes(raw.store.directory), 3),
        },
    }


def _decoding(films: Films, ours: Cost, rounds: int) -> dict[str, float]:
    """What decoding a batch item by item costs, against ours."""
    rng, frames = np.random.default_rng(2), int(films.lengths().sum())
    kept_open, opening = ItemByItem(films, keep_open=True), ItemByItem(films, keep_open=False)
    cost = take_turns(
        {
            "kept_open": lambda: kept_open.batch(rng.integers(frames, size=BATCH).tolist()),
            "opening": lambda: opening.batch(rng.integers(frames, size=BATCH).tolist()),
        },
        rounds,
    )
    return {
        "ratio": round(cost["kept_open"].wall_s / ours.wall_s, 1),
        "cpu_ratio": round(cost["kept_open"].cpu_s / ours.cpu_s, 1),
        "opening": round(cost["opening"].wall_s / ours.wall_s, 1),
        "opening_cpu": round(cost["opening"].cpu_s / ours.cpu_s, 1),
        "item_by_item_ms": round(1e3 * cost["kept_open"].wall_s, 1),
    }


def _bytes(directory: Path) -> int:
    return sum(path.stat().st_size for path in directory.glob("images*"))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--frames", type=int, default=500, help="of each of 4 episodes")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        print(json.dumps({"benchmark": "windows_images", **measure(Path(directory), options.rounds, options.frames)}))
