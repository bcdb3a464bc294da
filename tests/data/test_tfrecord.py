"""TFRecord files: a real one, and what damage does to one."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from menura.data.readers.crc32c import crc32c
from menura.data.readers.tf_example import read_example
from menura.data.readers.tfrecord import TfRecordFile
from menura.errors import DataError

# The first 8 of the 755 records of a D4RL kitchen slice of google-research/ibc.
EXCERPT = Path(__file__).parents[1] / "fixtures" / "rlds" / "ibc_kitchen_excerpt.tfrecord"
WHOLE = Path(__file__).parents[3] / "shared" / "fixtures" / "ibc_kitchen_complete.tfrecord"


def checksum_bit_by_bit(data: bytes) -> int:
    register = 0xFFFFFFFF
    for byte in data:
        register ^= byte
        for _ in range(8):
            register = (register >> 1) ^ (0x82F63B78 if register & 1 else 0)
    return register ^ 0xFFFFFFFF


def masked(checksum: int) -> int:
    return (((checksum >> 15) | (checksum << 17)) + 0xA282EAD8) & 0xFFFFFFFF


def write_records(path: Path, records: list[bytes]) -> Path:
    with path.open("wb") as file:
        for record in records:
            length = struct.pack("<Q", len(record))
            file.write(length + struct.pack("<I", masked(crc32c(length))))
            file.write(record + struct.pack("<I", masked(crc32c(record))))
    return path


# The checksum


@pytest.mark.parametrize(
    ("data", "expected"),
    [(b"", 0), (b"123456789", 0xE3069283), (bytes(32), 0x8A9136AA), (b"\xff" * 32, 0x62A8AB43)],
)
def test_checksums_of_rfc_3720(data: bytes, expected: int) -> None:
    assert crc32c(data) == expected


@pytest.mark.parametrize("length", [16383, 16384, 16385, 40000, 65537])
def test_the_checksum_by_lanes_equals_that_bit_by_bit(length: int) -> None:
    data = np.random.default_rng(length).bytes(length)
    assert crc32c(data) == checksum_bit_by_bit(data)


def test_the_checksum_goes_on_from_block_to_block(monkeypatch: pytest.MonkeyPatch) -> None:
    data = np.random.default_rng(0).bytes(50_000)
    expected = crc32c(data)
    monkeypatch.setattr("menura.data.readers.crc32c._BLOCK", 17_001)
    assert crc32c(data) == expected


# Files


def test_a_real_file() -> None:
    file = TfRecordFile(EXCERPT)
    assert len(file) == 8
    for index in range(8):
        file.verify(index)
    example = read_example(file.record(0), "record 0")
    assert {key: (feature.kind, len(feature)) for key, feature in example.items()} == {
        "action": ("float", 9),
        "discount": ("float", 1),
        "reward": ("float", 1),
        "step_type": ("bytes", 1),
        "observation": ("float", 60),
        "next_step_type": ("bytes", 1),
    }
    # Found in the file by a search for the key: its values follow the tags of the feature, the list and the run.
    raw = EXCERPT.read_bytes()
    at = raw.index(b"\x0a\x06action") + len(b"\x0a\x06action") + len(b"\x12\x28\x12\x26\x0a\x24")
    np.testing.assert_array_equal(example["action"].numbers(), struct.unpack_from("<9f", raw, at))
    assert example["step_type"].texts() == [bytes(4)]
    assert example["discount"].numbers() == [1.0]


def test_the_whole_of_the_real_file() -> None:
    if not WHOLE.exists():
        pytest.skip(f"{WHOLE} is not there; the excerpt of it is tested")
    file = TfRecordFile(WHOLE)
    assert len(file) == 755
    for index in range(755):
        file.verify(index)
        example = read_example(file.record(index), f"record {index}")
        assert example["observation"].numbers().shape == (60,)
        assert np.isfinite(example["action"].numbers()).all()


def test_records_come_back(tmp_path: Path) -> None:
    records = [b"", b"a", np.random.default_rng(0).bytes(70_000)]
    file = TfRecordFile(write_records(tmp_path / "x.tfrecord", records))
    assert [bytes(file.record(index)) for index in range(len(file))] == records
    for index in range(3):
        file.verify(index)


def test_an_empty_file_has_no_records(tmp_path: Path) -> None:
    assert len(TfRecordFile(write_records(tmp_path / "x.tfrecord", []))) == 0


@pytest.mark.parametrize("cut", [1, 5, 11, 12, 30])
def test_a_file_cut_off_is_named_with_the_place(tmp_path: Path, cut: int) -> None:
    path = write_records(tmp_path / "x.tfrecord", [b"first", b"second one"])
    path.write_bytes(path.read_bytes()[: 21 + cut] if cut < 26 else path.read_bytes()[:-1])
    with pytest.raises(DataError, match=r"x\.tfrecord: cut off: record 1 begins at byte 21 "):
        TfRecordFile(path)


def test_changed_data_is_found_when_verified(tmp_path: Path) -> None:
    path = write_records(tmp_path / "x.tfrecord", [b"first", b"second"])
    path.write_bytes(path.read_bytes().replace(b"second", b"sEcond"))
    file = TfRecordFile(path)
    file.verify(0)
    with pytest.raises(DataError, match=r"x\.tfrecord: record 1 \(bytes 33 … 39\): checksum"):
        file.verify(1)


def test_a_changed_length_is_found_at_once(tmp_path: Path) -> None:
    path = write_records(tmp_path / "x.tfrecord", [b"first", b"second"])
    path.write_bytes(path.read_bytes()[:21] + b"\x05" + path.read_bytes()[22:])
    with pytest.raises(DataError, match="expected record 1 at byte 21, got a length whose checksum is wrong"):
        TfRecordFile(path)


@pytest.mark.parametrize(("kind", "bits"), [("gzip", 31), ("zlib", 15)])
def test_compressed_files_are_refused_by_name(tmp_path: Path, kind: str, bits: int) -> None:
    compressor = zlib.compressobj(wbits=bits)
    (tmp_path / "x.tfrecord").write_bytes(compressor.compress(EXCERPT.read_bytes()) + compressor.flush())
    with pytest.raises(DataError, match=f"compressed with {kind}. Decompress it first"):
        TfRecordFile(tmp_path / "x.tfrecord")


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"absent\.tfrecord: cannot be read"):
        TfRecordFile(tmp_path / "absent.tfrecord")


@given(st.binary(max_size=200))
def test_random_bytes_are_an_error_or_a_file(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "random.tfrecord"
    path.write_bytes(data)
    try:
        file = TfRecordFile(path)
    except DataError:
        return
    assert len(file) == 0 or sum(len(file.record(index)) for index in range(len(file))) <= len(data)
