"""CRC-32C against the answers that RFC 3720 gives."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from v6fwd.client_ip.proxy.crc32c import crc32c

# RFC 3720, B.4; its iSCSI read command is the last one. The bytes there are in wire order.
RFC_3720_COMMAND = bytes.fromhex(
    "01c00000 00000000 00000000 00000000 14000000 00000400 00000014 00000018"
    "28000000 00000000 02000000 00000000"
)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        pytest.param(b"", 0, id="nothing"),
        pytest.param(b"123456789", 0xE3069283, id="check value"),
        pytest.param(bytes(32), 0x8A9136AA, id="zeros"),
        pytest.param(b"\xff" * 32, 0x62A8AB43, id="ones"),
        pytest.param(bytes(range(32)), 0x46DD794E, id="incrementing"),
        pytest.param(bytes(reversed(range(32))), 0x113FDB5C, id="decrementing"),
        pytest.param(RFC_3720_COMMAND, 0xD9963A56, id="iscsi read"),
    ],
)
def test_known_answers(data: bytes, expected: int) -> None:
    assert crc32c(data) == expected


def by_division(data: bytes) -> int:
    """The definition: the remainder modulo the polynomial, one reflected bit at a time."""
    crc = 0xFFFFFFFF
    for bit in (byte >> at & 1 for byte in data for at in range(8)):
        crc = crc >> 1 ^ (0x82F63B78 if (crc ^ bit) & 1 else 0)
    return crc ^ 0xFFFFFFFF


@settings(max_examples=50, deadline=None)
@given(st.binary(max_size=64))
def test_the_table_agrees_with_the_definition(data: bytes) -> None:
    assert crc32c(data) == by_division(data)


@pytest.mark.parametrize("size", [*range(120, 140), 255, 256, 257, 1000, 4095, 4096, 70_001])
def test_long_data_agrees_with_the_definition(size: int) -> None:
    data = random.Random(size).randbytes(size)
    assert crc32c(data) == by_division(data)


@given(st.binary(min_size=1, max_size=300), st.data())
def test_one_bit_changes_it(data: bytes, draw: st.DataObject) -> None:
    at = draw.draw(st.integers(0, len(data) * 8 - 1))
    changed = bytearray(data)
    changed[at // 8] ^= 1 << at % 8
    assert crc32c(bytes(changed)) != crc32c(data)
