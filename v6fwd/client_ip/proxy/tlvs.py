"""TLVs of a PROXY v2 header (section 2.2.3): parsed, and passed on."""

from __future__ import annotations

import re
from collections.abc import Iterator

from v6fwd.client_ip.proxy.crc32c import crc32c
from v6fwd.model.lean import NamedTuple

CRC32C = 0x03
SSL = 0x20
_CLIENT_SSL = 0x01  # section 2.2.6: the client connected over TLS
_SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"
_FRAME = 3  # type and length of a TLV
_FIXED = 16  # signature, version, command, family and length

_SMALL = b"\\0(?:\\0|" + b"|".join(b"\\x%02x" % size + b"." * size for size in range(1, 9)) + b")"
_NO_CRC32C_RE = re.compile(b"(?s:(?:[^\\x03]" + _SMALL + b")*)")
_NO_SSL_RE = re.compile(b"(?s:(?:[^\\x20]" + _SMALL + b"|\\x20\\0\\0)*)")
"""TLVs of up to 8 bytes, which need no look: most of what many TLVs can be."""


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
    at = 0
    while (at := _behind(_NO_SSL_RE, tlvs, at)) < len(tlvs):
        start = at + 3
        at = start + int.from_bytes(tlvs[start - 2 : start], "big")
        if tlvs[start - 3] == SSL and at > start and tlvs[start] & _CLIENT_SSL:
            return True
    return False


def behind_small(data: bytes, at: int) -> int:
    """Where the small TLVs at data[at:] end, or the first CRC32C: a tenth of a loop's time."""
    return _behind(_NO_CRC32C_RE, data, at)


def _behind(pattern: re.Pattern[bytes], data: bytes, at: int) -> int:
    found = pattern.match(data, at)
    return found.end() if found is not None else at


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
    room -= sum(_FRAME + len(value) for kind, value in tlvs if kind == CRC32C)
    for tlv in tlvs:
        size = _FRAME + len(tlv.value)
        if tlv.type == CRC32C:
            if room >= 0:
                kept.append(Tlv(CRC32C, bytes(4)))
        elif size <= room:
            room -= size
            kept.append(tlv)
    return kept


def _with_checksum(header: bytes, at: int, tlvs: list[Tlv]) -> bytes:
    """Fill in the checksum of the whole header (2.2.3.3)."""
    for tlv in tlvs:
        start, at = at + _FRAME, at + _FRAME + len(tlv.value)
        if tlv.type == CRC32C:
            return header[:start] + crc32c(header).to_bytes(4, "big") + header[at:]
    return header
