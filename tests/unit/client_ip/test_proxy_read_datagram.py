"""PROXY headers in datagrams: each stands alone, whole or refused."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.client_ip.strategies import PAIRS
from v6fwd.client_ip.proxy.read import Header, ProxyHeaderError, read_datagram_header
from v6fwd.client_ip.proxy.write import write_v1, write_v2, write_v2_dgram
from v6fwd.model import Address

SIGNATURE = bytes.fromhex("0d0a0d0a000d0a515549540a")


@given(PAIRS, st.binary(max_size=100))
def test_what_we_write_reads_back(pair: tuple[Address, Address], payload: bytes) -> None:
    header = write_v2_dgram(*pair)
    assert read_datagram_header(header + payload) == Header(len(header), *pair)


@given(PAIRS, st.data())
def test_half_a_header_is_none(pair: tuple[Address, Address], data: st.DataObject) -> None:
    header = write_v2_dgram(*pair)
    length = data.draw(st.integers(0, len(header) - 1))
    with pytest.raises(ProxyHeaderError):
        read_datagram_header(header[:length])


@given(PAIRS)
def test_other_headers_are_refused(pair: tuple[Address, Address]) -> None:
    with pytest.raises(ProxyHeaderError, match="no PROXY v2 header"):
        read_datagram_header(write_v1(*pair))
    byte = write_v2(*pair)[13]
    why = f"PROXY v2 family 0x{byte:02x} is for streams, this is UDP"
    with pytest.raises(ProxyHeaderError, match=re.escape(why)):
        read_datagram_header(write_v2(*pair))


def test_local_and_unspecified_name_nobody() -> None:
    assert read_datagram_header(SIGNATURE + b"\x20\x00\0\0payload") == Header(16)
    assert read_datagram_header(SIGNATURE + b"\x21\x00\0\3\4\0\0payload") == Header(
        19, tlvs=b"\4\0\0"
    )


@given(st.binary(max_size=300))
def test_garbage_is_read_or_refused(data: bytes) -> None:
    for start in (b"", SIGNATURE, SIGNATURE + b"\x21", SIGNATURE + b"\x21\x12\0"):
        try:
            header = read_datagram_header(start + data)
        except ProxyHeaderError:
            continue
        assert 16 <= header.length <= len(start + data)
