"""Parses the PROXY header of a trusted client, v1 or v2, from a possibly incomplete buffer.

Format: HAProxy's doc/proxy-protocol.txt, sections 2.1 and 2.2. A header is mandatory (never
guessed), addresses must match the family, and a CRC32C must be correct. Patterns give explicit
ranges of bytes: `int()` and `str` methods accept digits and blanks that the format forbids.
"""

from __future__ import annotations

import ipaddress
import re

from v6fwd.client_ip.proxy.crc32c import crc32c
from v6fwd.client_ip.proxy.tlvs import CRC32C, behind_small, tells_tls
from v6fwd.model import Address
from v6fwd.model.lean import NamedTuple


class ProxyHeaderError(ValueError):
    """The header violates the PROXY protocol; the text says how, in one line."""


class Header(NamedTuple):
    """A complete header and its length in bytes.

    `source` and `destination` are None if the header has no IP addresses (LOCAL, UNKNOWN,
    UNSPEC, unix sockets): use the socket's addresses then.
    """

    length: int
    source: Address | None = None
    destination: Address | None = None
    tlvs: bytes = b""
    """The TLVs of a v2 header; see tlvs.each_tlv."""

    @property
    def is_tls(self) -> bool:
        """Whether the client spoke TLS to the proxy that sent the header."""
        return tells_tls(self.tlvs)


V2_SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"
V1_MAX = 107  # section 2.1: the longest line, with its CRLF
MAX_HEADER = 4096
"""The longest header: nginx's limit (HAProxy takes 16 KB, dnsdist and PowerDNS 512 bytes).

The format allows 64 KB, which nobody sends; reading that would keep others waiting.
"""

_V1_RE = re.compile(
    rb"PROXY (TCP4|TCP6) ([0-9A-Fa-f:.]{2,39}) ([0-9A-Fa-f:.]{2,39})"
    rb" (0|[1-9][0-9]{0,4}) (0|[1-9][0-9]{0,4})\r\n"
)
_LOCAL, _PROXY = 0x20, 0x21
_STREAM, _DGRAM = 0x1, 0x2
_CARRIED = {_STREAM: "streams", _DGRAM: "datagrams"}
_CARRIER = {_STREAM: "TCP", _DGRAM: "UDP"}
_ADDRESS_SIZE = {0x0: 0, 0x1: 4, 0x2: 16, 0x3: 108}  # high nibble of the family byte


def read_header(data: bytes) -> Header | None:
    """Parse the header at the start of `data`; None if more bytes are needed.

    Raises ProxyHeaderError for anything else, independent of how the bytes are cut.
    """
    if data.startswith(b"P"):
        return _read_v1(data)
    if data.startswith(V2_SIGNATURE):
        return _read_v2(data)
    if V2_SIGNATURE.startswith(data):
        return None
    raise ProxyHeaderError("no PROXY header")


def read_datagram_header(data: bytes) -> Header:
    """Parse the v2 header of a datagram; the payload is the rest.

    Raises ProxyHeaderError if there is no complete one. v1 is for TCP only (section 2.1).
    """
    if not data.startswith(V2_SIGNATURE):
        raise ProxyHeaderError("no PROXY v2 header")
    header = _read_v2(data, _DGRAM)
    if header is None:
        raise ProxyHeaderError("the datagram ends in its PROXY header")
    return header


def _read_v1(data: bytes) -> Header | None:
    start = data[:6]
    if not b"PROXY ".startswith(start):
        raise ProxyHeaderError("no PROXY header")
    end = data.find(b"\n", 0, V1_MAX) + 1
    if not end:
        if len(data) >= V1_MAX:
            raise ProxyHeaderError(f"PROXY v1 line longer than {V1_MAX} bytes")
        return None
    line = data[:end]
    if not line.endswith(b"\r\n"):
        raise ProxyHeaderError("PROXY v1 line does not end with CRLF")
    if line.startswith((b"PROXY UNKNOWN ", b"PROXY UNKNOWN\r")):
        return Header(end)
    return _v1_addresses(line)


