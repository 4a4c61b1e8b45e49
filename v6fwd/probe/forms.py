"""The forms of the PROXY header that a server is asked about. Pure."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, replace

from v6fwd.client_ip.proxy.crc32c import crc32c
from v6fwd.client_ip.proxy.read import V2_SIGNATURE
from v6fwd.client_ip.proxy.write import write_v1, write_v2
from v6fwd.model import Address, Protocol, ip_text

CLIENT = "2001:db8::c0de"
"""The client that headers name: of the range for documentation (RFC 3849), so nobody's."""
_SERVER_V6, _SERVER_V4 = "2001:db8::1", "192.0.2.1"
_CLIENT_V4 = "192.0.2.222"
_PORT = 54321
MAX_V2 = 16 + 0xFFFF
"""Section 2.2: 16 bytes and a 16-bit length."""
SPLIT_AT = 10
"""Bytes of a split header's first segment: less than the 12 of the signature."""

_NOOP, _UNIQUE_ID, _CRC32C = 4, 5, 3
_TRANSPORT = {Protocol.TCP: 1, Protocol.UDP: 2}


@dataclass(frozen=True, slots=True)
class Form:
    """One way to begin: `header` goes first; `is_split`: its first bytes alone in a segment.

    `client` is whom it names, as servers show it.
    """

    name: str
    header: bytes
    what: str
    is_split: bool = False
    client: str = ""


@dataclass(frozen=True, slots=True)
class Named:
    """The addresses in a header: who the client is said to be, and the port it dialled."""

    client: str
    port: int

    def ends(self) -> tuple[Address, Address]:
        """Source and destination, of one family."""
        source = ipaddress.ip_address(self.client)
        server = _SERVER_V6 if source.version == 6 else _SERVER_V4
        return Address(source.packed, _PORT), Address(
            ipaddress.ip_address(server).packed, self.port
        )

    @property
    def text(self) -> str:
        """The client as RFC 5952 writes it: as servers show it."""
        return ip_text(ipaddress.ip_address(self.client).packed)


def no_header() -> Form:
    """Nothing before the protocol's own first bytes."""
    return Form("none", b"", "no header")


def v1(named: Named) -> Form:
    """The line of text."""
    return Form("v1", write_v1(*named.ends()), "v1 line", client=named.text)


def v2(named: Named, protocol: Protocol = Protocol.TCP) -> Form:
    """The plain binary header, as v6fwd sends it."""
    return Form("v2", write_v2(*named.ends(), protocol), "v2 header", client=named.text)


def padded(named: Named, size: int, protocol: Protocol = Protocol.TCP) -> bytes:
    """A v2 header of `size` bytes, filled up by a NOOP TLV (3 bytes at least)."""
    plain = write_v2(*named.ends(), protocol)
    fill = size - len(plain) - 3
    if fill < 0:
        return plain
    return _with_tlvs(plain, _tlv(_NOOP, bytes(fill)))


def variants(named: Named, protocol: Protocol) -> list[Form]:
    """All other forms for a protocol, the useful ones first."""
    plain = write_v2(*named.ends(), protocol)
    tlvs = _tlv(_NOOP, b"v6fwd") + _tlv(_UNIQUE_ID, b"v6fwd-probe")
    checked = with_crc(_with_tlvs(plain, tlvs))
    v4 = write_v2(*Named(_CLIENT_V4, named.port).ends(), protocol)
    other = Protocol.UDP if protocol is Protocol.TCP else Protocol.TCP
    transport = "datagrams" if other is Protocol.UDP else "streams"
    found = [
        Form("v2-tlvs", checked, "v2 header with NOOP, UNIQUE_ID, CRC32C"),
        Form("v2-wrong-crc", _spoilt(checked), "the same, CRC32C wrong"),
        Form("v2-local", _local(), "v2 LOCAL, no addresses"),
        Form("v2-wrong-transport", _transport(plain, other), f"v2 header that is for {transport}"),
    ]
    if protocol is Protocol.TCP:
        found.append(Form("v1-unknown", b"PROXY UNKNOWN\r\n", "v1 UNKNOWN, no addresses"))
        found.append(Form("v2-split", plain, "v2 header in two segments", is_split=True))
    theirs = [replace(form, client=named.text) for form in found]
    return [Form("v2-ipv4", v4, "v2 header of an IPv4 client", client=_CLIENT_V4), *theirs]


def with_crc(header: bytes) -> bytes:
    """The header with a CRC32C TLV at its end (section 2.2.3.3)."""
    zero = _with_tlvs(header, _tlv(_CRC32C, bytes(4)))
    return zero[:-4] + crc32c(zero).to_bytes(4, "big")


def _spoilt(header: bytes) -> bytes:
    return header[:-1] + bytes([header[-1] ^ 0xFF])


def _local() -> bytes:
    return V2_SIGNATURE + b"\x20\x00\x00\x00"


def _transport(header: bytes, protocol: Protocol) -> bytes:
    family = header[13] & 0xF0 | _TRANSPORT[protocol]
    return header[:13] + bytes([family]) + header[14:]


def _tlv(kind: int, value: bytes) -> bytes:
    return bytes([kind]) + len(value).to_bytes(2, "big") + value


def _with_tlvs(header: bytes, tlvs: bytes) -> bytes:
    length = len(header) - 16 + len(tlvs)
    return header[:14] + length.to_bytes(2, "big") + header[16:] + tlvs
