"""The PROXY header that a target reads: exact bytes, and what other decoders make of it."""

from __future__ import annotations

import ipaddress
import socket

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from proxyprotocol.result import ProxyResult, ProxyResultIPv4, ProxyResultIPv6
from proxyprotocol.v1 import ProxyProtocolV1
from proxyprotocol.v2 import ProxyProtocolV2

from tests.unit.client_ip.strategies import MIXED_PAIRS, PAIRS
from v6fwd.client_ip.proxy.read import Header, read_header
from v6fwd.client_ip.proxy.write import (
    HeaderWriter,
    datagram_header_writer,
    header_writer,
    write_v1,
    write_v2,
    write_v2_dgram,
)
from v6fwd.model import MAPPED_PREFIX, Address, ClientIP

Pair = tuple[Address, Address]

V1_MOST = 104  # section 2.1: the longest TCP6 line
V2_START = bytes.fromhex("0d0a0d0a000d0a515549540a")


def address(host: str, port: int) -> Address:
    """An Address as text gives it: nothing is unmapped."""
    return Address(ipaddress.ip_address(host).packed, port)


def as_ipv6(one: Address) -> Address:
    """What stands in a header of the IPv6 family."""
    return one if len(one.packed) == 16 else Address(MAPPED_PREFIX + one.packed, one.port)


CLIENT4, HOST4 = address("203.0.113.2", 54321), address("203.0.113.1", 80)
CLIENT6, HOST6 = address("2001:db8:1::2", 54321), address("2001:db8:1::1", 80)
FULL6 = "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"

V1_LINES = [
    pytest.param(CLIENT4, HOST4, "TCP4 203.0.113.2 203.0.113.1 54321 80", id="tcp4"),
    pytest.param(CLIENT6, HOST6, "TCP6 2001:db8:1::2 2001:db8:1::1 54321 80", id="tcp6"),
    pytest.param(
        CLIENT4, HOST6, "TCP6 ::ffff:203.0.113.2 2001:db8:1::1 54321 80", id="ipv4 promoted"
    ),
    pytest.param(
        CLIENT6, HOST4, "TCP6 2001:db8:1::2 ::ffff:203.0.113.1 54321 80", id="host promoted"
    ),
    pytest.param(
        address("0.0.0.0", 0),
        address("255.255.255.255", 65535),
        "TCP4 0.0.0.0 255.255.255.255 0 65535",
        id="extremes of tcp4",
    ),
    pytest.param(
        address("::", 65535), address(FULL6, 1), f"TCP6 :: {FULL6} 65535 1", id="extremes of tcp6"
    ),
]


@pytest.mark.parametrize(("source", "destination", "line"), V1_LINES)
def test_v1_line(source: Address, destination: Address, line: str) -> None:
    assert write_v1(source, destination) == f"PROXY {line}\r\n".encode()


@pytest.mark.parametrize(
    ("host", "most"), [(FULL6, 104), ("255.255.255.255", 56)], ids=["tcp6", "tcp4"]
)
def test_the_longest_v1_lines(host: str, most: int) -> None:
    """Section 2.1 counts them: 56 characters for TCP4, 104 for TCP6."""
    widest = address(host, 65535)
    assert len(write_v1(widest, widest)) == most


V2_HEADERS = [
    pytest.param(CLIENT4, HOST4, "2111000c cb007102 cb007101 d431 0050", id="tcp4"),
    pytest.param(
        CLIENT6,
        HOST6,
        "21210024 20010db8000100000000000000000002 20010db8000100000000000000000001 d431 0050",
        id="tcp6",
    ),
    pytest.param(
        CLIENT4,
        HOST6,
        "21210024 00000000000000000000ffffcb007102 20010db8000100000000000000000001 d431 0050",
        id="ipv4 promoted",
    ),
    pytest.param(
        CLIENT6,
        HOST4,
        "21210024 20010db8000100000000000000000002 00000000000000000000ffffcb007101 d431 0050",
        id="host promoted",
    ),
    pytest.param(
        address("0.0.0.0", 0),
        address("255.255.255.255", 65535),
        "2111000c 00000000 ffffffff 0000 ffff",
        id="extremes of tcp4",
    ),
    pytest.param(
        address(FULL6, 1),
        address("::", 256),
        f"21210024 {'ff' * 16} {'00' * 16} 0001 0100",
        id="extremes of tcp6",
    ),
]


@pytest.mark.parametrize(("source", "destination", "rest"), V2_HEADERS)
def test_v2_bytes(source: Address, destination: Address, rest: str) -> None:
    assert write_v2(source, destination) == V2_START + bytes.fromhex(rest)


