"""TFRecord files: records of bytes, one after the other, each with its length and two checksums.

A record is: length (uint64), masked CRC-32C of the length, data, masked CRC-32C of the data, all little-endian
(https://www.tensorflow.org/tutorials/load_data/tfrecord, "TFRecords format details").
"""

from __future__ import annotations

import mmap
import struct
from pathlib import Path

from menura.data.readers.crc32c import crc32c
from menura.errors import DataError

_HEADER = struct.Struct("<QI")
_FOOTER = struct.Struct("<I")
_GZIP, _ZLIB = b"\x1f\x8b", (b"\x78\x01", b"\x78\x5e", b"\x78\x9c", b"\x78\xda")


class TfRecordFile:
    """One file, mapped into memory: what nobody looks at is not read from the disk.

    Opening walks over the lengths alone, each checked against its checksum. The data of a record is checked by
    `verify`.

    Raises:
        DataError: not there, cut off, compressed, or no TFRecord file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            with path.open("rb") as file:
                empty = path.stat().st_size == 0
                self._bytes = memoryview(b"" if empty else mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
        except OSError as error:
            raise DataError(f"{path}: cannot be read ({error.strerror}). Fetch the file again.") from error
        self._spans = self._walk()

    def __len__(self) -> int:
        """The number of records."""
        return len(self._spans)

    def record(self, index: int) -> memoryview:
        """The data of record `index`, as it lies in the file."""
        start, stop = self._spans[index]
        return self._bytes[start:stop]

    def verify(self, index: int) -> None:
        """DataError when the data of record `index` does not have its checksum."""
        start, stop = self._spans[index]
        (expected,) = _FOOTER.unpack_from(self._bytes, stop)
        if _masked(crc32c(self._bytes[start:stop])) != expected:
            raise DataError(
                f"{self.path}: record {index} (bytes {start} … {stop}): checksum of the data is wrong. "
                f"Fetch the file again."
            )

    def _walk(self) -> list[tuple[int, int]]:
        """(start, stop) of the data of each record."""
        size, offset = len(self._bytes), 0
        spans: list[tuple[int, int]] = []
        while offset < size:
            start = offset + _HEADER.size
            if start > size:
                raise self._cut_off(len(spans), offset)
            length, checksum = _HEADER.unpack_from(self._bytes, offset)
            if _masked(crc32c(self._bytes[offset : offset + 8])) != checksum:
                raise self._no_record(len(spans), offset)
            stop = start + length
            if stop + _FOOTER.size > size:
                raise self._cut_off(len(spans), offset)
            spans.append((start, stop))
            offset = stop + _FOOTER.size
        return spans

    def _cut_off(self, number: int, offset: int) -> DataError:
        return DataError(
            f"{self.path}: cut off: record {number} begins at byte {offset} and does not end within the file's "
            f"{len(self._bytes)} bytes. Fetch the file again."
        )

    def _no_record(self, number: int, offset: int) -> DataError:
        begin = bytes(self._bytes[:2])
        if offset == 0 and (begin == _GZIP or begin in _ZLIB):
            kind = "gzip" if begin == _GZIP else "zlib"
            return DataError(
                f"{self.path}: expected a plain TFRecord file, got one compressed with {kind}. Decompress it first."
            )
        return DataError(
            f"{self.path}: expected record {number} at byte {offset}, got a length whose checksum is wrong. "
            f"The file is damaged or no TFRecord file; fetch it again."
        )


def _masked(checksum: int) -> int:
    """Checksums are stored rotated and shifted, so that data which holds checksums has a checksum of its own."""
    return (((checksum >> 15) | (checksum << 17)) + 0xA282EAD8) & 0xFFFFFFFF
