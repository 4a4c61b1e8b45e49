"""The responses of one target connection, on their way to the client.

Not a byte of them is changed. They are read so far as HTTP demands it: to know where one ends
and the next begins, that each was asked for, and when the connection changes its protocol. A
head is held until it is whole, so that a client gets a 502 instead of garbage. What a client
could read in another way than it was read here is an `error`, as for requests.
"""

from __future__ import annotations

import re
from collections import deque

from v6fwd.client_ip.http.chunks import ChunkReader
from v6fwd.client_ip.http.framing import CHUNKED
from v6fwd.client_ip.http.syntax import (
    FIELDS_RE,
    LENGTH_RE,
    MAX_LENGTH,
    MAX_RESPONSE_HEAD,
    TOKEN,
    VALUE,
    Kind,
    bad_byte,
)

Piece = bytes | memoryview

UNTIL_EOF = -1
"""In `passing`: the body ends with the connection."""

_PLAIN = Kind.PLAIN  # an enum's members are slow to look up
_UNKNOWN = -2  # a length that nobody told
_START = b"HTTP/1."

# RFC 9112, 4. The blank behind the status is left out by many where no reason follows.
_STATUS_LINE = rb"HTTP/1\.([01]) ([1-9][0-9][0-9])(?: " + VALUE + rb"*)?\r\n"
_STATUS_RE = re.compile(_STATUS_LINE)
_FRAMING_RE = re.compile(rb"\n((?i:content-length|transfer-encoding|connection)):[ \t]*([^\r]*)")

# The usual head in one go: a status that has a body, one Content-Length, nothing else that
# frames a message or ends the connection. Group 1 is the length.
_OTHER = (
    rb"(?:(?![CcTt](?i:ontent-length|ransfer-encoding|onnection):)"
    + TOKEN
    + rb"+:"
    + VALUE
    + rb"*\r\n|Connection: [Kk]eep-[Aa]live\r\n)*"
)
_USUAL_RE = re.compile(
    rb"HTTP/1\.1 (?!204|304)[2-5][0-9][0-9] "
    + VALUE
    + rb"*\r\n"
    + _OTHER
    + rb"Content-Length: (0|[1-9][0-9]{0,17})\r\n"
    + _OTHER
    + rb"\r\n"
)


class _BadResponseError(Exception):
    """Carries the text of `error`."""


