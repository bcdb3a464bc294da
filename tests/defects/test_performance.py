"""Faults of performance that imitation-learning frameworks have had, and ours must not: counted, not timed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import torch

from menura.data import Episode, EpochSampler, collate, windows
from menura.training.loader import EpochLoader


class Counting:
    """A user's dataset that counts what is read of it."""

    name = "counting"

    def __init__(self) -> None:
        self.reads = 0

    def __len__(self) -> int:
        return 3

    def episode(self, index: int) -> Episode:
        self.reads += 1
        return Episode(np.ones((20, 3)) * index, np.ones((20, 2)), {"top": np.zeros((20, 8, 8, 3), np.uint8)}, fps=5)


def test_no_sample_opens_the_source_again(tmp_path: Path) -> None:
    """Performance: a file that is opened, read and closed for every sample."""
    dataset = Counting()
    data = windows(dataset, action_offsets=range(5), cache_dir=tmp_path)
    before = dataset.reads
    for _ in range(20):
        data.__getitems__(list(range(60)))
    assert dataset.reads == before


def test_each_sample_is_gathered_once_whatever_the_number_of_workers(tmp_path: Path) -> None:
    """Performance: 4 workers that made 4.5 reads for each sample delivered."""
    for workers in (0, 2):
        data = windows(Counting(), action_offsets=range(5), cache_dir=tmp_path)
        loader = EpochLoader(
            data,
            EpochSampler(data, seed=0),
            batch_size=8,
            drop_last=False,
            collate=collate,
            seed=0,
            num_workers=workers,
        )
        rows = torch.cat([batch["timestep"] + 20 * batch["state"][:, 0].long() for batch in loader])
        assert sorted(rows.tolist()) == list(range(60))


SPARSE = """
import json, resource, sys
from pathlib import Path
import numpy as np
from menura.data import Episode, windows

FRAMES, H, W = 150_000, 200, 224  # 20.2 GB of pixels


class Huge:
    name = "huge"
    def __len__(self): return 1
    def episode(self, index):
        return Episode(np.zeros((8, 3)), np.zeros((8, 2)), {"top": np.zeros((8, H, W, 3), np.uint8)}, fps=5)


directory = windows(Huge(), cache_dir=sys.argv[1], progress=False).store.directory
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for name, shape, dtype in (
    ("images.0", (FRAMES, 1, H, W, 3), np.uint8),
    ("state", (FRAMES, 3), np.float32),
    ("action", (FRAMES, 2), np.float32),
):
    (directory / f"{name}.npy").unlink()
    np.lib.format.open_memmap(directory / f"{name}.npy", "w+", dtype, shape)  # a sparse file
np.save(directory / "starts.npy", np.array([0, FRAMES], np.int64))
data = windows(Huge(), action_offsets=range(50), cache_dir=sys.argv[1], progress=False)
assert len(data) == FRAMES and data.store.stacked.nbytes > 20e9
rng = np.random.default_rng(0)
for _ in range(4):
    batch = data.__getitems__(rng.integers(FRAMES, size=32).tolist())
    assert batch["image"].shape == (32, 1, H, W, 3) and batch["actions"].shape == (32, 50, 2)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024)
"""


def test_a_store_of_20_gb_is_opened_and_sampled_in_little_memory(tmp_path: Path) -> None:
    """Performance: a dataset that is read into memory whole (for its lengths, its quantiles, or to be mixed)."""
    done = subprocess.run([sys.executable, "-c", SPARSE, str(tmp_path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 1e9
    on_disk = sum(file.stat().st_blocks * 512 for file in tmp_path.rglob("*") if file.is_file())
    assert on_disk < 1e9, "the test's own files are sparse"
