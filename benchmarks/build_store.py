"""Building the store of a dataset of videos against decoding the same files by PyAV alone. Prints one JSON line.

Two cameras of 240 x 320 in h264 and AV1 as LeRobot records them. Both use a process a core. `ratio` is the rate of
`build_store`, from the call to the store on the disk, over that of PyAV's own way to RGB arrays, which nothing keeps,
for the codec where that is less. `tuned` is the same against PyAV with one thread and one converter a process, and
`without_the_disk` is the latter but for the time at the end in which the disk catches up; `cpu_ratio` and `tuned_cpu`
are by processor time.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

os.environ["OMP_NUM_THREADS"] = "1"

import torch

from _films import CODECS, Films, decode_plainly, decode_tuned, take_turns
from menura import files
from menura.data import build_store
from menura.data.threads import available_cores


class DiskTime:
    """The seconds that the last store took to come to the disk once it was written."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._flush = files.fsync_tree

    def __call__(self, directory: str | Path) -> None:
        start = time.perf_counter()
        self._flush(directory)
        self.seconds = time.perf_counter() - start


def measure(films: Films, root: Path, rounds: int) -> dict[str, Any]:
    cores, disk = available_cores(), DiskTime()
    paths = [path for paths in films.files for path in paths.values()]
    frames = int(films.lengths().sum()) * len(films.features.cameras)
    disk_s = []

    def build() -> None:
        with patch.object(files, "fsync_tree", disk):
            build_store(films, cache_dir=root / "cache", mode="raw", progress=False)
        disk_s.append(disk.seconds)
        shutil.rmtree(root / "cache")

    def alone(decode: Callable[[Path], int]) -> None:
        with multiprocessing.get_context("fork").Pool(cores) as pool:
            pool.map(decode, paths, chunksize=1)
            pool.close()
            pool.join()

    cost = take_turns(
        {"build": build, "plain": lambda: alone(decode_plainly), "tuned": lambda: alone(decode_tuned)}, rounds
    )
    ours = cost["build"]
    return {
        "ratio": round(cost["plain"].wall_s / ours.wall_s, 3),
        "tuned": round(cost["tuned"].wall_s / ours.wall_s, 3),
        "without_the_disk": round(cost["tuned"].wall_s / (ours.wall_s - min(disk_s)), 3),
        "cpu_ratio": round(cost["plain"].cpu_s / ours.cpu_s, 3),
        "tuned_cpu": round(cost["tuned"].cpu_s / ours.cpu_s, 3),
        "frames": frames,
        **{f"{name}_frames_per_s": round(frames / each.wall_s) for name, each in cost.items()},
    }


def run() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--files", type=int, default=3, help="of each camera")
    parser.add_argument("--frames", type=int, default=250, help="of each of the 4 episodes of a file")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory)
        results = {
            codec: measure(Films(root, codec, files=options.files, frames=options.frames), root, options.rounds)
            for codec in CODECS
        }
    ratio = min(result["ratio"] for result in results.values())
    print(json.dumps({"benchmark": "build_store", "ratio": ratio, "target": 0.8, **results}))


if __name__ == "__main__":
    run()
