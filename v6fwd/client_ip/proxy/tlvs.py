"""TLVs of a PROXY v2 header (section 2.2.3): parsed, and passed on."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from v6fwd.client_ip.proxy.crc32c import crc32c

CRC32C = 0x03
SSL = 0x20
_CLIENT_SSL = 0x01  # section 2.2.6: the client connected over TLS
_SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"
_FIXED = 16  # signature, version, command, family and length


class Tlv(NamedTuple):
    """A type and a value."""

    type: int
    value: bytes

    def packed(self) -> bytes:
        """The bytes of the TLV."""
        return b"%c%b%b" % (self.type, len(self.value).to_bytes(2, "big"), self.value)


def each_tlv(tlvs: bytes) -> Iterator[Tlv]:
    """Iterate over a block of TLVs that `read_header` has validated."""
    at = 0
    while at < len(tlvs):
        start = at + 3
        at = start + int.from_bytes(tlvs[start - 2 : start], "big")
        yield Tlv(tlvs[start - 3], tlvs[start:at])


def tells_tls(tlvs: bytes) -> bool:
    """Whether the client used TLS towards the proxy that sent these TLVs."""
    values = (tlv.value for tlv in each_tlv(tlvs) if tlv.type == SSL)
    return any(value and value[0] & _CLIENT_SSL for value in values)


def add_tlvs(header: bytes, tlvs: bytes, largest: int) -> bytes:
    """Append TLVs to a v2 header without any; return any other header unchanged.

    They are sorted by type. A CRC32C among them is computed anew. TLVs with which the header
    would exceed `largest` bytes are left out, since receivers have limits.
    """
    if not header.startswith(_SIGNATURE):
        return header
    kept = _fitting(sorted(each_tlv(tlvs), key=lambda tlv: tlv.type), largest - len(header))
    body = header[_FIXED:] + b"".join(tlv.packed() for tlv in kept)
    whole = header[: _FIXED - 2] + len(body).to_bytes(2, "big") + body
    return _with_checksum(whole, len(header), kept)


def _fitting(tlvs: list[Tlv], room: int) -> list[Tlv]:
    """The TLVs that fit; space for the checksum is reserved first."""
    kept = []
    room -= sum(len(tlv.packed()) for tlv in tlvs if tlv.type == CRC32C)
    for tlv in tlvs:
        if tlv.type == CRC32C:
            if room >= 0:
                kept.append(Tlv(CRC32C, bytes(4)))
        elif len(tlv.packed()) <= room:
            room -= len(tlv.packed())
            kept.append(tlv)
    return kept


def _with_checksum(header: bytes, at: int, tlvs: list[Tlv]) -> bytes:
    """Fill in the checksum of the whole header (2.2.3.3)."""
    for tlv in tlvs:
        start, at = at + 3, at + len(tlv.packed())
        if tlv.type == CRC32C:
            return header[:start] + crc32c(header).to_bytes(4, "big") + header[at:]
    return header
