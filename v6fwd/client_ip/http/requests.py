"""Follows the requests of a client connection, from client to target.

The stream is between requests, in a head, or in a body, which is a number of bytes (`passing`)
or chunks. A head is held until it is complete, then refused or rewritten; a body passes
unchanged, except for extensions and trailers of chunks. After a refusal nothing passes. Of the
refused request nothing has passed if its head was invalid, or a chunk that arrived together
with its head. (A head does not wait for chunks: its answer may come first.)

The result does not depend on how the bytes are cut.
"""

from __future__ import annotations

from v6fwd.client_ip.budget import UNBOUNDED, TimeBudget
from v6fwd.client_ip.http.address import AddressFields
from v6fwd.client_ip.http.chunks import FREE_EXTENSIONS, STRICT, ChunkReader
from v6fwd.client_ip.http.fields import FieldReader, Fields
from v6fwd.client_ip.http.framing import CHUNKED
from v6fwd.client_ip.http.memo import USUAL_BLOCK, FieldMemo, Known
from v6fwd.client_ip.http.request_head import HeadReader
from v6fwd.client_ip.http.request_line import (
    H2_PREFACE,
    LINE_RE,
    TLS_HANDSHAKE,
    USUAL_RE,
    begins_opaque,
)
from v6fwd.client_ip.http.syntax import HttpRefused, HttpRules, Kind, Refusal
from v6fwd.model import Address

Piece = bytes | memoryview

_PLAIN, _HEAD = Kind.PLAIN, Kind.HEAD  # an enum's members are slow to look up


