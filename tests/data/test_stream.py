"""Data that lies elsewhere and does not fit a disk: the same windows, shard by shard, in little room."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from menura.data import Reader, ShardOrder, Stream, Windows, collate, open_dataset, windows
from menura.data.readers.lerobot import LeRobotReader
from menura.errors import DataError

OFFSETS: dict[str, Any] = {"observation_offsets": (-1, 0), "action_offsets": range(5)}


@pytest.fixture
def remote(fixtures: Path) -> Iterator[str]:
    """The many-file fixture on fsspec's filesystem in memory."""
    system = fsspec.filesystem("memory")
    system.put(str(fixtures / "lerobot_v3_many_files"), "/bucket/many_files", recursive=True)
    yield "memory://bucket/many_files"
    system.rm("/bucket", recursive=True)


def equal(a: dict[str, Any], b: dict[str, Any]) -> bool:
    return a.keys() == b.keys() and all(
        np.array_equal(a[key], b[key]) if isinstance(a[key], np.ndarray) else a[key] == b[key] for key in a
    )


def streamed(remote: str, tmp_path: Path, **options: Any) -> Windows:
    reader = open_dataset(remote, cache_dir=tmp_path / "cache", **options)
    return windows(reader, **OFFSETS, store="stream", cache_dir=tmp_path / "cache", progress=False)


def fetched(tmp_path: Path) -> list[str]:
    """The data files and videos on this machine."""
    root = tmp_path / "cache" / "mirror"
    return sorted(path.name for path in root.rglob("*") if path.is_file() and path.suffix in (".mp4",))


def test_windows_from_afar_are_those_of_the_same_files_here(remote: str, fixtures: Path, tmp_path: Path) -> None:
    here = windows(fixtures / "lerobot_v3_many_files", **OFFSETS, cache_dir=tmp_path / "here", progress=False)
    there = streamed(remote, tmp_path)
    assert there.features == here.features
    assert there.store.episodes == here.store.episodes
    everything = np.arange(len(here))
    assert equal(there.__getitems__(everything), here.__getitems__(everything))
    assert there.statistics()["action"].to_dict() == here.statistics()["action"].to_dict()


