"""CRC-32C (Castagnoli), the checksum of TFRecord files, by numpy.

The register of a CRC is linear over GF(2), so data is cut into lanes of equal length, the registers of all lanes are
advanced together by table look-ups, two bytes a step, and are then joined in pairs: the left one of a pair is moved
over as many zero bytes as the right one is long. Polynomial 0x1EDC6F41, bits reflected (RFC 3720, appendix B.4).
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

_REFLECTED_POLYNOMIAL = 0x82F63B78
_ALL_ONES = 0xFFFFFFFF
_SHORT = 1 << 14  # bytes; below, plain steps are faster than arrays
_BLOCK = 1 << 22  # bytes handled at a time, which bounds the memory
_WORDS_PER_LANE = 128

UInt32 = NDArray[np.uint32]


def crc32c(data: bytes | memoryview) -> int:
    """The checksum of `data`, as an unsigned 32-bit number."""
    register = _ALL_ONES
    if len(data) < _SHORT:
        table = _byte_table()
        for byte in data:
            register = table[(register ^ byte) & 0xFF] ^ (register >> 8)
        return register ^ _ALL_ONES
    array = np.frombuffer(data, np.uint8)
    for start in range(0, len(array), _BLOCK):
        block = array[start : start + _BLOCK]
        moved = _move(np.array([register], np.uint32), _zeros(len(block)))
        register = int(moved[0]) ^ _register_of(block)
    return register ^ _ALL_ONES


def _register_of(block: NDArray[np.uint8]) -> int:
    """The register after `block`, begun at zero."""
    lanes = 1 << max(0, (len(block) // (2 * _WORDS_PER_LANE)).bit_length() - 1)
    words = -(-len(block) // (2 * lanes))
    padded = np.zeros(2 * lanes * words, np.uint8)  # zeros in front leave a register of zero as it is
    padded[len(padded) - len(block) :] = block
    columns = np.ascontiguousarray(padded.view("<u2").reshape(lanes, words).T)
    table = _word_table()
    registers: UInt32 = np.zeros(lanes, np.uint32)
    for column in columns:
        registers = table[(registers ^ column) & np.uint32(0xFFFF)] ^ (registers >> np.uint32(16))
    length = 2 * words
    while len(registers) > 1:
        registers = _move(registers[0::2], _zeros(length)) ^ registers[1::2]
        length *= 2
    return int(registers[0])


@lru_cache(maxsize=1)
def _byte_table() -> list[int]:
    table = []
    for value in range(256):
        for _ in range(8):
            value = (value >> 1) ^ (_REFLECTED_POLYNOMIAL if value & 1 else 0)
        table.append(value)
    return table


@lru_cache(maxsize=1)
def _word_table() -> UInt32:
    """Of each 16-bit value: the register two zero bytes later."""
    table = np.array(_byte_table(), np.uint32)
    registers: UInt32 = np.arange(1 << 16, dtype=np.uint32)
    for _ in range(2):
        registers = table[registers & np.uint32(0xFF)] ^ (registers >> np.uint32(8))
    return registers


@lru_cache(maxsize=256)
def _zeros(count: int) -> UInt32:
    """(32,) where each bit of a register goes over `count` zero bytes."""
    bits: UInt32 = np.uint32(1) << np.arange(32, dtype=np.uint32)
    if count == 0:
        return bits
    half = _zeros(count // 2)
    moved = _move(half, half)
    if count % 2:
        table = np.array(_byte_table(), np.uint32)
        moved = table[moved & np.uint32(0xFF)] ^ (moved >> np.uint32(8))
    return moved


def _move(registers: UInt32, images: UInt32) -> UInt32:
    """The registers under the linear map that takes bit i to `images[i]`."""
    moved = np.zeros_like(registers)
    for bit, image in enumerate(images):
        moved ^= ((registers >> np.uint32(bit)) & np.uint32(1)) * image
    return moved
