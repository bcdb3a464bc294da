"""Rows for many windows at once: the same as slicing them one by one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from menura.data import gathering
from menura.data.gathering import GatheredChunks, MappedTable, PaddedChunks, chunks

OFFSETS = [range(4), range(-2, 1), (0,), (-1, 0, 3), range(1, 20), (0, 2, 4)]


@given(
    lengths=st.lists(st.integers(1, 12), min_size=1, max_size=6),
    offsets=st.sampled_from(OFFSETS),
    wanted=st.lists(st.integers(0, 1000), min_size=1, max_size=20),
    width=st.integers(1, 3),
)
def test_the_same_as_one_by_one(lengths: list[int], offsets: range, wanted: list[int], width: int) -> None:
    starts = np.concatenate([[0], np.cumsum(lengths)])
    rows = np.array(wanted) % starts[-1]
    episodes = np.searchsorted(starts, rows, side="right") - 1
    first, last = starts[episodes], starts[episodes + 1] - 1
    table = np.random.default_rng(0).normal(size=(starts[-1], width)).astype(np.float32)
    ends = (starts[:-1], starts[1:] - 1)
    ways = [chunks(table, np.array(offsets), *ends), GatheredChunks(table, np.array(offsets), *ends)]
    for taken, is_pad in (way.take(rows, episodes) for way in ways):
        assert taken.shape == (len(rows), len(offsets), width)
        assert is_pad.shape == (len(rows), len(offsets))
        for item, row in enumerate(rows):
            for place, offset in enumerate(offsets):
                assert is_pad[item, place] == (not first[item] <= row + offset <= last[item])
                nearest = table[min(max(row + offset, first[item]), last[item])]
                np.testing.assert_array_equal(taken[item, place], nearest)


def test_small_tables_of_consecutive_offsets_are_padded(monkeypatch: pytest.MonkeyPatch) -> None:
    table, ends = np.zeros((10, 2), np.float32), (np.array([0, 6]), np.array([5, 9]))
    assert isinstance(chunks(table, np.arange(-1, 4), *ends), PaddedChunks)
    assert isinstance(chunks(table, np.array([0, 2]), *ends), GatheredChunks)
    assert isinstance(chunks(table[:, :0], np.arange(3), *ends), GatheredChunks)
    monkeypatch.setattr(gathering, "PADDED_BYTES", 8 * (10 + 2 * 4))
    assert isinstance(chunks(table, np.arange(-1, 4), *ends), PaddedChunks)
    assert isinstance(chunks(table, np.arange(-1, 5), *ends), GatheredChunks)


def test_what_is_taken_is_the_takers() -> None:
    table = np.zeros((10, 2), np.float32)
    rows = np.array([0, 1])
    way = chunks(table, np.arange(3), np.array([0]), np.array([9]))
    taken, is_pad = way.take(rows, np.zeros(2, np.int64))
    taken += 1
    is_pad[:] = True
    again, flags = way.take(rows, np.zeros(2, np.int64))
    assert not table.any()
    assert not again.any()
    assert not flags.any()
    assert (rows == [0, 1]).all()


def test_a_mapped_table_lets_go_of_its_pages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def of_files() -> int:
        (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("RssFile"))
        return 1024 * int(line.split()[1])

    if not Path("/proc/self/status").exists():
        pytest.skip("needs /proc")
    monkeypatch.setattr(gathering, "RESIDENT_BYTES", 4_000_000)
    rows, width = 400, 100_000  # 40 MB
    np.save(tmp_path / "table.npy", np.arange(rows, dtype=np.uint8)[:, None].repeat(width, axis=1))
    mapped = np.load(tmp_path / "table.npy", mmap_mode="r")
    table, before = MappedTable(mapped), of_files()
    for start in range(0, rows, 10):
        taken = table.take(np.arange(start, start + 10))
        np.testing.assert_array_equal(taken[:, 0], mapped[start : start + 10, 0])
        assert of_files() - before < 10e6
    np.testing.assert_array_equal(table.take(np.arange(rows))[:, -1], np.arange(rows, dtype=np.uint8))


def test_a_table_in_memory_is_taken_from_as_well() -> None:
    table = np.arange(12).reshape(6, 2)
    np.testing.assert_array_equal(MappedTable(table).take(np.array([4, 4, 0])), table[[4, 4, 0]])