@pytest.mark.parametrize(
    ("mode", "writer"),
    [(ClientIP.NONE, None), (ClientIP.PROXY_V1, write_v1), (ClientIP.PROXY_V2, write_v2)],
)
def test_every_mode_has_its_writer(mode: ClientIP, writer: HeaderWriter | None) -> None:
    assert header_writer(mode) is writer


def test_no_mode_is_forgotten() -> None:
    """A mode added to the model and not here would send nothing, silently."""
    http = {mode for mode in ClientIP if mode.is_http}
    without = {ClientIP.NONE, ClientIP.TRANSPARENT, *http}
    assert {mode for mode in ClientIP if header_writer(mode) is None} == without


def library_result(source: Address, destination: Address) -> ProxyResult:
    """The same flow in the proxy-protocol library's words."""
    if len(source.packed) == len(destination.packed) == 4:
        return ProxyResultIPv4(
            (ipaddress.IPv4Address(source.packed), source.port),
            (ipaddress.IPv4Address(destination.packed), destination.port),
            protocol=socket.SOCK_STREAM,
        )
    return ProxyResultIPv6(
        (ipaddress.IPv6Address(as_ipv6(source).packed), source.port),
        (ipaddress.IPv6Address(as_ipv6(destination).packed), destination.port),
        protocol=socket.SOCK_STREAM,
    )


def dgram_result(source: Address, destination: Address) -> ProxyResult:
    """The same for a datagram."""
    stream = library_result(source, destination)
    assert isinstance(stream, ProxyResultIPv4 | ProxyResultIPv6)
    kind = type(stream)
    return kind(stream.source, stream.dest, protocol=socket.SOCK_DGRAM)  # type: ignore[arg-type]


def as_pair(result: ProxyResult) -> Pair:
    """The addresses that the proxy-protocol library decoded."""
    assert isinstance(result, ProxyResultIPv4 | ProxyResultIPv6)
    (source, source_port), (destination, destination_port) = result.source, result.dest
    return Address(source.packed, source_port), Address(destination.packed, destination_port)


def in_one_family(pair: Pair) -> Pair:
    """What a decoder must see: both ends IPv6 where one of them is."""
    if len(pair[0].packed) == len(pair[1].packed):
        return pair
    return as_ipv6(pair[0]), as_ipv6(pair[1])


ANY_PAIR = st.one_of(PAIRS, MIXED_PAIRS)


@settings(max_examples=200, deadline=None)
@given(ANY_PAIR)
def test_v2_is_the_librarys(pair: Pair) -> None:
    assert write_v2(*pair) == ProxyProtocolV2().pack(library_result(*pair))


@settings(max_examples=200, deadline=None)
@given(PAIRS)
def test_v1_is_the_librarys(pair: Pair) -> None:
    """Of one family only: the library takes str() of a v4-mapped address, RFC 5952 does not."""
    assert write_v1(*pair) == ProxyProtocolV1().pack(library_result(*pair))


@settings(max_examples=200, deadline=None)
@given(ANY_PAIR)
def test_the_library_decodes_both(pair: Pair) -> None:
    assert as_pair(ProxyProtocolV1().unpack(write_v1(*pair))) == in_one_family(pair)
    assert as_pair(ProxyProtocolV2().unpack(write_v2(*pair))) == in_one_family(pair)


@given(PAIRS | MIXED_PAIRS)
def test_v2_for_datagrams_is_the_librarys(pair: Pair) -> None:
    header = write_v2_dgram(*pair)
    one_family = pair if len({len(one.packed) for one in pair}) == 1 else None
    if one_family is not None:
        assert header == ProxyProtocolV2().pack(dgram_result(*one_family))
    assert header[:13] + header[14:] == write_v2(*pair)[:13] + write_v2(*pair)[14:]
    assert header[13] == {4: 0x12, 16: 0x22}[max(len(one.packed) for one in pair)]


def test_which_modes_have_a_header_for_datagrams() -> None:
    assert datagram_header_writer(ClientIP.NONE) is None
    assert datagram_header_writer(ClientIP.PROXY_V1) is None
    assert datagram_header_writer(ClientIP.PROXY_V2) is write_v2_dgram


@settings(max_examples=200, deadline=None)
@given(ANY_PAIR, st.binary(max_size=80))
@pytest.mark.parametrize("write", [write_v1, write_v2])
def test_round_trip_before_anything(write: HeaderWriter, pair: Pair, rest: bytes) -> None:
    header = write(*pair)
    assert read_header(header + rest) == Header(len(header), *pair)


@settings(max_examples=200, deadline=None)
@given(ANY_PAIR)
def test_lengths(pair: Pair) -> None:
    v1, v2 = write_v1(*pair), write_v2(*pair)
    assert len(v1) <= V1_MOST
    assert len(v2) == (28 if max(len(one.packed) for one in pair) == 4 else 52)
    assert v1.count(b"\n") == 1
    assert v1.endswith(b"\r\n")
