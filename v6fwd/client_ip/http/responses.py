"""Follows the responses of a target connection, from target to client.

They are parsed to find where each ends, whether it was requested, and where the connection
changes its protocol. A head is held until it is complete, so that a client gets a 502 and not
garbage.

A strict response passes unchanged. Others are rewritten if all parsers agree about them (see
straighten), so that the client cannot interpret them differently; else they are an `error`.
"""

from __future__ import annotations

import re
from collections import deque

from v6fwd.client_ip.budget import UNBOUNDED, TimeBudget
from v6fwd.client_ip.http.chunks import LOOSE, ChunkReader
from v6fwd.client_ip.http.framing import CHUNKED
from v6fwd.client_ip.http.response_head import (
    PAST_MENDING_RE,
    BadResponseError,
    read_head,
)
from v6fwd.client_ip.http.straighten import straighten
from v6fwd.client_ip.http.syntax import MAX_RESPONSE_HEAD, Kind, name_bad_byte
from v6fwd.client_ip.http.usual_response import response_parts

Piece = bytes | memoryview

UNTIL_EOF = -1
"""In `passing`: the body ends with the connection."""

MAX_INTERIM = 1000
"""1xx answers per request. HAProxy and nginx have no limit, Go accepts 5. A server that sends a
102 every 20 s (RFC 2518, 10.1) reaches it after five hours."""

_PLAIN = Kind.PLAIN  # an enum's members are slow to look up
_STARTS = b"HTTP/1.", b"HTTP/2.0 "

_HEAD_END_RE = re.compile(rb"\n\r?\n")


