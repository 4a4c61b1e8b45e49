"""What a PROXY v2 header says besides addresses: its TLVs (section 2.2.3), read and passed on."""

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
    """A type and its value."""

    type: int
    value: bytes

    def packed(self) -> bytes:
        """As it stands in a header."""
        return b"%c%b%b" % (self.type, len(self.value).to_bytes(2, "big"), self.value)


def each_tlv(tlvs: bytes) -> Iterator[Tlv]:
    """The TLVs of a block that `read_header` has checked."""
    at = 0
    while at < len(tlvs):
        start = at + 3
        at = start + int.from_bytes(tlvs[start - 2 : start], "big")
        yield Tlv(tlvs[start - 3], tlvs[start:at])


def tells_tls(tlvs: bytes) -> bool:
    """Whether they say that the client spoke TLS to the proxy that sent them."""
    values = (tlv.value for tlv in each_tlv(tlvs) if tlv.type == SSL)
    return any(value and value[0] & _CLIENT_SSL for value in values)


def add_tlvs(header: bytes, tlvs: bytes, largest: int) -> bytes:
    """A v2 header with these TLVs behind its addresses; any other header as it is.

    They stand in ascending order of their types. A checksum among them is made anew. What would
    make the header larger than `largest` bytes is left out: receivers refuse larger ones.
    """
    if not header.startswith(_SIGNATURE):
        return header
    kept = _fitting(sorted(each_tlv(tlvs), key=lambda tlv: tlv.type), largest - len(header))
    body = header[_FIXED:] + b"".join(tlv.packed() for tlv in kept)
    whole = header[: _FIXED - 2] + len(body).to_bytes(2, "big") + body
    return _with_checksum(whole, len(header), kept)


def _fitting(tlvs: list[Tlv], room: int) -> list[Tlv]:
    """Those for which there is room; the checksum comes first of all."""
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
    """Put the checksum of the whole header into the place that is kept for it (2.2.3.3)."""
    for tlv in tlvs:
        start, at = at + 3, at + len(tlv.packed())
        if tlv.type == CRC32C:
            return header[:start] + crc32c(header).to_bytes(4, "big") + header[at:]
    return header
