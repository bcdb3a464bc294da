"""`tf.train.Example` from its bytes: of protobuf's wire format just what it needs.

    Example          { Features features = 1 }
    Features         { map<string, Feature> feature = 1 }
    Feature          { oneof: BytesList = 1, FloatList = 2, Int64List = 3 }, each { repeated value = 1 }, numbers packed

(https://protobuf.dev/programming-guides/encoding, tensorflow/core/example/{example,feature}.proto). Reading an example
finds where the values of each key lie; they are read when asked for, so that large ones cost nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from menura.errors import DataError

Kind = Literal["bytes", "float", "int64"]
_KINDS: dict[int, Kind] = {1: "bytes", 2: "float", 3: "int64"}
_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5
_WIRES: dict[Kind, tuple[int, ...]] = {
    "bytes": (_LENGTH,),
    "float": (_LENGTH, _FIXED32),
    "int64": (_LENGTH, _VARINT),
}
_LONGEST_VARINT = 10


class Feature:
    """The values of one key, not looked at before asked for.

    Args:
        message: the feature as it lies in the record.
        what: the record and the key, for messages.
    """

    def __init__(self, message: memoryview, what: str) -> None:
        self.what = what
        self._message = message

    @property
    def kind(self) -> Kind | None:
        """Of which list its values are; None where the writer left it empty."""
        return self._lists[0]

    def __len__(self) -> int:
        """How many values, without reading them."""
        count = 0
        for wire, value in self._parts():
            if wire != _LENGTH or self.kind == "bytes":
                count += 1
            elif self.kind == "float":
                count += len(value) // 4
            else:
                count += int((np.frombuffer(value, np.uint8) < 0x80).sum())
        return count

    def texts(self) -> list[bytes]:
        """The values of a bytes list.

        Raises:
            DataError: numbers.
        """
        if self.kind not in ("bytes", None):
            raise DataError(f"{self.what}: expected bytes, got {self.kind} values.")
        return [bytes(value) for _, value in self._parts()]

    def numbers(self) -> NDArray[np.float32] | NDArray[np.int64]:
        """(n,) the values of a float list (float32) or an integer list (int64); float32 where there are none.

        Raises:
            DataError: bytes, or numbers that are cut off.
        """
        if self.kind == "bytes":
            raise DataError(f"{self.what}: expected numbers, got bytes.")
        if self.kind == "int64":
            integers = [read_varints(value, self.what) for _, value in self._parts()]
            return np.concatenate(integers) if integers else np.zeros(0, np.int64)
        floats = [self._floats(value) for _, value in self._parts()]
        return floats[0] if len(floats) == 1 else np.concatenate([np.zeros(0, np.float32), *floats])

    def _floats(self, packed: memoryview) -> NDArray[np.float32]:
        if len(packed) % 4:
            raise DataError(f"{self.what}: expected floats of 4 bytes each, got {len(packed)} bytes.")
        return np.frombuffer(packed, "<f4")

    @cached_property
    def _lists(self) -> tuple[Kind | None, list[memoryview]]:
        """The kind and its lists. Protobuf joins lists of one kind; of several kinds the last counts."""
        kind: Kind | None = None
        lists: list[memoryview] = []
        for number, wire, value in _fields(self._message, self.what):
            if number in _KINDS:
                _expect_message(number, wire, self.what)
                lists = [*lists, value] if kind == _KINDS[number] else [value]
                kind = _KINDS[number]
        return kind, lists

    def _parts(self) -> Iterator[tuple[int, memoryview]]:
        """(wire type, bytes) of each run of packed numbers, or of each single value."""
        kind, lists = self._lists
        allowed = _WIRES[kind] if kind else ()
        for values in lists:
            for number, wire, value in _fields(values, self.what):
                if number != 1:
                    continue
                if wire not in allowed:
                    raise DataError(f"{self.what}: expected {kind} values, got protobuf's wire type {wire}.")
                yield wire, value


def read_example(record: memoryview, what: str) -> dict[str, Feature]:
    """The features of a `tf.train.Example` by key; `what` names the record in messages.

    Raises:
        DataError: the bytes are none.
    """
    return {
        key: Feature(message, f"{what}: {key}")
        for features in _messages(record, 1, what)
        for key, message in _entries(features, what)
    }


def read_varints(packed: memoryview, what: str) -> NDArray[np.int64]:
    """(n,) the integers of a packed list: seven bits a byte, lowest first, the high bit set on all but the last.

    Raises:
        DataError: the last one is cut off, or one is longer than ten bytes.
    """
    data = np.frombuffer(packed, np.uint8)
    ends = np.flatnonzero(data < 0x80)
    if len(data) == 0:
        return np.zeros(0, np.int64)
    if len(ends) == 0 or ends[-1] != len(data) - 1:
        raise DataError(f"{what}: expected whole integers, got one that is cut off.")
    if len(ends) == len(data):  # booleans and small numbers
        return data.astype(np.int64)
    starts = np.concatenate([[0], ends[:-1] + 1])
    sizes = ends - starts + 1
    if sizes.max() > _LONGEST_VARINT:
        raise DataError(f"{what}: expected integers of at most {_LONGEST_VARINT} bytes, got one of {sizes.max()}.")
    values = np.zeros(len(ends), np.uint64)
    for position in range(int(sizes.max())):
        longer = np.flatnonzero(sizes > position)
        bits = (data[starts[longer] + position] & 0x7F).astype(np.uint64)
        values[longer] |= bits << np.uint64(7 * position)
    return values.view(np.int64)


def _entries(message: memoryview, what: str) -> Iterator[tuple[str, memoryview]]:
    """(key, value) of each entry of a map, which protobuf writes as messages { key = 1, value = 2 }."""
    for entry in _messages(message, 1, what):
        key, content = "", memoryview(b"")
        for number, wire, value in _fields(entry, what):
            if number in (1, 2):
                _expect_message(number, wire, what)
            if number == 1:
                try:
                    key = str(value, "utf-8")
                except UnicodeDecodeError as error:
                    raise DataError(f"{what}: expected keys in UTF-8, got {bytes(value[:40])!r}.") from error
            elif number == 2:
                content = value
        yield key, content


def _messages(message: memoryview, wanted: int, what: str) -> Iterator[memoryview]:
    """The messages in field `wanted`."""
    for number, wire, value in _fields(message, what):
        if number == wanted:
            _expect_message(number, wire, what)
            yield value


def _expect_message(number: int, wire: int, what: str) -> None:
    if wire != _LENGTH:
        raise DataError(f"{what}: expected a message in field {number}, got protobuf's wire type {wire}.")


def _fields(message: memoryview, what: str) -> Iterator[tuple[int, int, memoryview]]:
    """(field number, wire type, bytes) of each field; of a length-delimited one its content, without the length."""
    offset, size = 0, len(message)
    while offset < size:
        tag, start = _varint(message, offset, what)
        number, wire = tag >> 3, tag & 7
        if wire == _LENGTH:
            length, start = _varint(message, start, what)
        elif wire == _VARINT:
            length = _varint(message, start, what)[1] - start
        elif wire in (_FIXED32, _FIXED64):
            length = 4 if wire == _FIXED32 else 8
        else:
            raise DataError(f"{what}: expected protobuf's wire types 0, 1, 2, 5, got {wire}. It is no tf.Example.")
        offset = start + length
        if offset > size:
            raise DataError(
                f"{what}: expected {length} bytes in field {number}, got {size - start}. It is no tf.Example."
            )
        yield number, wire, message[start:offset]


def _varint(message: memoryview, offset: int, what: str) -> tuple[int, int]:
    """(value, the offset behind it) of the integer at `offset`."""
    if offset < len(message) and message[offset] < 0x80:  # nearly all of them
        return message[offset], offset + 1
    value = 0
    for position, byte in enumerate(message[offset : offset + _LONGEST_VARINT]):
        value |= (byte & 0x7F) << (7 * position)
        if byte < 0x80:
            return value, offset + position + 1
    raise DataError(f"{what}: expected an integer, got bytes that end within one. It is no tf.Example.")
