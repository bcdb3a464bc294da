"""What a store of 20 GB takes of the memory. Prints one JSON line.

The store is sparse: its tables are as long as those of 43,000 frames of two cameras of 240 x 320, and hold nothing. It
is opened, and batches of ACT windows are drawn from anywhere in it: by this process, then by two DataLoader workers.
`private` is what no other process could use (`Private` and `Anonymous` of smaps_rollup), `shared` are pages of files,
which all processes have in common and the system takes back when it needs them. `ratio` is the gigabyte that a process
may grow by, private and shared, over what it grew by.
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
from torch.utils.data import DataLoader, Sampler, get_worker_info

from menura.data import Store, Windows, collate
from menura.data.store import VERSION
from menura.features import CameraFeature, Features, VectorFeature
from menura.files import write_json

HEIGHT, WIDTH, FRAMES_OF_EPISODE = 240, 320, 400
FRAME_BYTES = 2 * HEIGHT * WIDTH * 3
LIMIT = 1_000_000_000


def sparse_store(directory: Path, gigabytes: float) -> Store:
    """A store as `build_store` leaves it, of holes."""
    episodes = int(gigabytes * 1e9 / FRAME_BYTES / FRAMES_OF_EPISODE)
    frames = episodes * FRAMES_OF_EPISODE
    features = Features(
        state=VectorFeature.of_width(14, "s"),
        action=VectorFeature.of_width(14, "a"),
        cameras={name: CameraFeature(HEIGHT, WIDTH) for name in ("top", "wrist")},
        fps=50.0,
    )
    tables: dict[str, tuple[tuple[int, ...], type]] = {
        "state": ((frames, 14), np.float32),
        "action": ((frames, 14), np.float32),
        "images.0": ((frames, 2, HEIGHT, WIDTH, 3), np.uint8),
    }
    for name, (shape, dtype) in tables.items():
        np.lib.format.open_memmap(directory / f"{name}.npy", "w+", np.dtype(dtype), shape)  # type: ignore[no-untyped-call]
    np.save(directory / "starts.npy", np.arange(0, frames + 1, FRAMES_OF_EPISODE))
    np.save(directory / "task_index.npy", np.zeros(episodes, np.int64))
    write_json(directory / "episodes.json", [])
    manifest = {"source": f"{VERSION}", "mode": "raw", "resize": None, "encoder": False, "tasks": [""]}
    write_json(directory / "store.json", {**manifest, "features": features.to_dict()})
    return Store(directory, "sparse")


def resident(process: int | str = "self") -> dict[str, int]:
    """Bytes of a process: `private`, `shared`, and `proportional`: a page divided among those who have it."""
    kilobytes = {}
    for line in Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()[1:]:
        name, value, *_ = line.split()
        kilobytes[name.rstrip(":")] = int(value)
    anonymous = kilobytes["Anonymous"]
    return {
        "private": 1024 * anonymous,
        "shared": 1024 * (kilobytes["Rss"] - anonymous),
        "proportional": 1024 * kilobytes["Pss"],
    }


class Anywhere(Sampler[int]):
    def __init__(self, length: int, count: int) -> None:
        self._length, self._count = length, count

    def __iter__(self) -> Any:
        yield from np.random.default_rng(0).integers(self._length, size=self._count).tolist()

    def __len__(self) -> int:
        return self._count


def worker(batch: Any) -> dict[str, int]:
    """What a DataLoader's worker takes once it has collated a batch."""
    collate(batch)
    info = get_worker_info()
    return {"worker": info.id if info is not None else -1, **resident()}


def measure(directory: Path, gigabytes: float, batches: int, batch_size: int = 64) -> dict[str, Any]:
    before = resident()
    data = Windows(sparse_store(directory, gigabytes), (0,), range(100))
    rng = np.random.default_rng(1)
    most = {"private": 0, "shared": 0}
    for _ in range(batches):
        data.__getitems__(rng.integers(len(data), size=batch_size))
        most = {kind: max(most[kind], resident()[kind] - before[kind]) for kind in most}
    loader = DataLoader(
        data, batch_size, sampler=Anywhere(len(data), batches * batch_size), num_workers=2, collate_fn=worker
    )
    workers = {answer["worker"]: answer for answer in loader}
    return {
        "ratio": round(LIMIT / max(1, most["private"] + most["shared"]), 2),
        "store_gb": round(sum(path.stat().st_size for path in directory.iterdir()) / 1e9, 2),
        "sampled_gb": round(batches * batch_size * FRAME_BYTES / 1e9, 2),
        **{f"{kind}_mb": round(value / 1e6) for kind, value in most.items()},
        "workers": [
            {f"{kind}_mb": round(answer[kind] / 1e6) for kind in ("private", "shared", "proportional")}
            for answer in workers.values()
        ],
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gigabytes", type=float, default=20.0)
    parser.add_argument("--batches", type=int, default=30)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        print(json.dumps({"benchmark": "memory", **measure(Path(directory), options.gigabytes, options.batches)}))