class RequestStream:
    """One client connection, client to target.

    Large because a request is read in one pass: each step leaves state that the next one needs, and
    an object for each part would cost every request its calls.
    """

    __slots__ = (
        "_budget",
        "_chunked_from",
        "_chunks",
        "_fresh",
        "_heads",
        "_held",
        "_kept",
        "_memo",
        "_rules",
        "_spare",
        "begun",
        "closing",
        "known",
        "more",
        "opaque",
        "opaque_why",
        "passing",
        "refused",
        "switching",
        "waiting",
    )

    def __init__(
        self,
        rules: HttpRules,
        client: Address,
        destination: Address,
        *,
        trusted: bool,
        secure: bool = False,
        budget: TimeBudget = UNBOUNDED,
    ) -> None:
        """`trusted`: the client is a proxy whose list of addresses is kept and appended to.

        `secure`: the client spoke TLS to a proxy in front. `budget` bounds how long one call may
        take: see `more`.
        """
        self.passing = 0
        """Bytes that pass unchanged: move them past the stream and call `passed`, or give them
        to `receive`. At 0 all bytes must go to `receive`."""
        self.refused: HttpRefused | None = None
        """Once set, nothing passes any more."""
        self.opaque = False
        """From now on all bytes pass unchanged."""
        self.opaque_why = ""
        """What the client speaks instead of HTTP/1: "TLS", "HTTP/2" or ""."""
        self.begun: list[Kind] = []
        """Requests whose heads have passed since the caller last cleared this list."""
        self.switching = False
        """The last request asks for another protocol."""
        self.waiting = False
        """It is whole: bytes are kept until `switched` or `stayed`. Whoever
        feeds the stream bounds them by not reading on."""
        self.closing = False
        """The last request closes the connection: what follows it is dropped."""
        self.more = False
        """The last call ran out of time. Give other connections a turn, then call
        `receive(b"")`, before anything else is read."""
        self.known: Known | None = None
        """What the memo has, if a request may take the quick path: `one`, relay/http/_pass.c."""
        address = AddressFields(
            client, destination, forwarded=rules.forwarded, trusted=trusted, secure=secure
        )
        self._memo = FieldMemo(FieldReader(address, keep_underscores=rules.keep_underscores))
        self._heads = HeadReader(rules, self._memo)
        self._rules = rules
        self._budget = budget
        self._spare = FREE_EXTENSIONS  # of chunks, for all requests of the connection
        self._chunks: ChunkReader | None = None
        self._chunked_from = -1  # index in the current pieces of the chunked request's head
        self._held = b""  # received, but incomplete or not parsed yet
        self._kept: list[bytes] = []
        self._fresh = True  # the connection may still turn out not to be HTTP/1

    @property
    def in_head(self) -> bool:
        """Whether a head is incomplete; empty lines before it do not count."""
        held = self._held
        return bool(held) and self._chunks is None and held != b"\r" and not self.more

    @property
    def in_body(self) -> bool:
        """Whether the stream is in a body, or was when the request was refused."""
        return self.passing > 0 or self._chunks is not None

    @property
    def is_idle(self) -> bool:
        """Whether the stream is between requests."""
        in_body = self.passing or self._chunks is not None
        return not (self._held or in_body or self.waiting or self.opaque)

    def receive(self, data: bytes) -> list[Piece]:
        """Return what the target may get now, in pieces, and update the attributes above."""
        one = self.one(data)
        if one is None:
            return self._receive(data)
        self.begun.append(one[1])
        return [one[0]]

    def one(self, data: bytes) -> tuple[bytes, Kind] | None:
        """Quick path: if `data` is one plain request, best with the fields of the last one,
        return it rewritten, with its kind, which is not added to `begun`. None: use `receive`."""
        known = self.known
        if known is None:
            return None
        memo = self._memo
        if data.endswith(known[0]):
            end = len(data) - len(known[0])
        elif (usual := memo.read_head(data)) is not None:
            self.known = memo.known
            return usual[0] + usual[2], _HEAD if usual[3] else _PLAIN
        else:
            end = self._one_new(data)
            known = self.known
            if end < 0 or known is None:
                return None
        line = USUAL_RE.fullmatch(data, 0, end)
        if line is None:
            return None
        return data[:end] + known[1], _HEAD if line[1] else _PLAIN

    def _one_new(self, data: bytes) -> int:
        """Put the fields of `data` into the memo if it is one head; return their start, or -1."""
        end = data.find(b"\r\n")
        if len(data) > USUAL_BLOCK or data.find(b"\r\n\r\n", end) + 4 != len(data):
            return -1
        line = LINE_RE.fullmatch(data, 0, end)
        if line is None or not line[2].startswith(b"/"):
            return -1
        try:
            self._memo.read(data[end:], *line.groups())
        except Refusal:
            return -1
        self.known = self._memo.known
        return end

    def passed(self, count: int) -> None:
        """`count` bytes of `passing` were moved past the stream."""
        self.passing -= count
        if self._chunks is not None:
            self._chunks.skip(count)
        elif not self.passing:
            self._body_over()
            self.known = self._quick()

    def switched(self) -> bytes:
        """The target has switched protocols; return the bytes that were kept for it."""
        self.waiting = False
        self.opaque = True
        kept, self._kept = b"".join(self._kept), []
        return kept

    def stayed(self) -> list[Piece]:
        """The target does not switch; parse the kept bytes as HTTP, like `receive`."""
        self.waiting = False
        kept, self._kept = b"".join(self._kept), []
        return self._receive(kept)

    def _receive(self, data: bytes) -> list[Piece]:
        if self.opaque:
            return [data] if data else []
        if self.refused is not None:
            return []
        if self._held:
            data, self._held = self._held + data, b""
        pieces: list[Piece] = []
        self._chunked_from = -1
        self.more = False
        self._budget.begin()
        at, end = 0, len(data)
        try:
            while at < end and not self._held:
                at = self._step(data, at, pieces)
                if at < end and self._takes_work() and self._budget.is_over():
                    self.more = True
                    self._hold(data, at)
        except Refusal as refusal:
            self.refused = refusal.verdict
        self.known = self._quick()
        return pieces

    def _step(self, data: bytes, at: int, pieces: list[Piece]) -> int:
        """Take the next part of data[at:] and return where it ends."""
        if self.passing and self._chunks is None:
            return self._body(data, at, pieces)
        if self._chunks is not None:
            return self._chunk(self._chunks, data, at, pieces)
        if self.waiting:
            self._kept.append(data[at:])
            return len(data)
        if self.closing:
            return len(data)
        if self._fresh and begins_opaque(data):
            return self._turn_opaque(data, pieces)
        if data.startswith(b"\r", at):
            return self._empty_line(data, at)
        return self._head(data, at, pieces)

    def _takes_work(self) -> bool:
        """Whether a head or chunks come next; everything else is cheap."""
        if self._held or self.refused is not None or self.opaque:
            return False
        return self._chunks is not None or not (self.passing or self.waiting or self.closing)

    def _quick(self) -> Known | None:
        """What the memo has; None if the quick path is not allowed now."""
        if self._held or self._heads.empty_lines or self._chunks is not None or self.passing:
            return None
        if self.waiting or self.closing or self.refused is not None or self.opaque:
            return None
        return self._memo.known

    def _hold(self, data: bytes, at: int) -> int:
        """Keep data[at:] until more arrives."""
        self._held = data[at:]
        return len(data)

    # ---- bodies --------------------------------------------------------------------------------

    def _body(self, data: bytes, at: int, pieces: list[Piece]) -> int:
        step = min(self.passing, len(data) - at)
        self.passing -= step
        pieces.append(memoryview(data)[at : at + step])
        if not self.passing:
            self._body_over()
        return at + step

    def _body_over(self) -> None:
        """RFC 9110, 7.8: another protocol starts behind the body of the request."""
        self.waiting = self.switching

    def _chunk(self, chunks: ChunkReader, data: bytes, at: int, pieces: list[Piece]) -> int:
        end = chunks.follow(data, at, self._budget.is_over)
        view = memoryview(data)
        for start, stop, instead in chunks.cuts:
            pieces.append(view[at:start])
            if instead:
                pieces.append(instead)
            at = stop
        if end > at:
            pieces.append(view[at:end])
        self.passing = chunks.left
        if chunks.error is not None:
            self.refused = chunks.error
            self._take_back(pieces)
            return len(data)
        if chunks.done:
            self._chunks = None
            self._spare = chunks.spare
            return end
        self.more = chunks.is_late and end < len(data)
        return self._hold(data, end) if end < len(data) else end

    def _take_back(self, pieces: list[Piece]) -> None:
        """Withdraw the refused request if its head is among the current pieces."""
        if self._chunked_from >= 0:
            del pieces[self._chunked_from :]
            self.begun.pop()
            self._chunks = None

    # ---- heads ---------------------------------------------------------------------------------

    def _empty_line(self, data: bytes, at: int) -> int:
        end = self._heads.empty_line(data, at)
        if not end:
            return self._hold(data, at)
        self._fresh = False
        return end

    def _head(self, data: bytes, at: int, pieces: list[Piece]) -> int:
        """Pass or hold the head at data[at:], or raise Refusal."""
        self._fresh = False
        head = self._heads.read(data, at)
        if head is None:
            return self._hold(data, at)
        self._let_through(head.method, head.fields)
        self._chunked_from = len(pieces) if head.fields.length == CHUNKED else -1
        pieces.append(head.rewritten)
        return head.end

    def _let_through(self, method: bytes, fields: Fields) -> None:
        """Note what follows a head that has passed."""
        kind = Kind.PLAIN
        if method == b"CONNECT":
            kind = Kind.CONNECT
        elif fields.upgrade:
            kind = Kind.UPGRADE
        elif method == b"HEAD":
            kind = Kind.HEAD
        self.begun.append(kind)
        self.switching = kind in (Kind.CONNECT, Kind.UPGRADE)
        self.closing = fields.closing
        if fields.length == CHUNKED:
            self._chunks = ChunkReader(STRICT, self._spare)
        else:
            self.passing = fields.length
            if not self.passing:
                self._body_over()

    # ---- not HTTP/1 ----------------------------------------------------------------------------

    def _turn_opaque(self, data: bytes, pieces: list[Piece]) -> int:
        tls = data.startswith(TLS_HANDSHAKE)
        if not tls and len(data) < len(H2_PREFACE):
            return self._hold(data, 0)
        self.opaque_why = "TLS" if tls else "HTTP/2"
        if not self._rules.pass_opaque:
            raise Refusal(400 if tls else 505, f"this is {self.opaque_why}, not HTTP/1.1")
        self.opaque = True
        pieces.append(data)
        return len(data)