class ResponseStream:
    """The target's connection, target to client.

    Large because a response is read in one pass, as requests are: see RequestStream.
    """

    __slots__ = (
        "_budget",
        "_chunks",
        "_expected",
        "_held",
        "_interim",
        "_last",
        "_max_head",
        "_must_end",
        "_over",
        "_searched",
        "_usual",
        "_usual_size",
        "answered_upgrade",
        "began",
        "error",
        "more",
        "outstanding",
        "passing",
        "switched",
    )

    def __init__(self, budget: TimeBudget = UNBOUNDED, max_head: int = MAX_RESPONSE_HEAD) -> None:
        """`budget` bounds how long one call may take: see `more`."""
        self.outstanding = 0
        """Requests without a complete final response."""
        self.passing = 0
        """Bytes of a body that pass unchanged, or UNTIL_EOF: move them past the stream and call
        `passed`, or give them to `receive`."""
        self.error = ""
        """Why the answer cannot be passed on; once set, nothing passes any more."""
        self.began = False
        """Bytes of the current final response have passed: no 502 can replace it."""
        self.switched = False
        """The target has switched protocols: all bytes pass."""
        self.answered_upgrade = False
        """The target has refused to switch protocols; the caller resets this when it continues
        with requests."""
        self.more = False
        """The last call ran out of time. Give other connections a turn, then call
        `receive(b"")`, before anything else is read."""
        self._budget = budget
        self._max_head = max(max_head, MAX_RESPONSE_HEAD)
        self._interim = 0  # 1xx answers to the request under way
        self._must_end = False  # parsers may differ about the end of the current response
        self._expected: deque[Kind] = deque()
        self._chunks: ChunkReader | None = None
        self._held = b""
        self._usual = b""  # head of the last usual response; an equal one is not parsed again
        self._usual_size = -1  # bytes of that response with its body
        self._searched = 0  # bytes of a held head checked so far
        self._last = False  # the current response ends the connection
        self._over = False  # and is complete

    @property
    def is_spent(self) -> bool:
        """Parsers may differ about where the complete response ended: close the connection, even
        if the target does not."""
        return self._over and self._must_end

    def expect(self, kind: Kind) -> None:
        """Note a request that has passed; call it for each, in order."""
        if self._over:  # RFC 9112, 9.6: the target answers no more requests
            return
        self._expected.append(kind)
        self.outstanding += 1

    def receive(self, data: bytes) -> list[Piece]:
        """Return what the client may get now; `data` itself if it passes whole."""
        return [data] if self.one(data) else self._receive(data)

    def one(self, data: bytes) -> bool:
        """Quick path: whether `data` is one usual response, or its start, and may pass.
        False: nothing was done, use `receive`."""
        if not self.outstanding or self.began or self._held or self._expected[0] is not _PLAIN:
            return False
        if data.startswith(self._usual) and len(data) == self._usual_size:
            self._expected.popleft()
            self.outstanding -= 1
            return True
        usual = response_parts(data)
        if usual is None or self.error:
            return False
        size = usual[0] + usual[1]
        missing = size - len(data)
        if missing > 0:
            self.passing = missing
            self.began = True
        elif missing < 0:
            return False
        else:
            self._usual, self._usual_size = data[: usual[0]], size
            self.answered()
        return True

    def awaits_usual(self) -> bool:
        """Whether one whole response may pass unread by `one`, which asks the same itself: calls
        cost more there than what they do."""
        if not self.outstanding or self.began or self._held or self.error:
            return False
        return self._expected[0] is _PLAIN

    def answered(self) -> None:
        """A whole usual response, which `awaits_usual`, has passed."""
        self._expected.popleft()
        self.outstanding -= 1

    def passed(self, count: int) -> None:
        """`count` bytes of `passing` were moved past the stream."""
        if self.passing == UNTIL_EOF:
            return
        self.passing -= count
        if self._chunks is not None:
            self._chunks.skip(count)
        elif not self.passing:
            self._complete()

    def ended(self) -> str:
        """The target has closed: return "" if no response was cut off, else what was."""
        if self.switched:
            return ""
        if self.passing == UNTIL_EOF:
            self._complete()
            return ""
        if self._held or self.began:
            return "closed in the middle of a response"
        return "closed without an answer" if self.outstanding else ""

    def _receive(self, data: bytes) -> list[Piece]:
        if self.error:
            return []
        if self._held:
            data, self._held = self._held + data, b""
        out = _Output(data)
        self.more = False
        self._budget.begin()
        at, end = 0, len(data)
        try:
            while at < end and not (self._held or self.error or self.is_spent):
                step = self._step(data, at, out)
                if step == at:
                    self._held = data[at:]
                elif step < end and self._takes_work() and self._budget.is_over():
                    self.more = True
                    self._held = data[step:]
                at = step
        except BadResponseError as error:
            self.error = str(error)
        return out.pieces(at)

    def _takes_work(self) -> bool:
        """Whether a head or chunks come next; everything else is cheap."""
        return not (self.passing or self.switched or self.error or self.is_spent)

    def _step(self, data: bytes, at: int, out: _Output) -> int:
        """Where the next part of data[at:] ends; `at` if it is incomplete."""
        if self.switched or self.passing == UNTIL_EOF:
            return len(data)
        if self._chunks is not None:
            return self._chunk(self._chunks, data, at, out)
        if not self.passing:
            return self._head(data, at, out)
        step = min(self.passing, len(data) - at)
        self.passed(step)
        return at + step

    def _chunk(self, chunks: ChunkReader, data: bytes, at: int, out: _Output) -> int:
        end = chunks.follow(data, at, self._budget.is_over)
        for start, stop, instead in chunks.cuts:
            out.replace(start, stop, instead)
        if chunks.was_loose:
            self._last = self._must_end = True
        if chunks.error is not None:
            self.error = chunks.error.why
        self.passing = chunks.left
        if chunks.done:
            self._complete()
        return end

    def _complete(self) -> None:
        """The current response is complete."""
        self._chunks = None
        self.passing = self._interim = 0
        self.began = False
        self._expected.popleft()
        self.outstanding -= 1
        if self._last:
            self._over = True
            self._expected.clear()
            self.outstanding = 0

    # ---- heads ---------------------------------------------------------------------------------

    def _head(self, data: bytes, at: int, out: _Output) -> int:
        if not self._expected:
            raise BadResponseError("response that nobody asked for")
        if not any(start.startswith(data[at : at + len(start)]) for start in _STARTS):
            raise BadResponseError("no HTTP/1 response")
        limit = at + self._max_head
        found = _HEAD_END_RE.search(data, at, limit)
        if found is None:
            self._search(data, at, limit)
            return at
        end = found.end()
        self._searched = 0
        try:
            self._answer(*read_head(data, at, end))
            self._must_end = False
        except BadResponseError:
            straight = straighten(data[at:end])
            if straight is None:
                raise
            self._must_end = straight.ends
            self._answer(*read_head(straight.head, 0, len(straight.head)))
            out.replace(at, end, straight.head)
        return len(data) if self.switched else end

    def _search(self, data: bytes, at: int, limit: int) -> None:
        """Raise BadResponseError for an incomplete head that is already invalid."""
        end = min(limit, len(data))
        why = name_bad_byte(PAST_MENDING_RE.search(data, at + self._searched, end))
        if why:
            raise BadResponseError(why)
        if len(data) >= limit:
            raise BadResponseError("response head too large")
        self._searched = max(0, end - at - 1)

    def _answer(self, status: int, length: int, closing: bool) -> None:
        """Apply a valid head to the request that it answers. Raises BadResponseError."""
        kind = self._expected[0]
        if status == 101:
            if kind is not Kind.UPGRADE:
                raise BadResponseError("101 that nobody asked for")
            self._switch()
        elif status < 200:
            self._interim += 1
            if self._interim > MAX_INTERIM:
                raise BadResponseError("too many interim responses")
        elif kind is Kind.CONNECT and status < 300:
            self._switch()
        else:
            if kind in (Kind.CONNECT, Kind.UPGRADE):
                self.answered_upgrade = True
            bodiless = kind is Kind.HEAD or status in (204, 304)  # RFC 9112, 6.3
            self._last = closing
            self._begin_body(0 if bodiless else length)

    def _switch(self) -> None:
        self._complete()
        self.switched = True

    def _begin_body(self, length: int) -> None:
        self.began = True
        if length == CHUNKED:
            self._chunks = ChunkReader(LOOSE)
        elif length:
            self.passing = length if length > 0 else UNTIL_EOF
            self._last = self._last or length < 0
        else:
            self._complete()


class _Output:
    """Collects what the client gets of some data, with replacements."""

    __slots__ = ("_at", "_data", "_pieces")

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0
        self._pieces: list[Piece] = []

    def replace(self, start: int, stop: int, instead: bytes) -> None:
        """Replace data[start:stop] by `instead`; call it in ascending order."""
        if start > self._at:
            self._pieces.append(memoryview(self._data)[self._at : start])
        self._pieces.append(instead)
        self._at = stop

    def pieces(self, end: int) -> list[Piece]:
        """The output up to `end`; the data itself if nothing was changed."""
        if end > self._at:
            whole = not self._at and end == len(self._data)
            self._pieces.append(self._data if whole else memoryview(self._data)[self._at : end])
        return self._pieces