def _v1_addresses(line: bytes) -> Header:
    match = _V1_RE.fullmatch(line)
    if match is None:
        raise ProxyHeaderError("malformed PROXY v1 line")
    family, source, destination, source_port, destination_port = match.groups()
    kind = ipaddress.IPv4Address if family == b"TCP4" else ipaddress.IPv6Address
    try:
        packed = [kind(text.decode("ascii")).packed for text in (source, destination)]
    except ValueError:
        raise ProxyHeaderError(f"bad {family.decode()} address in the PROXY v1 line") from None
    ports = int(source_port), int(destination_port)
    if max(ports) > 0xFFFF:
        raise ProxyHeaderError("port above 65535 in the PROXY v1 line")
    return Header(len(line), Address.of(packed[0], ports[0]), Address.of(packed[1], ports[1]))


def _read_v2(data: bytes, transport: int = _STREAM) -> Header | None:
    if len(data) > 12 and data[12] not in (_LOCAL, _PROXY):
        raise ProxyHeaderError(f"PROXY v2 version and command 0x{data[12]:02x} are unknown")
    if len(data) > 13 and data[12] == _PROXY:
        _check_family(data[13], transport)
    if len(data) < 16:
        return None
    length = 16 + int.from_bytes(data[14:16], "big")
    if length > MAX_HEADER:
        raise ProxyHeaderError(f"PROXY v2 header of {length} bytes, the limit is {MAX_HEADER}")
    if data[12] == _PROXY and length < 16 + _address_block(data[13]):
        raise ProxyHeaderError("PROXY v2 header too short for its addresses")
    if len(data) < length:
        return None
    if data[12] == _LOCAL:  # section 2.2: the rest of the header is skipped, family included
        return Header(length)
    return _v2_addresses(data[:length])


def _check_family(byte: int, expected: int) -> None:
    """Section 2.2: IPv4, IPv6 or unix over the transport in use, or unspecified."""
    family, transport = byte >> 4, byte & 0xF
    if byte == 0 or (family in (1, 2, 3) and transport == expected):
        return
    if family in (1, 2, 3) and transport in _CARRIED:
        meant, came = _CARRIED[transport], _CARRIER[expected]
        raise ProxyHeaderError(f"PROXY v2 family 0x{byte:02x} is for {meant}, this is {came}")
    raise ProxyHeaderError(f"PROXY v2 family 0x{byte:02x} is unknown")


def _address_block(byte: int) -> int:
    size = _ADDRESS_SIZE[byte >> 4]
    return 2 * size + (4 if size in (4, 16) else 0)


def _v2_addresses(header: bytes) -> Header:
    size = _ADDRESS_SIZE[header[13] >> 4]
    start = 16 + _address_block(header[13])
    _check_tlvs(header, start)
    if size not in (4, 16):
        return Header(len(header), tlvs=header[start:])
    at = 16 + 2 * size
    return Header(
        len(header),
        Address.of(header[16 : 16 + size], int.from_bytes(header[at : at + 2], "big")),
        Address.of(header[16 + size : at], int.from_bytes(header[at + 2 : at + 4], "big")),
        header[start:],
    )


def _check_tlvs(header: bytes, at: int) -> None:
    """Section 2.2.3: TLVs fill the header exactly. A CRC32C (2.2.3.3) must be correct."""
    summed = False
    while (at := behind_small(header, at)) < len(header):
        start = at + 3
        if start > len(header):
            raise ProxyHeaderError("PROXY v2 TLV runs past the header")
        at = start + int.from_bytes(header[at + 1 : start], "big")
        if at > len(header):
            raise ProxyHeaderError("PROXY v2 TLV runs past the header")
        if header[start - 3] == CRC32C:
            if summed:  # each costs a walk over the whole header
                raise ProxyHeaderError("more than one CRC32C in the PROXY v2 header")
            _check_crc32c(header, start, at)
            summed = True


def _check_crc32c(header: bytes, start: int, end: int) -> None:
    if end - start != 4:
        raise ProxyHeaderError("PROXY v2 CRC32C is not 4 bytes long")
    if crc32c(header[:start] + bytes(4) + header[end:]) != int.from_bytes(header[start:end], "big"):
        raise ProxyHeaderError("PROXY v2 CRC32C is wrong")
