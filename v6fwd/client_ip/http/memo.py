"""Caches the last field block of a connection and its result.

Clients repeat their fields on a connection; only the request line changes. The result depends
on the block and on the version, so both must be equal to the cached ones, byte for byte. The
line is checked every time. A block that is neither cached nor usual is parsed twice.
"""

from __future__ import annotations

from v6fwd.client_ip.http.crosscheck import check
from v6fwd.client_ip.http.fields import FieldReader, Fields
from v6fwd.client_ip.http.request_line import check_authority
from v6fwd.client_ip.http.syntax import Refusal
from v6fwd.client_ip.http.usual import Frame, UsualHead, UsualReader

USUAL_BLOCK = 8192  # bytes; with a line of USUAL_RE it stays below MAX_HEAD

Known = tuple[bytes, bytes, Frame]
"""A block, what the target gets in its place, and the frame of the last usual one."""

_SKIPPED = 3
"""Blocks that are parsed without a look for a usual one, behind one that was not usual: clients
send the same kind again, and a vain look costs half as much as the parsers."""


class FieldMemo:
    """Parses field blocks and caches the last one.

    A block goes from the CRLF of the request line to the empty line.
    """

    __slots__ = (
        "_block",
        "_fields",
        "_minor",
        "_reader",
        "_skip",
        "_usual_reader",
        "known",
    )

    def __init__(self, reader: FieldReader) -> None:
        self._reader = reader
        self._usual_reader = UsualReader(reader.address)
        self._block = b""
        self._minor = b""
        self._fields: Fields | None = None
        self._skip = 0
        self.known: Known | None = None
        """The cached block if its request has no body, no upgrade, and does not close the
        connection; else None."""

    def read(self, block: bytes, method: bytes, target: bytes, minor: bytes) -> Fields:
        """Parse a block, or take the cached result. Raises Refusal."""
        fields = self._fields
        if fields is None or self._block != block or self._minor != minor:
            fields = self._parse(block, (method, target, minor))
        self._remember(block, minor, fields)  # `known` may be that of `read_head`
        if not target.startswith(b"/"):
            check_authority(method, target, fields.host)
        if method == b"CONNECT" and fields.length:
            raise Refusal(400, "CONNECT with a body")
        return fields

    def read_head(self, head: bytes) -> UsualHead | None:
        """Parse a head and cache its block; None, and nothing was done, if it is not usual."""
        if self._skip or len(head) > USUAL_BLOCK:
            return None
        usual = self._usual_reader.head(head)
        if usual is None:
            self._skip = 1 + _SKIPPED  # `read` follows
            return None
        self.known = usual[1], usual[2], self._usual_reader.frame
        return usual

    def _parse(self, block: bytes, line: tuple[bytes, bytes, bytes]) -> Fields:
        method, _, minor = line
        if self._skip:
            self._skip -= 1
        elif minor == b"1" and method != b"CONNECT" and len(block) <= USUAL_BLOCK:
            fields = self._usual_reader.block(block)
            if fields is not None:
                return fields
            self._skip = _SKIPPED
        reading = self._reader.read(block[2:], minor)
        check(line, block, reading)
        return reading.fields

    def _remember(self, block: bytes, minor: bytes, fields: Fields) -> None:
        self._block, self._minor, self._fields = block, minor, fields
        is_usual = not fields.length and not fields.upgrade and not fields.closing
        if is_usual and minor == b"1" and len(block) <= USUAL_BLOCK:
            self.known = block, fields.rewritten, self._usual_reader.frame
        else:
            self.known = None
