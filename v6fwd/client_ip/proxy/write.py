"""Makes the PROXY header that precedes the client's first byte.

Format: HAProxy's doc/proxy-protocol.txt, sections 2.1 (v1) and 2.2 (v2). The proxy-protocol
library makes a v2 template once per family; the addresses are appended here, since packing with
the library takes 28 us, a third of a short flow. Tests compare the bytes of both.
"""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address
from typing import TYPE_CHECKING, cast

from v6fwd.model import MAPPED_PREFIX, Address, ClientIP, Protocol

if TYPE_CHECKING:
    from socket import SocketKind

HeaderWriter = Callable[[Address, Address], bytes]
"""Takes source and destination from the client's view, and returns the header."""


def header_writer(mode: ClientIP) -> HeaderWriter | None:
    """The writer of a mode; None if the mode sends no header."""
    return {ClientIP.PROXY_V1: write_v1, ClientIP.PROXY_V2: write_v2}.get(mode)


def datagram_header_writer(mode: ClientIP) -> HeaderWriter | None:
    """The writer of a mode for datagrams; None if the mode sends no header in them."""
    return {ClientIP.PROXY_V2: write_v2_dgram}.get(mode)


def write_v1(source: Address, destination: Address) -> bytes:
    """Make a v1 line: `PROXY TCP6 2001:db8:1::2 2001:db8:1::1 54321 80` CRLF, up to 104 bytes."""
    source, destination = _one_family(source, destination)
    family = "TCP4" if len(source.packed) == 4 else "TCP6"
    return (
        f"PROXY {family} {source.host} {destination.host} {source.port} {destination.port}\r\n"
    ).encode("ascii")


def write_v2_dgram(source: Address, destination: Address) -> bytes:
    """Make the v2 header of a datagram: as `write_v2` with transport DGRAM."""
    return write_v2(source, destination, Protocol.UDP)


def write_v2(source: Address, destination: Address, protocol: Protocol = Protocol.TCP) -> bytes:
    """Make the v2 header without TLVs: 28 bytes for IPv4, 52 for IPv6."""
    if len(source.packed) != len(destination.packed):
        source, destination = _one_family(source, destination)
    return b"%b%b%b%b%b" % (
        _V2_START[protocol, len(source.packed)],
        source.packed,
        destination.packed,
        source.port.to_bytes(2, "big"),
        destination.port.to_bytes(2, "big"),
    )


def _one_family(source: Address, destination: Address) -> tuple[Address, Address]:
    """Convert both ends to one family: an IPv4 address beside an IPv6 one becomes v4-mapped.

    Only an accepted header can mix families; HAProxy and nginx convert likewise.
    """
    if len(source.packed) == len(destination.packed):
        return source, destination
    return _as_ipv6(source), _as_ipv6(destination)


def _as_ipv6(address: Address) -> Address:
    if len(address.packed) == 16:
        return address
    return Address(MAPPED_PREFIX + address.packed, address.port)


class _V2Starts(dict[tuple[Protocol, int], bytes]):
    """The constant part, by transport and length of address: signature, version, command, family
    and length. The library, 0.8 MB, is imported with the first header.
    """

    def __missing__(self, key: tuple[Protocol, int]) -> bytes:
        from proxyprotocol.result import ProxyResultIPv4, ProxyResultIPv6
        from proxyprotocol.v2 import ProxyProtocolV2

        protocol, size = key
        kind = _KINDS[protocol]
        result = (
            ProxyResultIPv4(_V4, _V4, protocol=kind)
            if size == 4
            else ProxyResultIPv6(_V6, _V6, protocol=kind)
        )
        start = self[key] = ProxyProtocolV2().pack(result)[:16]
        return start


# SOCK_STREAM and SOCK_DGRAM by value: a pure package does not import socket
_KINDS = {Protocol.TCP: cast("SocketKind", 1), Protocol.UDP: cast("SocketKind", 2)}
_V4, _V6 = (IPv4Address(0), 0), (IPv6Address(0), 0)
_V2_START = _V2Starts()
