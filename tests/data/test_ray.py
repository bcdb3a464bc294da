"""Work on a Ray cluster: what processes make, to the last bit, and nothing left behind."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from menura.data import build_store, store_writing
from menura.data.ray_workers import RayCluster, ray_cluster
from menura.data.tools.describing import dataset_statistics
from menura.errors import DataError
from menura.files import TEMPORARY

CAMERAS = {"top": (6, 8), "wrist": (4, 4)}

INTERRUPTED = """
import sys, time
from pathlib import Path
from menura.data.ray_workers import ray_cluster

BEGUN = Path(sys.argv[1])

def work(index):
    (BEGUN / str(index)).touch()
    time.sleep(600)

def main():
    with ray_cluster() as cluster:
        list(cluster.in_order(work, 20))

main()
"""


@pytest.fixture(scope="module")
def cluster() -> Iterator[RayCluster]:
    """Of this machine; whatever asks for Ray meanwhile finds it."""
    with ray_cluster() as cluster:
        yield cluster


def test_ray_is_missing(make_reader, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(DataError, match=r"expected the package 'ray', .* pip install 'menura\[ray\]'"):
        build_store(make_reader([3]), cache_dir=tmp_path, progress=False, ray=True)
    assert not any(path.is_dir() for path in (tmp_path / "store").iterdir())


@pytest.mark.parametrize("address", ["127.0.0.1:1", "ray://127.0.0.1:1", "nowhere.invalid:6379", "127.0.0.1:99999"])
def test_a_cluster_where_nothing_listens_is_refused_at_once(address, monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", address)
    monkeypatch.setattr("ray.is_initialized", lambda: False)  # whatever other tests left
    with pytest.raises(DataError, match=f"expected a cluster at {re.escape(address)}"), ray_cluster():
        pass


def test_a_store_in_a_directory_that_others_do_not_see_is_refused(make_reader, tmp_path, monkeypatch):
    """What a task meets on a machine that has another cache directory of that name."""

    class Elsewhere(store_writing._WriteShare):
        def __call__(self, number):
            self.directory.rename(tmp_path / "elsewhere")
            return super().__call__(number)

    monkeypatch.setattr(store_writing, "_WriteShare", Elsewhere)
    with pytest.raises(DataError, match=r"to be the same directory on every machine, .* Set data\.cache_dir"):
        build_store(make_reader([3]), cache_dir=tmp_path, progress=False, num_workers=0)


@pytest.mark.slow
@pytest.mark.parametrize("options", [{}, {"mode": "jpeg"}, {"mode": "video"}])
def test_a_store_is_the_same_byte_for_byte(cluster, make_reader, tmp_path, options):
    reader = make_reader([7, 600, 3, 900], cameras=CAMERAS)
    here = build_store(reader, cache_dir=tmp_path / "here", num_workers=2, progress=False, **options)
    there = build_store(reader, cache_dir=tmp_path / "there", ray=True, progress=False, **options)
    assert here.directory.name == there.directory.name
    assert {path.name: path.read_bytes() for path in here.directory.iterdir()} == {
        path.name: path.read_bytes() for path in there.directory.iterdir()
    }


@pytest.mark.slow
def test_statistics_are_the_same_to_the_last_bit(cluster, make_reader):
    reader = make_reader([5, 70, 3] * 20)
    found = dataset_statistics(reader, num_workers=0)
    assert set(found) == {"state", "action"}
    for other in (dataset_statistics(reader, ray=True), dataset_statistics(reader, num_workers=2)):
        assert {name: each.to_dict() for name, each in other.items()} == {
            name: each.to_dict() for name, each in found.items()
        }


@pytest.mark.slow
def test_an_error_is_the_readers_own(cluster, make_reader, tmp_path):
    def damaged(index: int) -> None:
        if index == 3:
            raise DataError(f"episode {index}: expected rows, got none. Fetch it again.")

    reader = make_reader([300] * 5, cameras=CAMERAS, hook=damaged)
    with pytest.raises(DataError, match=r"^episode 3: expected rows, got none. Fetch it again.$"):
        build_store(reader, cache_dir=tmp_path, ray=True, progress=False)
    assert not list((tmp_path / "store").glob(f"{TEMPORARY}*"))
    with pytest.raises(DataError, match=r"^episode 3: expected rows"):
        dataset_statistics(reader, ray=True)


@pytest.mark.slow
def test_results_come_in_order_and_not_far_ahead(cluster, tmp_path):
    def work(index: int) -> int:
        (tmp_path / str(index)).touch()
        time.sleep(0.05 * (index % 3))  # those behind are often done first
        return index

    results = cluster.in_order(work, 100)
    assert [next(results) for _ in range(5)] == [0, 1, 2, 3, 4]
    time.sleep(1)
    assert len(list(tmp_path.iterdir())) <= 4 + 2 * cluster.count
    results.close()


@pytest.mark.slow
def test_a_dataset_that_cannot_travel_is_refused(cluster, make_reader):
    reader = make_reader([3])
    reader.lock = np.random.default_rng, (line for line in ())
    with pytest.raises(DataError, match="expected a dataset that can be passed to other processes, got"):
        dataset_statistics(reader, ray=True)


@pytest.mark.slow
def test_a_process_that_dies_is_an_error(cluster):
    with pytest.raises(DataError, match="expected its processes to finish"):
        list(cluster.in_order(lambda index: os._exit(1), 1))


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_an_interrupted_program_leaves_nothing_running(tmp_path, number):
    (tmp_path / "script.py").write_text(INTERRUPTED)
    (tmp_path / "begun").mkdir()
    mark = f"MENURA_TEST={tmp_path}"
    environment = {**os.environ, "MENURA_TEST": str(tmp_path), "RAY_ADDRESS": "local"}
    program = subprocess.Popen([sys.executable, tmp_path / "script.py", tmp_path / "begun"], env=environment)
    _wait(lambda: any((tmp_path / "begun").iterdir()))
    assert len(_running(mark)) > 1
    program.send_signal(number)
    program.wait(60)
    _wait(lambda: not _running(mark))


def _wait(until, seconds=300):
    end = time.monotonic() + seconds
    while not until():
        assert time.monotonic() < end
        time.sleep(0.1)


def _running(mark: str) -> list[int]:
    """The processes that have this in their environment."""
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        with suppress(OSError):
            if mark.encode() in path.read_bytes().split(b"\0"):
                found.append(int(path.parent.name))
    return found
