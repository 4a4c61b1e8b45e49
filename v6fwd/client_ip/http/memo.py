"""Caches the last field block of a connection and its result.

Clients repeat their fields on a connection; only the request line changes. The result depends
on the block and on the version, so both must be equal to the cached ones, byte for byte. The
line is checked every time.
"""

from __future__ import annotations

from v6fwd.client_ip.http.crosscheck import check
from v6fwd.client_ip.http.fields import FieldReader, Fields
from v6fwd.client_ip.http.request_line import check_authority
from v6fwd.client_ip.http.syntax import Refusal

USUAL_BLOCK = 8192  # bytes; with a line of USUAL_RE it stays below MAX_HEAD


class FieldMemo:
    """Parses field blocks and caches the last one.

    A block goes from the CRLF of the request line to the empty line.
    """

    __slots__ = ("_block", "_fields", "_minor", "_reader", "usual", "usual_rewritten")

    def __init__(self, reader: FieldReader) -> None:
        self._reader = reader
        self._block = b""
        self._minor = b""
        self._fields: Fields | None = None
        self.usual = b""
        """The cached block if its request has no body, no upgrade, and does not close the
        connection; else b""."""
        self.usual_rewritten = b""
        """What the target gets in its place."""

    def read(self, block: bytes, method: bytes, target: bytes, minor: bytes) -> Fields:
        """Parse a block, or take the cached result. Raises Refusal."""
        fields = self._fields
        if fields is None or self._block != block or self._minor != minor:
            reading = self._reader.read(block[2:], minor)
            check((method, target, minor), block, reading)
            fields = reading.fields
            self._remember(block, minor, fields)
        if not target.startswith(b"/"):
            check_authority(method, target, fields.host)
        if method == b"CONNECT" and fields.length:
            raise Refusal(400, "CONNECT with a body")
        return fields

    def _remember(self, block: bytes, minor: bytes, fields: Fields) -> None:
        self._block, self._minor, self._fields = block, minor, fields
        is_usual = not fields.length and not fields.upgrade and not fields.closing
        if is_usual and minor == b"1" and len(block) <= USUAL_BLOCK:
            self.usual = block
            self.usual_rewritten = fields.rewritten
        else:
            self.usual = b""