class ResponseStream:
    """The target's connection, target to client."""

    __slots__ = (
        "_chunks",
        "_expected",
        "_held",
        "_last",
        "_over",
        "_searched",
        "_usual",
        "_usual_size",
        "answered_upgrade",
        "began",
        "error",
        "outstanding",
        "passing",
        "switched",
    )

    def __init__(self) -> None:
        self.outstanding = 0
        """Requests whose final response is not complete."""
        self.passing = 0
        """Bytes of a body that go through as they are, or UNTIL_EOF: move them past the stream
        and tell `passed`, or give them to `receive`."""
        self.error = ""
        """Why the target's answer is bad; nothing is let through any more."""
        self.began = False
        """Bytes of the response under way have been let through: no 502 can take its place."""
        self.switched = False
        """The target speaks another protocol: all bytes go through."""
        self.answered_upgrade = False
        """A request for another protocol was refused by the target; whoever goes on with the
        requests sets it back."""
        self._expected: deque[Kind] = deque()
        self._chunks: ChunkReader | None = None
        self._held = b""
        self._usual = b""  # the head of the last usual response: its like need not be read again
        self._usual_size = -1  # of that response, its body included
        self._searched = 0  # how much of a held head holds no bad byte
        self._last = False  # the target ends the connection with the response under way
        self._over = False  # and has done so

    def expect(self, kind: Kind) -> None:
        """A request has been let through; called for each, in order."""
        if self._over:  # the target said that it answers no more: RFC 9112, 9.6
            return
        self._expected.append(kind)
        self.outstanding += 1

    def receive(self, data: bytes) -> list[Piece]:
        """What the client may have now; `data` itself if that is all of it."""
        return [data] if self.one(data) else self._receive(data)

    def one(self, data: bytes) -> bool:
        """The quick path: whether `data` is one response, or the start of one, as most are, and
        may go to the client. False, and nothing was done: take `receive`."""
        if not self.outstanding or self.began or self._held or self._expected[0] is not _PLAIN:
            return False
        if data.startswith(self._usual) and len(data) == self._usual_size:
            self._expected.popleft()
            self.outstanding -= 1
            return True
        usual = _USUAL_RE.match(data)
        if usual is None or self.error:
            return False
        size = usual.end() + int(usual[1])
        missing = size - len(data)
        if missing > 0:
            self.passing = missing
            self.began = True
        elif missing < 0:
            return False
        else:
            self._usual, self._usual_size = data[: usual.end()], size
            self._expected.popleft()
            self.outstanding -= 1
        return True

    def passed(self, count: int) -> None:
        """`count` bytes of `passing` have gone past the stream."""
        if self.passing == UNTIL_EOF:
            return
        self.passing -= count
        if self._chunks is not None:
            self._chunks.skip(count)
        elif not self.passing:
            self._complete()

    def ended(self) -> str:
        """The target has closed: "" if that is a fine end, else why not."""
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
        at, end = 0, len(data)
        try:
            while at < end and not self._held and not self.error:
                step = self._step(data, at)
                if step == at:
                    self._held = data[at:]
                at = step
        except _BadResponseError as error:
            self.error = str(error)
        if at == end:
            return [data] if data else []
        return [memoryview(data)[:at]] if at else []

    def _step(self, data: bytes, at: int) -> int:
        """Where in data[at:] the next part ends; `at` itself while that is not known."""
        if self.switched or self.passing == UNTIL_EOF:
            return len(data)
        if self._chunks is not None:
            return self._chunk(self._chunks, data, at)
        if not self.passing:
            return self._head(data, at)
        step = min(self.passing, len(data) - at)
        self.passed(step)
        return at + step

    def _chunk(self, chunks: ChunkReader, data: bytes, at: int) -> int:
        end = chunks.follow(data, at)
        if chunks.error is not None:
            self.error = chunks.error.why
        self.passing = chunks.left
        if chunks.done:
            self._complete()
        return end

    def _complete(self) -> None:
        """The response under way is complete."""
        self._chunks = None
        self.passing = 0
        self.began = False
        self._expected.popleft()
        self.outstanding -= 1
        if self._last:
            self._over = True
            self._expected.clear()
            self.outstanding = 0

    # ---- heads ---------------------------------------------------------------------------------

    def _head(self, data: bytes, at: int) -> int:
        if not self._expected:
            raise _BadResponseError("response that nobody asked for")
        if not _START.startswith(data[at : at + len(_START)]):
            raise _BadResponseError("no HTTP/1 response")
        limit = at + MAX_RESPONSE_HEAD
        end = data.find(b"\r\n\r\n", at, limit) + 4
        if end < 4:
            self._search(data, at, limit)
            return at
        self._searched = 0
        line = _STATUS_RE.match(data, at, end)
        if line is None or FIELDS_RE.fullmatch(data, line.end(), end) is None:
            raise _BadResponseError(bad_byte(data, at, end) or "malformed response head")
        self._answer(int(line[2]), _Framing(data[line.end() - 1 : end], line[1]))
        return len(data) if self.switched else end

    def _search(self, data: bytes, at: int, limit: int) -> None:
        """Raise _BadResponseError for a head that is not whole, if it is at fault already."""
        end = min(limit, len(data))
        why = bad_byte(data, at + self._searched, end)
        if why:
            raise _BadResponseError(why)
        if len(data) >= limit:
            raise _BadResponseError("response head too large")
        self._searched = max(0, end - at - 1)

    def _answer(self, status: int, framing: _Framing) -> None:
        """A head is whole and right in itself: what does it mean for the request?"""
        kind = self._expected[0]
        if status == 101:
            if kind is not Kind.UPGRADE:
                raise _BadResponseError("101 that nobody asked for")
            self._switch()
        elif status >= 200:
            if kind is Kind.CONNECT and status < 300:
                self._switch()
                return
            if kind in (Kind.CONNECT, Kind.UPGRADE):
                self.answered_upgrade = True
            bodiless = kind is Kind.HEAD or status in (204, 304)  # RFC 9112, 6.3
            self._last = framing.closing
            length = framing.length()  # must make sense even where there is no body
            self._begin_body(0 if bodiless else length)

    def _switch(self) -> None:
        self._complete()
        self.switched = True

    def _begin_body(self, length: int) -> None:
        self.began = True
        if length == CHUNKED:
            self._chunks = ChunkReader()
        elif length:
            self.passing = length if length > 0 else UNTIL_EOF
            self._last = self._last or length < 0
        else:
            self._complete()


class _Framing:
    """What frames a response: the fields that say how long it is and whether it is the last."""

    __slots__ = ("_codings", "_lengths", "_minor", "closing")

    def __init__(self, block: bytes, minor: bytes) -> None:
        """`block` starts with the LF of the status line."""
        told: dict[bytes, list[bytes]] = {}
        for name, value in _FRAMING_RE.findall(block):
            told.setdefault(name.lower(), []).append(value.rstrip(b" \t"))
        self._lengths = told.get(b"content-length", [])
        self._codings = told.get(b"transfer-encoding", [])
        options = b",".join(told.get(b"connection", [])).lower().split(b",")
        said = {option.strip(b" \t") for option in options}
        self._minor = minor
        self.closing = b"close" in said or (minor == b"0" and b"keep-alive" not in said)

    def length(self) -> int:
        """The length of the body, CHUNKED or UNKNOWN: RFC 9112, 6.3."""
        if self._codings:
            if self._lengths:
                raise _BadResponseError("both Content-Length and Transfer-Encoding")
            if self._minor == b"0" or [coding.lower() for coding in self._codings] != [b"chunked"]:
                raise _BadResponseError("Transfer-Encoding that cannot be followed")
            return CHUNKED
        if not self._lengths:
            return _UNKNOWN
        # RFC 9110, 8.6: the same length said twice is no contradiction
        value = self._lengths[0]
        if len(set(self._lengths)) > 1:
            raise _BadResponseError("Content-Length that contradicts itself")
        if LENGTH_RE.fullmatch(value) is None or int(value) > MAX_LENGTH:
            raise _BadResponseError("malformed Content-Length")
        return int(value)
