"""Chunked bodies: RFC 9112, 7.1, followed without touching the data in the chunks.

A reader gets the bytes as they arrive and returns how far they are complete and valid. A line
is judged when it is complete, so the result never depends on how the bytes are cut. The last
chunk, its trailers and the empty line behind them count as one line.

Requests are parsed strictly; extensions and trailers are removed. Answers come from a trusted
target: what HAProxy, nginx and curl all accept (blanks behind a size, any extension, LF for
CRLF) is accepted, and `cuts` tells how to rewrite it strictly.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from v6fwd.client_ip.http.chunk_runs import EVEN_FROM, Form, even_end, plain_end, rewrite
from v6fwd.client_ip.http.syntax import (
    BAD_BYTE_BUT_LF_RE,
    BAD_BYTE_RE,
    FIELDS_RE,
    LOOSE_FIELDS_RE,
    MAX_FIELDS,
    MAX_HEAD,
    MAX_LENGTH,
    TOKEN,
    HttpRefused,
)
from v6fwd.model.lean import NamedTuple

MAX_CHUNK_LINE = 256
"""Bytes of a request's size line with CRLF. Extensions are hardly used; a signature of 64
hexadecimal digits (S3) fits."""

MAX_LOOSE_LINE = 8192
"""The same for an answer."""

FREE_EXTENSIONS = 4096
"""Bytes of chunk extensions that the requests of one connection may have without data."""
_DATA_PER_EXTENSION = 16
"""Bytes of a chunk that allow one more byte of its extensions. RFC 9112, 7.1.1 asks for such a
limit. An S3 signature has 85 bytes for 8 KiB or more of data; Go's net/http has a similar rule."""

_WIDEST = 16
"""Bytes of data per chunk of a run above which its columns are dearer than single chunks."""

_QUOTED = rb'"(?:[\t !#-\[\]-~\x80-\xff]|\\[\t -~\x80-\xff])*"'
_EXTENSION = rb";[ \t]*" + TOKEN + rb"+(?:=(?:" + TOKEN + rb"+|" + _QUOTED + rb"))?"
_VISIBLE = rb"[\t -~\x80-\xff]"

Cut = tuple[int, int, bytes]
"""Start and end of a range of the data, and its replacement."""


class Grammar(NamedTuple):
    """What a sender may write."""

    line: re.Pattern[bytes]  # 1: the size, 2: extensions
    begun: re.Pattern[bytes]  # an incomplete line that may become valid
    longest: int  # bytes of a line with its end
    line_end: re.Pattern[bytes]
    end: re.Pattern[bytes]  # end of trailers: of the last line, and the empty line
    bad_byte: re.Pattern[bytes]
    is_loose: bool


# No blank before a semicolon (RFC 9112, 7.1.1 allows it) or CRLF (it does not): servers differ
# about both. 15 digits fit any integer type that a target counts in.
STRICT = Grammar(
    re.compile(rb"([0-9A-Fa-f]{1,15})((?:" + _EXTENSION + rb")*)\r\n"),
    re.compile(rb"(?:[0-9A-Fa-f]{1,15}(?:;" + _VISIBLE + rb"*)?\r?)?"),
    MAX_CHUNK_LINE,
    re.compile(rb"\r\n"),
    re.compile(rb"\r\n\r\n"),
    BAD_BYTE_RE,
    is_loose=False,
)
LOOSE = Grammar(
    re.compile(rb"([0-9A-Fa-f]{1,16})([ \t]*(?:;" + _VISIBLE + rb"*)?)\r?\n"),
    re.compile(rb"(?:[0-9A-Fa-f]{1,16}[ \t]*(?:;" + _VISIBLE + rb"*)?\r?)?"),
    MAX_LOOSE_LINE,
    re.compile(rb"\r?\n"),
    re.compile(rb"\n\r?\n"),
    BAD_BYTE_BUT_LF_RE,
    is_loose=True,
)

