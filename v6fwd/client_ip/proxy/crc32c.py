"""CRC-32C (Castagnoli): RFC 3720, 12.1; the checksum of PROXY v2 (section 2.2.3.3)."""

from __future__ import annotations

import functools

_REFLECTED_POLYNOMIAL = 0x82F63B78
_INITIAL = _FINAL = 0xFFFFFFFF
_FOLDED_FROM = 128
"""Bytes from which on folding is cheaper than the table, which takes 50 ns a byte."""


def _entry(value: int) -> int:
    for _ in range(8):
        value = value >> 1 ^ (_REFLECTED_POLYNOMIAL if value & 1 else 0)
    return value


_TABLE = [_entry(byte) for byte in range(256)]


def crc32c(data: bytes) -> int:
    """The checksum of `data`: 0 to 2**32 - 1; of b"123456789" it is 0xE3069283."""
    if len(data) < _FOLDED_FROM:
        return _remainder(data, _INITIAL) ^ _FINAL
    return _remainder(_folded(data), 0) ^ _FINAL


def _remainder(data: bytes, crc: int) -> int:
    for byte in data:
        crc = crc >> 8 ^ _TABLE[(crc ^ byte) & 0xFF]
    return crc


def _folded(data: bytes) -> bytes:
    """Shorter data with the same remainder; the initial value is in it.

    The data is a polynomial whose highest power is the lowest bit. The half with the higher
    powers is a multiple of x^k, and that is as good as x^k's remainder, which has 32 bits. So the
    half times the remainder is added to the other half: 16 additions of long integers, on average.
    """
    size = len(data)
    bits = int.from_bytes(data, "little") ^ _INITIAL
    while size >= _FOLDED_FROM:
        half = 1 << (size // 2).bit_length() - 1
        high, bits = bits & (1 << 8 * half) - 1, bits >> 8 * half << 32
        for shift in _powers(half):
            bits ^= high << shift
        size -= half - 4
    return bits.to_bytes(size, "little")


@functools.cache  # for powers of two only
def _powers(size: int) -> tuple[int, ...]:
    """How far to shift for each term of the remainder of x^(8 * size)."""
    remainder = 1 << 31
    for _ in range(size):
        remainder = remainder >> 8 ^ _TABLE[remainder & 0xFF]
    return tuple(bit + 1 for bit in range(32) if remainder >> bit & 1)
