"""The wire format of tf.Example, against an encoder of a few lines and against random bytes."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from menura.data.readers.tf_example import Feature, read_example, read_varints
from menura.errors import DataError


def varint(value: int) -> bytes:
    value &= 2**64 - 1
    encoded = b""
    while value >= 0x80:
        encoded += bytes([value & 0x7F | 0x80])
        value >>= 7
    return encoded + bytes([value])


def message(number: int, content: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(content)) + content


def feature(values: Sequence[Any], packed: bool = True) -> bytes:
    if isinstance(values[0], bytes):
        return message(1, b"".join(message(1, value) for value in values))
    if isinstance(values[0], float):
        each = [np.float32(value).tobytes() for value in values]
        return message(2, message(1, b"".join(each)) if packed else b"".join(b"\x0d" + value for value in each))
    whole = [varint(value) for value in values]
    return message(3, message(1, b"".join(whole)) if packed else b"".join(b"\x08" + value for value in whole))


def features(columns: Mapping[str, Sequence[Any]], packed: bool = True) -> bytes:
    entries = (message(1, key.encode()) + message(2, feature(column, packed)) for key, column in columns.items())
    return b"".join(message(1, entry) for entry in entries)


def values_of(feature: Feature) -> list[Any]:
    return feature.texts() if feature.kind == "bytes" else feature.numbers().tolist()


floats = st.floats(width=32, allow_nan=False)
integers = st.integers(-(2**63), 2**63 - 1)
columns = st.dictionaries(
    st.text(max_size=5),
    st.one_of(*(st.lists(kind, min_size=1, max_size=6) for kind in (floats, integers, st.binary(max_size=200)))),
    max_size=4,
)


@given(columns, st.booleans())
def test_an_example_comes_back(given_columns: dict[str, list[Any]], packed: bool) -> None:
    example = read_example(memoryview(message(1, features(given_columns, packed))), "here")
    assert {key: values_of(found) for key, found in example.items()} == given_columns
    assert {key: len(found) for key, found in example.items()} == {k: len(v) for k, v in given_columns.items()}


@given(st.lists(integers))
def test_varints_come_back(numbers: list[int]) -> None:
    assert read_varints(memoryview(b"".join(map(varint, numbers))), "here").tolist() == numbers


@given(st.binary(max_size=300))
def test_random_bytes_are_an_error_or_an_example(data: bytes) -> None:
    with contextlib.suppress(DataError):
        for found in read_example(memoryview(data), "here").values():
            len(found)
            values_of(found)


@given(columns.filter(bool), st.data())
def test_a_changed_byte_is_an_error_or_an_example(given_columns: dict[str, list[Any]], data: st.DataObject) -> None:
    record = bytearray(message(1, features(given_columns)))
    record[data.draw(st.integers(0, len(record) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(DataError):
        for found in read_example(memoryview(record), "here").values():
            values_of(found)


def test_an_empty_feature_has_no_kind_and_no_values() -> None:
    entry = message(1, b"k") + message(2, b"")
    found = read_example(memoryview(message(1, message(1, entry))), "here")["k"]
    assert (found.kind, len(found), found.texts(), found.numbers().tolist()) == (None, 0, [], [])


def test_lists_in_two_pieces_are_joined() -> None:
    entry = message(1, b"k") + message(2, feature([1, 300]) + feature([-1]))
    found = read_example(memoryview(message(1, message(1, entry))), "here")["k"]
    assert (len(found), found.numbers().tolist()) == (3, [1, 300, -1])


def test_unknown_fields_are_passed_over() -> None:
    strange = b"\x78\x05" + b"\x7d" + bytes(4) + b"\x79" + bytes(8) + message(15, b"abc")
    record = strange + message(1, features({"k": [7]})) + strange
    assert read_example(memoryview(record), "here")["k"].numbers().tolist() == [7]


@pytest.mark.parametrize(
    ("record", "problem"),
    [
        (message(1, features({"k": [7]}))[:-1], "expected 12 bytes in field 1, got 11"),
        (b"\x0b", "wire types 0, 1, 2, 5, got 3"),
        (b"\x08\x01", "expected a message in field 1"),
        (b"\xff" * 11, "bytes that end within"),
        (message(1, message(1, message(1, b"\xff\xfe"))), "expected keys in UTF-8"),
    ],
)
def test_what_is_wrong_is_said(record: bytes, problem: str) -> None:
    with pytest.raises(DataError, match=f"here: .*{problem}"):
        read_example(memoryview(record), "here")


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (message(2, message(1, b"abc")), "expected floats of 4 bytes each, got 3"),
        (message(3, message(1, b"\x80")), "one that is cut off"),
        (message(3, message(1, b"\x80" * 10 + b"\x01")), "at most 10 bytes, got one of 11"),
        (message(1, message(1, b"abc")), "expected numbers, got bytes"),
        (message(3, b"\x0d" + bytes(4)), "expected int64 values, got protobuf's wire type 5"),
    ],
)
def test_what_is_wrong_with_values_is_said_with_the_key(content: bytes, problem: str) -> None:
    entry = message(1, b"some/key") + message(2, content)
    found = read_example(memoryview(message(1, message(1, entry))), "here")["some/key"]
    with pytest.raises(DataError, match=f"here: some/key: .*{problem}"):
        found.numbers()
