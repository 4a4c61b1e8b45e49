"""For tests of the native scanner of usual heads: it must take exactly what the patterns take."""

from __future__ import annotations

import random

from v6fwd.client_ip.http import usual, usual_response
from v6fwd.client_ip.http.usual import Parts

head_parts, block_parts = usual.scanner()
response_parts = usual_response.scanner()

IS_NATIVE = head_parts is not usual.head_parts_by_pattern


def _joined(parts: Parts | None) -> tuple[bytes, ...] | None:
    """How the other lines are cut is not the same."""
    return None if parts is None else (*parts[:4], b"".join(parts[4]))


def assert_request_alike(head: bytes) -> bool:
    """Compare the readings of bytes as a head, and as a block; return whether a head is usual."""
    found = _joined(head_parts(head))
    assert found == _joined(usual.head_parts_by_pattern(head))
    block = head[max(0, head.find(b"\r\n")) :]
    assert _joined(block_parts(block)) == _joined(usual.block_parts_by_pattern(block))
    return found is not None


def assert_response_alike(data: bytes) -> bool:
    """Compare the readings of bytes that a response begins; return whether its head is usual."""
    found = response_parts(data)
    assert found == usual_response.response_parts_by_pattern(data)
    return found is not None


_STATUS = b"200 OK|200 |404 Not\tFound|204 No Content|304 |304|101 x|599 \x80|600 |200 \x7f|2\t0 "
_NAMES = b"Server Date ETag Content-Length Connection Transfer-Encoding Content-Type Tontent-Length"
_NAMES += b" content-length CONNECTION Cransfer-Encoding Connections X_y a!b ~ Content-Lengt T C"
_VALUES = b"0|1|12|012|0012|999999999999999999|1000000000000000000|keep-alive|Keep-Alive|close"
_VALUES += b"|KEEP-ALIVE|chunked|a b |\ta|\x80\xff|1 |1, 1||-1|+1"
_ODD = [b" ", b"\t", b"\n", b"\r", b"\r\n", b"\0", b"\x7f", b":", b"\x80", b"\r\n ", b"\r\n\r\n"]


def some_response(chance: random.Random) -> bytes:
    """A response: most of its parts are usual, and in every third a byte is not."""
    rare = chance.random() < 0.3
    statuses, names = _STATUS.split(b"|")[: None if rare else 3], _NAMES.split()
    values = _VALUES.split(b"|")
    lines = [
        chance.choice(names[: None if rare else 3]) + b": " + chance.choice(values)
        for _ in range(chance.choice([0, 1, 2, 5]))
    ]
    if chance.random() < 0.5:
        lines.insert(chance.randint(0, len(lines)), b"Connection: keep-alive")
    length = chance.choice(values[: None if rare else 3])
    lines.insert(chance.randint(0, len(lines)), b"Content-Length: " + length)
    head = b"\r\n".join([b"HTTP/1.1 " + chance.choice(statuses), *lines, b"", b"hello"])
    if chance.random() < 0.3:
        at = chance.randint(0, len(head))
        head = head[:at] + chance.choice(_ODD) + head[at + chance.randint(0, 2) :]
    return head