def test_nothing_is_fetched_before_it_is_needed_and_little_is_kept(
    remote: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("menura.data.mirror._RECENT", 1)
    there = streamed(remote, tmp_path, budget_bytes=1.0)
    assert fetched(tmp_path) == []
    for index in range(0, len(there), 7):
        there[index]
        assert len(fetched(tmp_path)) <= 2
    there[0]  # what had to make way is fetched again


def test_a_file_that_changes_is_another_dataset(remote: str, tmp_path: Path) -> None:
    before = open_dataset(remote, cache_dir=tmp_path).fingerprint()
    assert open_dataset(remote, cache_dir=tmp_path).fingerprint() == before
    system = fsspec.filesystem("memory")
    file = next(name for name in system.find("/bucket") if name.endswith(".mp4"))
    system.pipe(file, system.cat(file) + b"\0")
    assert open_dataset(remote, cache_dir=tmp_path).fingerprint() != before


def test_what_is_not_there(remote: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="memory://bucket/many_fils: expected files, found nothing"):
        open_dataset("memory://bucket/many_fils", cache_dir=tmp_path)
    with pytest.raises(DataError, match="nosuch://x/y: expected to reach it, got: Protocol not known: nosuch"):
        open_dataset("nosuch://x/y", cache_dir=tmp_path)
    system = fsspec.filesystem("memory")
    there = streamed(remote, tmp_path)
    for name in system.find("/bucket/many_files/videos"):
        system.rm(name)
    with pytest.raises(DataError, match=r"many_files/videos/.*mp4: expected to reach it"):
        there[0]


def test_what_killed_processes_left_is_removed(remote: str, tmp_path: Path) -> None:
    there = streamed(remote, tmp_path)
    there[0]
    (own,) = (tmp_path / "cache" / "mirror").glob("*/files/*")
    left = own.with_name("left")
    shutil.copytree(own, left)
    other = streamed(remote, tmp_path)
    other[0]
    assert own.exists()  # its process lives
    assert not left.exists()


# The order


class Lengths:
    """As much of windows as an order looks at."""

    def __init__(self, lengths: list[int], shards: list[int]) -> None:
        self.lengths = np.array(lengths, np.int64)
        self.episodes = np.arange(len(lengths))
        self.store = self
        self._shards = np.array(shards, np.int64)

    def shards(self) -> np.ndarray:
        return self._shards

    def __len__(self) -> int:
        return int(self.lengths.sum())


def order(lengths: list[int], shards: list[int], batch_size: int = 4, **options: Any) -> ShardOrder:
    return ShardOrder(Lengths(lengths, shards), batch_size, **{"seed": 0, **options})  # type: ignore[arg-type]


@settings(max_examples=60, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 40), min_size=1, max_size=12),
    world_size=st.integers(1, 3),
    streams=st.integers(1, 3),
    batch_size=st.integers(1, 9),
    buffer=st.integers(1, 50),
    seed=st.integers(0, 1000),
)
def test_ranks_share_an_epoch_and_nothing_is_drawn_twice(
    lengths: list[int], world_size: int, streams: int, batch_size: int, buffer: int, seed: int
) -> None:
    if sum(lengths) < world_size:
        return
    options: dict[str, Any] = {"world_size": world_size, "streams": streams, "buffer": buffer, "seed": seed}
    shards = [number // 2 for number in range(len(lengths))]
    ranks = [order(lengths, shards, batch_size, rank=rank, **options) for rank in range(world_size)]
    drawn = [list(rank) for rank in ranks]
    assert [len(rank) for rank in ranks] == [len(items) for items in drawn]
    assert len({len(items) for items in drawn}) == 1
    together = [item for items in drawn for item in items]
    assert len(set(together)) == len(together)
    assert set(together) <= set(range(sum(lengths)))
    assert len(together) > sum(lengths) - world_size * (1 + streams * batch_size)


@settings(max_examples=30, deadline=None)
@given(start=st.integers(0, 60), epoch=st.integers(0, 3), streams=st.integers(1, 3))
def test_an_epoch_is_resumed_anywhere(start: int, epoch: int, streams: int) -> None:
    lengths, shards = [13, 8, 21, 5, 17], [0, 0, 1, 1, 2]
    whole, resumed = (order(lengths, shards, streams=streams, buffer=10) for _ in range(2))
    whole.set_epoch(epoch)
    resumed.load_state_dict({"epoch": epoch, "start_index": start})
    assert list(resumed) == list(whole)[start:]


def test_what_is_in_use_at_a_time_lies_in_few_files() -> None:
    lengths, shards = [50] * 40, [number // 2 for number in range(40)]  # 20 files of 100 frames
    items = np.array(list(order(lengths, shards, batch_size=10, buffer=150)))
    files = items // 100
    assert max(len(set(files[start : start + 10])) for start in range(0, len(files), 10)) <= 3
    changes = [len(set(files[start : start + 150])) for start in range(0, len(files) - 150, 10)]
    assert max(changes) <= 5
    assert files[:300].tolist() != sorted(files[:300].tolist())
    again = order(lengths, shards, batch_size=10, buffer=150)
    again.set_epoch(1)
    assert list(again) != items.tolist()


def test_batches_alternate_between_the_streams_of_workers() -> None:
    items = np.array(list(order([100] * 8, list(range(8)), batch_size=10, streams=2, buffer=100)))
    files = [set((items[start : start + 10] // 100).tolist()) for start in range(0, len(items), 10)]
    assert set.union(*files[0::2]).isdisjoint(set.union(*files[1::2]))


def test_refusals() -> None:
    with pytest.raises(DataError, match=r"ShardOrder.rank: expected 0 … 1, got 2"):
        order([10], [0], rank=2, world_size=2)
    with pytest.raises(DataError, match="expected seed ≥ 0 and batch_size, buffer and streams ≥ 1"):
        order([10], [0], buffer=0)
    with pytest.raises(DataError, match="expected at least 3 items, one a rank, got 2"):
        order([2], [0], world_size=3)


# The stream


@pytest.mark.parametrize("workers", [0, 2])
def test_a_stream_delivers_an_epoch_in_any_number_of_processes(
    remote: str, fixtures: Path, tmp_path: Path, workers: int
) -> None:
    root = fixtures / "lerobot_v3_many_files"
    here = windows(root, **OFFSETS, cache_dir=tmp_path / "cache", store="stream", progress=False)
    loader: DataLoader[Any] = DataLoader(
        Stream(here, 8, seed=3, buffer=30), batch_size=None, num_workers=workers, collate_fn=collate
    )
    batches = list(loader)
    expected = ShardOrder(here, 8, seed=3, buffer=30, streams=max(1, workers))
    items = list(expected)[: len(batches) * 8]
    assert len(batches) == len(expected) // 8
    for number, batch in enumerate(batches):
        wanted = here.__getitems__(items[number * 8 : (number + 1) * 8])
        assert torch.equal(batch["image"], torch.from_numpy(wanted["image"]))
        assert batch["task"] == wanted["task"]


def test_a_stream_goes_on_where_it_stood(remote: str, tmp_path: Path) -> None:
    there = streamed(remote, tmp_path)
    stream = Stream(there, 8, seed=1, buffer=50)
    stream.set_epoch(2)
    batches = list(stream)
    state = stream.state_dict(delivered=5)
    later = Stream(there, 8, seed=1, buffer=50)
    later.load_state_dict(state)
    rest = list(later)
    assert len(rest) == len(batches) - 5
    assert all(equal(a, b) for a, b in zip(rest, batches[5:], strict=True))


def test_a_stream_in_workers_goes_on_where_it_stood(fixtures: Path, tmp_path: Path) -> None:
    root = fixtures / "lerobot_v3_many_files"
    here = windows(root, **OFFSETS, cache_dir=tmp_path / "cache", store="stream", progress=False)

    def batches(stream: Stream) -> list[Any]:
        return list(DataLoader(stream, batch_size=None, num_workers=2, collate_fn=collate))

    stream = Stream(here, 4, seed=3, buffer=30)
    whole = batches(stream)
    later = Stream(here, 4, seed=3, buffer=30)
    later.load_state_dict(stream.state_dict(delivered=5))
    rest = batches(later)
    assert len(rest) == len(whole) - 5
    for got, expected in zip(rest, whole[5:], strict=True):
        assert torch.equal(got["image"], expected["image"])
        assert torch.equal(got["timestep"], expected["timestep"])


def test_shards_are_the_files_of_an_episode(fixtures: Path, make_reader: Callable[..., Reader]) -> None:
    reader = open_dataset(fixtures / "lerobot_v3_many_files")
    assert isinstance(reader, LeRobotReader)
    by_file = [LeRobotReader(reader.root, episodes=[episode]).files() for episode in range(len(reader))]
    shards = reader.shards()
    for a in range(len(reader)):
        for b in range(len(reader)):
            assert (shards[a] == shards[b]) == (by_file[a] == by_file[b])
    assert make_reader([3, 4]).shards().tolist() == [0, 1]


def test_a_filter_by_frames_holds_in_a_stream_on_every_rank(remote: str, tmp_path: Path) -> None:
    reader = open_dataset(remote, cache_dir=tmp_path / "cache")
    options: dict[str, Any] = {"store": "stream", "cache_dir": tmp_path / "cache", "progress": False}
    wanted = {"episodes": "index != 2", "frames": "timestep % 3 == 1"}
    some = windows(reader, **OFFSETS, filter=wanted, **options)
    assert 0 < len(some) < len(windows(reader, **OFFSETS, **options))
    for rank in range(2):
        for batch in Stream(some, 4, seed=1, buffer=12, rank=rank, world_size=2):
            assert set(batch["timestep"] % 3) == {1}
    items = [list(ShardOrder(some, 4, seed=1, buffer=12, rank=rank, world_size=2)) for rank in range(2)]
    assert not set(items[0]) & set(items[1])
    assert {some.episode_of(item) for rank in items for item in rank} <= set(some.episodes.tolist())
    assert 2 not in some.episodes
