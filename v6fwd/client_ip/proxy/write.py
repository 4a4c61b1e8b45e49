"""Makes the PROXY header that precedes the client's first byte.

Format: HAProxy's doc/proxy-protocol.txt, sections 2.1 (v1) and 2.2 (v2). The proxy-protocol library
takes 28 us a header, a third of a short flow, and 2 MB of each process. Tests compare its bytes
with these.
"""

from __future__ import annotations

from collections.abc import Callable

from v6fwd.model import MAPPED_PREFIX, Address, ClientIP, Protocol

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
        _V2_STARTS[protocol, len(source.packed)],
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


def _v2_start(family: int, size: int) -> bytes:
    """Signature, version 2 with command PROXY, family and transport, size of what follows."""
    return b"\r\n\r\n\0\r\nQUIT\n\x21%c%b" % (family, size.to_bytes(2, "big"))


# Specification, section 2.2: AF_INET is 1 and AF_INET6 2 in the high half, STREAM 1 and DGRAM 2 in
# the low one; what follows are two addresses and two ports.
_V2_STARTS = {
    (Protocol.TCP, 4): _v2_start(0x11, 12),
    (Protocol.TCP, 16): _v2_start(0x21, 36),
    (Protocol.UDP, 4): _v2_start(0x12, 12),
    (Protocol.UDP, 16): _v2_start(0x22, 36),
}
"""By transport, and length of an address in bytes."""
