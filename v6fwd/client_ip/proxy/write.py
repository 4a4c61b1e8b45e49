"""The PROXY header that goes to a target before the first byte of its client.

Format: HAProxy's doc/proxy-protocol.txt, sections 2.1 (v1) and 2.2 (v2). The proxy-protocol
library builds a v2 template once a family; packing with it takes 28 us a flow, a third of what
a whole short flow costs, so the addresses are put behind the template here. Tests hold both
to the same bytes.
"""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address
from typing import TYPE_CHECKING, cast

from proxyprotocol.result import ProxyResult, ProxyResultIPv4, ProxyResultIPv6
from proxyprotocol.v2 import ProxyProtocolV2

from v6fwd.model import MAPPED_PREFIX, Address, ClientIP, Protocol

if TYPE_CHECKING:
    from socket import SocketKind

HeaderWriter = Callable[[Address, Address], bytes]
"""Takes the source and the destination as the client sees them; gives the header."""


def header_writer(mode: ClientIP) -> HeaderWriter | None:
    """The writer of a mode's header, or None for a mode that sends none."""
    return {ClientIP.PROXY_V1: write_v1, ClientIP.PROXY_V2: write_v2}.get(mode)


def datagram_header_writer(mode: ClientIP) -> HeaderWriter | None:
    """The same for datagrams; a mode without a header for them has none here either."""
    return {ClientIP.PROXY_V2: write_v2_dgram}.get(mode)


def write_v1(source: Address, destination: Address) -> bytes:
    """The v1 line, at most 104 bytes: `PROXY TCP6 2001:db8:1::2 2001:db8:1::1 54321 80` CRLF."""
    source, destination = _one_family(source, destination)
    family = "TCP4" if len(source.packed) == 4 else "TCP6"
    return (
        f"PROXY {family} {source.host} {destination.host} {source.port} {destination.port}\r\n"
    ).encode("ascii")


def write_v2_dgram(source: Address, destination: Address) -> bytes:
    """The v2 header in front of a datagram: transport DGRAM, all else as in `write_v2`."""
    return write_v2(source, destination, Protocol.UDP)


def write_v2(source: Address, destination: Address, protocol: Protocol = Protocol.TCP) -> bytes:
    """The v2 header: 28 bytes for IPv4, 52 for IPv6, no TLVs.

    nginx 1.22 refuses more than 107 bytes, so there is room for few of them.
    """
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
    """A header has one family for both ends: an IPv4 end beside an IPv6 one becomes v4-mapped.

    Only an accepted header can mix them; HAProxy and nginx promote the same way.
    """
    if len(source.packed) == len(destination.packed):
        return source, destination
    return _as_ipv6(source), _as_ipv6(destination)


def _as_ipv6(address: Address) -> Address:
    if len(address.packed) == 16:
        return address
    return Address(MAPPED_PREFIX + address.packed, address.port)


def _v2_start(result: ProxyResult) -> bytes:
    """Signature, version, command, family and length: all that no flow changes."""
    return ProxyProtocolV2().pack(result)[:16]


# SOCK_STREAM and SOCK_DGRAM; the library looks them up by value, and this room is pure
_KINDS = {Protocol.TCP: cast("SocketKind", 1), Protocol.UDP: cast("SocketKind", 2)}
_V4, _V6 = (IPv4Address(0), 0), (IPv6Address(0), 0)
_V2_START = {
    (protocol, len(result.source[0].packed)): _v2_start(result)
    for protocol, kind in _KINDS.items()
    for result in (
        ProxyResultIPv4(_V4, _V4, protocol=kind),
        ProxyResultIPv6(_V6, _V6, protocol=kind),
    )
}
