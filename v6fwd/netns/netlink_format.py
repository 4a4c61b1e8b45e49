"""The form of netlink messages (netlink(7), rtnetlink(7)). Pure: bytes in, bytes out."""

from __future__ import annotations

import errno
import os
import struct
import sys
from collections.abc import Iterator

HEADER = struct.Struct("=IHHII")
"""Length, type, flags, sequence, port."""
_attribute = struct.Struct("=HH")
_MAX_ERRNO = 4095  # linux/err.h


def read_messages(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    """The messages in what was received: type, sequence and content (netlink(7))."""
    at = 0
    while at + HEADER.size <= len(data):
        size, kind, _, sequence, _ = HEADER.unpack_from(data, at)
        if size < HEADER.size:
            break
        yield kind, sequence, data[at + HEADER.size : at + size]
        at += (size + 3) & ~3


def attribute(kind: int, value: bytes) -> bytes:
    """One that may follow a message's fixed part (rtnetlink(7)), filled up to 4 bytes."""
    size = _attribute.size + len(value)
    return _attribute.pack(size, kind) + value + bytes(-size % 4)


def number_attribute(kind: int, value: int) -> bytes:
    return attribute(kind, value.to_bytes(4, sys.byteorder))


def read_attributes(data: bytes) -> dict[int, bytes]:
    """What follows a message's fixed part, by kind."""
    found = {}
    at = 0
    while at + _attribute.size <= len(data):
        size, kind = _attribute.unpack_from(data, at)
        if size < _attribute.size:
            break
        found[kind] = data[at + _attribute.size : at + size]
        at += (size + 3) & ~3
    return found


def read_number(value: bytes | None) -> int:
    """In the machine's own byte order; 0 for None."""
    return int.from_bytes(value or b"", sys.byteorder)


def raise_error(content: bytes) -> None:
    """Raise what an NLMSG_ERROR says, as OSError, unless it is the acknowledgement."""
    number = -int.from_bytes(content[:4], sys.byteorder, signed=True)
    if number:
        known = number if 0 < number <= _MAX_ERRNO else errno.EBADMSG
        raise OSError(known, os.strerror(known))
