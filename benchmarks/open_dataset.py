"""How long `open_dataset` takes, and what it keeps in memory. Prints one JSON line.

10,000 episodes of 200 frames as LeRobot lays them out: v3.0 with statistics in its episodes table, which is written ten
rows at a time, and a row group of data an episode; v2.1 with its lines of JSON. Each is opened in a process of its own.
`seconds` are the median of opening it and asking for all lengths; `bytes_per_frame` the peak growth of the process's
resident memory, which is the footer of that table while it is parsed; `first_episode_s` the time to read one episode's
table then. `ratio` is one second over the slower of the two.

    python benchmarks/open_dataset.py [--episodes 10000] [--frames 200] [--rounds 5]
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

WIDTH = 14
ROWS_AT_A_TIME = 10  # LeRobot's buffer of episodes
STATISTICS = ("min", "max", "mean", "std", "count", "q01", "q10", "q50", "q90", "q99")
FEATURES: dict[str, dict[str, Any]] = {
    "observation.state": {"dtype": "float32", "shape": [WIDTH], "names": None},
    "action": {"dtype": "float32", "shape": [WIDTH], "names": None},
    **{
        f"observation.images.{camera}": {
            "dtype": "video",
            "shape": [480, 640, 3],
            "names": ["height", "width", "channels"],
        }
        for camera in ("top", "left", "right")
    },
    **{
        key: {"dtype": dtype, "shape": [1], "names": None}
        for key, dtype in (
            ("timestamp", "float32"),
            ("frame_index", "int64"),
            ("episode_index", "int64"),
            ("index", "int64"),
            ("task_index", "int64"),
        )
    },
}


def write_info(root: Path, version: str, episodes: int, data_path: str, video_path: str) -> None:
    (root / "meta").mkdir(parents=True)
    info = {
        "codebase_version": version,
        "fps": 30,
        "features": FEATURES,
        "total_episodes": episodes,
        "chunks_size": 1000,
        "data_path": data_path,
        "video_path": video_path,
        "robot_type": "aloha",
    }
    (root / "meta/info.json").write_text(json.dumps(info))


def frames_of(episode: int, frames: int) -> pa.Table:
    vectors = pa.FixedSizeListArray.from_arrays(pa.array(np.zeros(frames * WIDTH, np.float32)), WIDTH)
    steps = np.arange(frames)
    return pa.table(
        {
            "observation.state": vectors,
            "action": vectors,
            "timestamp": (steps / 30).astype(np.float32),
            "frame_index": steps,
            "episode_index": np.full(frames, episode),
            "index": episode * frames + steps,
            "task_index": np.full(frames, episode % 7),
        }
    )


def write_v3(root: Path, episodes: int, frames: int) -> Path:
    layout = "chunk-{chunk_index:03d}/file-{file_index:03d}"
    write_info(root, "v3.0", episodes, f"data/{layout}.parquet", f"videos/{{video_key}}/{layout}.mp4")
    tasks = pa.table({"task_index": range(7), "task": [f"put cube {task} into the bowl" for task in range(7)]})
    pq.write_table(tasks, root / "meta/tasks.parquet")
    number = np.arange(episodes)
    columns: dict[str, Any] = {
        "episode_index": number,
        "tasks": [[f"put cube {episode % 7} into the bowl"] for episode in range(episodes)],
        "length": np.full(episodes, frames),
        "data/chunk_index": np.zeros(episodes, np.int64),
        "data/file_index": np.zeros(episodes, np.int64),
        "dataset_from_index": number * frames,
        "dataset_to_index": (number + 1) * frames,
    }
    for key, spec in FEATURES.items():
        if spec["dtype"] == "video":
            columns[f"videos/{key}/chunk_index"] = np.zeros(episodes, np.int64)
            columns[f"videos/{key}/file_index"] = number // 100
            columns[f"videos/{key}/from_timestamp"] = (number % 100) * frames / 30
            columns[f"videos/{key}/to_timestamp"] = (number % 100 + 1) * frames / 30
        width = 3 if spec["dtype"] == "video" else spec["shape"][0]
        for statistic in STATISTICS:
            numbers = pa.array(np.random.default_rng(0).normal(size=episodes * width))
            columns[f"stats/{key}/{statistic}"] = pa.FixedSizeListArray.from_arrays(numbers, width)
    path = root / "meta/episodes/chunk-000/file-000.parquet"
    path.parent.mkdir(parents=True)
    pq.write_table(pa.table(columns), path, row_group_size=ROWS_AT_A_TIME)
    data = root / "data/chunk-000/file-000.parquet"
    data.parent.mkdir(parents=True)
    with pq.ParquetWriter(data, frames_of(0, frames).schema) as writer:
        for episode in range(episodes):
            writer.write_table(frames_of(episode, frames))
    return root


def write_v2(root: Path, episodes: int, frames: int) -> Path:
    data, video = "data/chunk-{episode_chunk:03d}/", "videos/chunk-{episode_chunk:03d}/{video_key}/"
    name = "episode_{episode_index:06d}"
    write_info(root, "v2.1", episodes, f"{data}{name}.parquet", f"{video}{name}.mp4")
    tasks = [{"task_index": task, "task": f"put cube {task} into the bowl"} for task in range(7)]
    (root / "meta/tasks.jsonl").write_text("".join(json.dumps(task) + "\n" for task in tasks))
    rows = (
        {"episode_index": episode, "tasks": [tasks[episode % 7]["task"]], "length": frames}
        for episode in range(episodes)
    )
    (root / "meta/episodes.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (root / "data/chunk-000").mkdir(parents=True)
    pq.write_table(frames_of(0, frames), root / "data/chunk-000/episode_000000.parquet")
    return root


def peak_bytes() -> int:
    """The most memory this process has had resident. (`ru_maxrss` would be inherited from the parent.)"""
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.partition("VmHWM:")[2].split()[0])


def opened(small: Path, large: Path) -> dict[str, float]:
    """Of one opening; a small dataset of the same format is opened before, so that what is imported is."""
    from menura.data import open_dataset

    open_dataset(small).episode(0)
    before = peak_bytes()
    start = time.perf_counter()
    reader = open_dataset(large)
    frames = int(reader.lengths().sum())
    seconds = time.perf_counter() - start
    grown = peak_bytes() - before
    start = time.perf_counter()
    reader.episode(0)
    return {
        "seconds": seconds,
        "bytes_per_frame": grown / frames,
        "first_episode_s": time.perf_counter() - start,
    }


def measure(write: Any, directory: Path, episodes: int, frames: int, rounds: int) -> dict[str, float]:
    small, large = write(directory / "small", 2, frames), write(directory / "large", episodes, frames)
    command = [sys.executable, __file__, "--open", str(small), str(large)]
    runs = [
        json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout) for _ in range(rounds)
    ]
    return {key: round(statistics.median(run[key] for run in runs), 3) for key in runs[0]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--episodes", type=int, default=10_000)
    parser.add_argument("--frames", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--open", nargs=2, type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.open is not None:
        print(json.dumps(opened(*given.open)))
        return
    with tempfile.TemporaryDirectory() as directory:
        found = {
            name: measure(write, Path(directory) / name, given.episodes, given.frames, given.rounds)
            for name, write in (("v3", write_v3), ("v2", write_v2))
        }
    ratio = round(1 / max(each["seconds"] for each in found.values()), 2)
    targets = {"seconds_target": 1.0, "bytes_per_frame_target": 100}
    print(json.dumps({"benchmark": "open_dataset", "ratio": ratio, "episodes": given.episodes, **found, **targets}))


if __name__ == "__main__":
    main()
