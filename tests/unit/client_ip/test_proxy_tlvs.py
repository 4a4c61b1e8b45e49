"""TLVs: what they tell, and how they are passed on."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from v6fwd.client_ip.proxy.crc32c import crc32c
from v6fwd.client_ip.proxy.read import Header, ProxyHeaderError, read_header
from v6fwd.client_ip.proxy.tlvs import CRC32C, Tlv, add_tlvs, each_tlv
from v6fwd.client_ip.proxy.write import write_v1, write_v2
from v6fwd.model import Address

SOURCE = Address(bytes.fromhex("20010db8000100000000000000000002"), 54321)
DESTINATION = Address(bytes.fromhex("20010db8000100000000000000000001"), 443)
ADDRESSES = write_v2(SOURCE, DESTINATION)
LARGEST = 0xFFFF

ALPN = Tlv(0x01, b"h2")
AUTHORITY = Tlv(0x02, b"www.example.org")
CHECKSUM = Tlv(CRC32C, b"\1\2\3\4")
UNIQUE_ID = Tlv(0x05, b"unique")
TLS = Tlv(0x20, b"\x01" + bytes(4) + Tlv(0x21, b"TLSv1.3").packed())
AWS = Tlv(0xEA, b"\x01vpce-08d2bf15fac5001c9")


def block(*tlvs: Tlv) -> bytes:
    """TLVs as they stand in a header."""
    return b"".join(tlv.packed() for tlv in tlvs)


def read(header: bytes) -> Header:
    """What a receiver reads in a whole header; the checksum is verified by that."""
    found = read_header(header)
    assert found is not None
    assert found.length == len(header)
    return found


def test_tlvs_are_read() -> None:
    header = ADDRESSES[:14] + struct.pack(">H", 36 + len(block(ALPN, TLS))) + ADDRESSES[16:]
    found = read(header + block(ALPN, TLS))
    assert [*each_tlv(found.tlvs)] == [ALPN, TLS]
    assert (found.source, found.destination) == (SOURCE, DESTINATION)


@pytest.mark.parametrize(
    ("tlvs", "expected"),
    [
        ((TLS,), True),
        ((ALPN, AWS, TLS), True),
        ((), False),
        ((ALPN, AWS), False),
        ((Tlv(0x20, b""),), False),
        ((Tlv(0x20, b"\x06" + bytes(4)),), False),
        ((Tlv(0x20, b"\x07" + bytes(4)),), True),
        ((Tlv(0x21, b"\x01"),), False),
    ],
)
def test_whether_the_client_spoke_tls(tlvs: tuple[Tlv, ...], expected: bool) -> None:
    """Section 2.2.6: the bit PP2_CLIENT_SSL of a TLV of type 0x20."""
    assert read(add_tlvs(ADDRESSES, block(*tlvs), LARGEST)).is_tls is expected


def test_all_are_passed_on_in_ascending_order() -> None:
    found = read(add_tlvs(ADDRESSES, block(AWS, TLS, AUTHORITY, UNIQUE_ID, ALPN), LARGEST))
    assert [*each_tlv(found.tlvs)] == [ALPN, AUTHORITY, UNIQUE_ID, TLS, AWS]
    assert (found.source, found.destination) == (SOURCE, DESTINATION)


@pytest.mark.parametrize("others", [(), (ALPN, AWS)])
def test_a_checksum_is_made_anew(others: tuple[Tlv, ...]) -> None:
    header = add_tlvs(ADDRESSES, block(*others, CHECKSUM), LARGEST)
    (made,) = [tlv for tlv in each_tlv(read(header).tlvs) if tlv.type == CRC32C]
    at = header.rindex(made.packed()) + 3
    assert made.value == crc32c(header[:at] + bytes(4) + header[at + 4 :]).to_bytes(4, "big")
    assert made.value != CHECKSUM.value


@pytest.mark.parametrize(
    ("largest", "kept"),
    [
        (52, []),
        (56, []),
        (57, [ALPN]),
        (52 + 5 + 18, [ALPN, AUTHORITY]),
        (52 + 5 + 9, [ALPN, UNIQUE_ID]),
        (0, []),
    ],
)
def test_what_is_too_large_is_left_out(largest: int, kept: list[Tlv]) -> None:
    header = add_tlvs(ADDRESSES, block(ALPN, AUTHORITY, UNIQUE_ID), largest)
    assert [*each_tlv(read(header).tlvs)] == kept
    assert len(header) <= max(largest, 52)


@pytest.mark.parametrize(("largest", "types"), [(58, []), (59, [3]), (63, [3]), (64, [1, 3])])
def test_room_for_the_checksum_comes_first(largest: int, types: list[int]) -> None:
    header = add_tlvs(ADDRESSES, block(ALPN, CHECKSUM), largest)
    assert [tlv.type for tlv in each_tlv(read(header).tlvs)] == types


def test_v1_has_none() -> None:
    line = write_v1(SOURCE, DESTINATION)
    assert add_tlvs(line, block(ALPN), LARGEST) == line


def test_one_checksum_alone() -> None:
    """Each costs a walk over the whole header, of up to 64 KiB."""
    good = add_tlvs(ADDRESSES, block(CHECKSUM), LARGEST)
    twice = good[:14] + struct.pack(">H", 36 + 14) + good[16:] + CHECKSUM.packed()
    body = bytearray(twice)
    body[55:59] = bytes(4)
    body[55:59] = crc32c(bytes(body)).to_bytes(4, "big")
    with pytest.raises(ProxyHeaderError, match="more than one CRC32C"):
        read_header(bytes(body))


@given(
    st.lists(st.builds(Tlv, st.integers(0, 255), st.binary(max_size=60)), max_size=12),
    st.integers(0, 600),
)
def test_what_is_passed_on_is_read(tlvs: list[Tlv], largest: int) -> None:
    sums = [tlv for tlv in tlvs if tlv.type == CRC32C]
    told = [tlv for tlv in tlvs if tlv.type != CRC32C] + [CHECKSUM for _ in sums[:1]]
    header = add_tlvs(ADDRESSES, block(*told), largest)
    found = [*each_tlv(read(header).tlvs)]
    assert len(header) <= max(largest, len(ADDRESSES))
    assert [tlv.type for tlv in found] == sorted(tlv.type for tlv in found)
    assert all(tlv in told for tlv in found if tlv.type != CRC32C)
