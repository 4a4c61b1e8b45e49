"""Makes the PROXY header that precedes the client's first byte.

Format: HAProxy's doc/proxy-protocol.txt, sections 2.1 (v1) and 2.2 (v2). The proxy-protocol
library makes a v2 template once per family, and is imported for that; the addresses are appended
here, since packing with the library takes 28 us, a third of a short flow. Tests compare the bytes
of both.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from ipaddress import IPv4Address, IPv6Address

from v6fwd.model import MAPPED_PREFIX, Address, ClientIP, Protocol
from v6fwd.model.lean import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from socket import SocketKind

HeaderWriter = Callable[[Address, Address], bytes]
"""Takes source and destination from the client's view, and returns the header."""


def header_writer(mode: ClientIP) -> HeaderWriter | None:
    """The writer of a mode; None if the mode sends no header."""
    if mode is ClientIP.PROXY_V2:
        v2_starts()  # the first client does not wait for the import
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
        v2_starts()[protocol, len(source.packed)],
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


def v2_starts() -> Mapping[tuple[Protocol, int], bytes]:
    """The constant part of a header by transport and length of an address in bytes.

    It is signature, version, command, family and length. Call it before files may be out of reach.
    """
    if not _starts:
        learn_v2_starts(packed_v2_starts())
    return _starts


def learn_v2_starts(packed: bytes) -> None:
    """Take what `packed_v2_starts` has given in another process. Raises ValueError."""
    if len(packed) != _START_SIZE * len(_KEYS):
        raise ValueError("not the starts of PROXY v2 headers")
    for number, key in enumerate(_KEYS):
        _starts[key] = packed[_START_SIZE * number :][:_START_SIZE]


def packed_v2_starts() -> bytes:
    """Have the library make them, one behind the other."""
    from proxyprotocol.result import ProxyResultIPv4, ProxyResultIPv6  # 1.7 MB with its imports
    from proxyprotocol.v2 import ProxyProtocolV2

    pack = ProxyProtocolV2().pack
    v4, v6 = (IPv4Address(0), 0), (IPv6Address(0), 0)
    starts = b""
    for kind in _KINDS.values():
        starts += pack(ProxyResultIPv4(v4, v4, protocol=kind))[:_START_SIZE]
        starts += pack(ProxyResultIPv6(v6, v6, protocol=kind))[:_START_SIZE]
    return starts


# SOCK_STREAM and SOCK_DGRAM by value: a pure package does not import socket
_KINDS = {Protocol.TCP: cast("SocketKind", 1), Protocol.UDP: cast("SocketKind", 2)}
_KEYS = [(protocol, size) for protocol in _KINDS for size in (4, 16)]
_START_SIZE = 16
_starts: dict[tuple[Protocol, int], bytes] = {}
