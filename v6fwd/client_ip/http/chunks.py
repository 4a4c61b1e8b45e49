"""The chunks of a body: RFC 9112, 7.1, read strictly, without touching the data in them.

A reader is given the bytes as they come and tells how far they are whole and right. Lines are
judged when they are whole, so that the verdict never depends on how the bytes were cut; the
last chunk, its trailers and the empty line behind them count as one. What a sender of requests
adds to the framing, extensions and trailers, is told in `cuts`, to be left out.
"""

from __future__ import annotations

import re

from v6fwd.client_ip.http.syntax import (
    BAD_BYTE_RE,
    FIELDS_RE,
    MAX_FIELDS,
    MAX_HEAD,
    TOKEN,
    HttpRefused,
)

MAX_CHUNK_LINE = 256
"""Bytes of a size line with its CRLF. Nobody is known to need extensions; signatures of 64
hexadecimal digits (S3) have room."""

_QUOTED = rb'"(?:[\t !#-\[\]-~\x80-\xff]|\\[\t -~\x80-\xff])*"'
_EXTENSION = rb";[ \t]*" + TOKEN + rb"+(?:=(?:" + TOKEN + rb"+|" + _QUOTED + rb"))?"
# No blank before a semicolon or the CRLF: RFC 9112, 7.1.1 wants the first read and has none of
# the second, and servers differ about both.
# 15 digits fit 64 bits with room to spare, in whatever a target counts.
_SIZE_RE = re.compile(rb"([0-9A-Fa-f]{1,15})((?:" + _EXTENSION + rb")*)\r\n")
# How such a line may begin: whatever does not is refused without waiting for its end.
_SIZE_BEGUN_RE = re.compile(rb"(?:[0-9A-Fa-f]{1,15}(?:;[\t -~\x80-\xff]*)?\r?)?")

_BAD_CHUNK = HttpRefused(400, "malformed chunk")
_BAD_TRAILER = HttpRefused(400, "malformed trailer field")
_BIG_TRAILER = HttpRefused(431, "trailer fields too large")


class ChunkReader:
    """Follows the chunks of one body."""

    __slots__ = ("_in_data", "_searched", "cuts", "done", "error", "left")

    def __init__(self) -> None:
        self.left = 0
        """Bytes of the current chunk's data that are still to come."""
        self.done = False
        self.error: HttpRefused | None = None
        self.cuts: list[tuple[int, int]] = []
        """What the last `follow` passed over and no target needs: places in its data."""
        self._searched = 0  # how much of the trailers holds no bad byte
        self._in_data = False  # the chunk's data, or the CRLF behind it, is still to come

    def follow(self, data: bytes, at: int) -> int:
        """How far data[at:] is whole and right; what lies behind is to be given again, with more.

        Stops behind the body (`done`), at the end of what is there, or at an `error`. Bytes of
        `left` may be moved past the reader instead: see `skip`.
        """
        self.cuts = []
        end = len(data)
        while at < end:
            if self._in_data:
                step = min(self.left, end - at)
                self.left -= step
                at += step
                if self.left or not self._closed(data, at):
                    return at
                at += 2
                continue
            match = _SIZE_RE.match(data, at, at + MAX_CHUNK_LINE)
            if match is None:
                self._judge_begun(data, at)
                return at
            size = int(match[1], 16)
            if not size:
                return self._finish(data, at, match)
            if match[2]:
                self.cuts.append(match.span(2))
            self.left = size
            self._in_data = True
            at = match.end()
        return at

    def skip(self, count: int) -> None:
        """`count` bytes of `left` have gone another way."""
        self.left -= count

    def _closed(self, data: bytes, at: int) -> bool:
        """Whether the CRLF behind a chunk's data is there."""
        behind = data[at : at + 2]
        if behind == b"\r\n":
            self._in_data = False
            return True
        if behind not in (b"", b"\r"):
            self.error = _BAD_CHUNK
        return False

    def _judge_begun(self, data: bytes, at: int) -> None:
        """A size line that is not whole: may it still become one?"""
        begun = data[at : at + MAX_CHUNK_LINE]
        if len(begun) == MAX_CHUNK_LINE or _SIZE_BEGUN_RE.fullmatch(begun) is None:
            self.error = _BAD_CHUNK

    def _finish(self, data: bytes, at: int, last: re.Match[bytes]) -> int:
        """The last chunk, the trailers and the empty line: all of it or nothing."""
        start = last.end()
        empty = data.startswith(b"\r\n", start)
        end = start + 2 if empty else self._trailers(data, start)
        if not end:
            return at
        if last[2]:
            self.cuts.append(last.span(2))
        if not empty:
            self.cuts.append((start, end - 2))
        self.done = True
        return end

    def _trailers(self, data: bytes, start: int) -> int:
        """Where trailers and their empty line end, or 0: not yet, or `error` says why."""
        limit = start + MAX_HEAD
        end = data.find(b"\r\n\r\n", start, limit) + 4
        if end > 3:
            if FIELDS_RE.fullmatch(data, start, end) is None:
                self.error = _BAD_TRAILER
            elif data.count(b"\r\n", start, end) > MAX_FIELDS + 1:
                self.error = _BIG_TRAILER
            else:
                return end
        elif BAD_BYTE_RE.search(data, start + self._searched, min(limit, len(data))) is not None:
            self.error = _BAD_TRAILER
        elif len(data) >= limit:
            self.error = _BIG_TRAILER
        else:
            self._searched = max(0, len(data) - start - 1)
        return 0