_BAD_CHUNK = HttpRefused(400, "malformed chunk")
_BIG_EXTENSIONS = HttpRefused(400, "chunk extensions too large")
_BAD_TRAILER = HttpRefused(400, "malformed trailer field")
_BIG_TRAILER = HttpRefused(431, "trailer fields too large")


def _price(line: re.Match[bytes], size: int) -> int:
    """Bytes of FREE_EXTENSIONS that a chunk takes; below 0 where it gives some back."""
    return len(line[2]) - size // _DATA_PER_EXTENSION if line[2] else 0


def never_late() -> bool:
    """Default for callers without a time limit."""
    return False


class ChunkReader:
    """Follows the chunks of one body."""

    __slots__ = (
        "_grammar",
        "_in_data",
        "_searched",
        "cuts",
        "done",
        "error",
        "is_late",
        "left",
        "spare",
        "was_loose",
    )

    def __init__(self, grammar: Grammar = STRICT, spare: int = FREE_EXTENSIONS) -> None:
        self.left = 0
        """Bytes of the current chunk's data that are still to come."""
        self.done = False
        self.error: HttpRefused | None = None
        self.cuts: list[Cut] = []
        """Ranges before the end of the last `follow` that must be replaced."""
        self.is_late = False
        """The last `follow` stopped because its time was over."""
        self.was_loose = False
        """A line ended in a bare LF, which stricter parsers interpret differently."""
        self.spare = spare
        """Bytes of extensions that may still come."""
        self._grammar = grammar
        self._searched = 0  # how much of the trailers holds no bad byte
        self._in_data = False  # the chunk's data, or the CRLF behind it, is still to come

    def follow(self, data: bytes, at: int, late: Callable[[], bool] = never_late) -> int:
        """Return how far data[at:] is complete and valid; pass the rest again, with more bytes.

        Stops at the end of the body (`done`), at the end of the data, at an `error`, or behind a
        chunk if `late()`. Bytes of `left` may be moved past the reader instead: see `skip`.
        """
        self.cuts = []
        self.is_late = False
        end = len(data)
        while at < end:
            if self._in_data:
                step = min(self.left, end - at)
                self.left -= step
                at += step
                closed = 0 if self.left else self._closed(data, at)
                if not closed:
                    return at
                at += closed
                if late():
                    self.is_late = True
                    return at
                continue
            plain = plain_end(data, at)
            if plain > at:
                at = plain
                continue
            line = self._grammar.line.match(data, at, at + self._grammar.longest)
            if line is None:
                self._judge_begun(data, at)
                return at
            size = int(line[1], 16)
            if not size:
                return self._finish(data, at, line)
            run = self._run(data, at, line, size)
            if run:
                at = run
                if late():
                    self.is_late = True
                    return at
                continue
            if not self._begin_chunk(data, line, size):
                return at
            at = line.end()
        return at

    def skip(self, count: int) -> None:
        """`count` bytes of `left` were moved past the reader."""
        self.left -= count

    def _begin_chunk(self, data: bytes, line: re.Match[bytes], size: int) -> bool:
        """Accept a size line; False if it is refused."""
        if not self._grammar.is_loose and (price := _price(line, size)):
            spare = self.spare - price
            if spare < 0:
                self.error = _BIG_EXTENSIONS
                return False
            self.spare = min(spare, FREE_EXTENSIONS)
        if size > MAX_LENGTH:
            self.error = _BAD_CHUNK
            return False
        self._cut_line(data, line)
        self.left = size
        self._in_data = True
        return True

    def _run(self, data: bytes, at: int, line: re.Match[bytes], size: int) -> int:
        """Take a run of chunks written as the one at data[at:]; its end, 0 if there is none."""
        if line.end() + size > len(data):
            return 0
        close = self._grammar.line_end.match(data, line.end() + size)
        if close is None:
            return 0
        old, new = Form(line[0], close[0]), Form(self._clean(line), b"\r\n")
        period = len(old.line) + size + len(old.close)
        count = (even_end(data, at, size, old) - at) // period
        price = 0 if self._grammar.is_loose else _price(line, size)
        if price > 0:
            count = min(count, self.spare // price)
        if count < EVEN_FROM or size > _WIDEST * count:
            return 0
        self.spare = min(self.spare - count * price, FREE_EXTENSIONS)
        end = at + count * period
        if new != old:
            self.cuts.append((at, end, rewrite(data[at:end], size, old, new)))
            self._note_end(data, line.end())
            self.was_loose = self.was_loose or close[0] == b"\n"
        return end

    def _clean(self, line: re.Match[bytes]) -> bytes:
        """The size line that is passed on. In an answer, valid extensions stay."""
        if not self._grammar.is_loose:
            return line[1] + b"\r\n"
        return line[0] if STRICT.line.fullmatch(line[0]) else b"%x\r\n" % int(line[1], 16)

    def _cut_line(self, data: bytes, line: re.Match[bytes]) -> None:
        if not self._grammar.is_loose:
            if line[2]:
                self.cuts.append((*line.span(2), b""))
        elif (clean := self._clean(line)) != line[0]:
            self.cuts.append((*line.span(), clean))
            self._note_end(data, line.end())

    def _note_end(self, data: bytes, end: int) -> None:
        self.was_loose = self.was_loose or not data.endswith(b"\r\n", 0, end)

    def _closed(self, data: bytes, at: int) -> int:
        """Length of the line end behind a chunk's data; 0 if it is missing or incomplete."""
        line_end = self._grammar.line_end.match(data, at)
        if line_end is not None:
            self._in_data = False
            if line_end[0] == b"\n":
                self.was_loose = True
                self.cuts.append((at, at + 1, b"\r\n"))
            return len(line_end[0])
        if data[at : at + 2] not in (b"", b"\r"):
            self.error = _BAD_CHUNK
        return 0

    def _judge_begun(self, data: bytes, at: int) -> None:
        """Set `error` if an incomplete size line cannot become valid."""
        longest = self._grammar.longest
        begun = data[at : at + longest]
        if len(begun) == longest or self._grammar.begun.fullmatch(begun) is None:
            self.error = _BAD_CHUNK

    def _finish(self, data: bytes, at: int, last: re.Match[bytes]) -> int:
        """Accept the last chunk with trailers and empty line, or nothing of it."""
        start = last.end()
        empty = self._grammar.line_end.match(data, start)
        end = empty.end() if empty is not None else self._trailers(data, start)
        if not end:
            return at
        self._cut_line(data, last)
        if self._grammar.is_loose:
            if FIELDS_RE.fullmatch(data, start, end) is None:
                self.cuts.append((start, end, b"\r\n"))
                self._note_end(data, end)
        elif empty is None:
            self.cuts.append((start, end - 2, b""))
        self.done = True
        return end

    def _trailers(self, data: bytes, start: int) -> int:
        """End of trailers and empty line; 0 if incomplete, or invalid (`error`)."""
        grammar = self._grammar
        limit = start + MAX_HEAD
        found = grammar.end.search(data, start, limit)
        if found is not None:
            fields = LOOSE_FIELDS_RE if grammar.is_loose else FIELDS_RE
            if fields.fullmatch(data, start, found.end()) is None:
                self.error = _BAD_TRAILER
            elif data.count(b"\n", start, found.end()) > MAX_FIELDS + 1:
                self.error = _BIG_TRAILER
            else:
                return found.end()
        elif grammar.bad_byte.search(data, start + self._searched, min(limit, len(data))):
            self.error = _BAD_TRAILER
        elif len(data) >= limit:
            self.error = _BIG_TRAILER
        else:
            self._searched = max(0, len(data) - start - 1)
        return 0
