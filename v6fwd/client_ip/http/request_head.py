"""Parses and rewrites the head of a request, which may arrive in parts.

Line and fields are judged when each is complete, single bytes and sizes as soon as they arrive.
Of two errors the one whose byte comes first is reported. So the result does not depend on how
the bytes are cut.
"""

from __future__ import annotations

from v6fwd.client_ip.http.fields import Fields
from v6fwd.client_ip.http.memo import FieldMemo
from v6fwd.client_ip.http.request_line import LINE_RE, check_line
from v6fwd.client_ip.http.syntax import HttpRefused, HttpRules, Refusal, bad_byte
from v6fwd.model.lean import NamedTuple

MAX_EMPTY_LINES = 4
"""Empty lines skipped before a request. RFC 9112, 2.2 asks for at least one: old clients send it
behind a body."""


class Head(NamedTuple):
    """A complete, valid head."""

    end: int
    method: bytes
    fields: Fields
    rewritten: bytes


class HeadReader:
    """Parses the heads of one connection."""

    __slots__ = ("_judged", "_memo", "_rules", "_searched", "empty_lines")

    def __init__(self, rules: HttpRules, memo: FieldMemo) -> None:
        self.empty_lines = 0
        """Empty lines received before the current head."""
        self._rules = rules
        self._memo = memo
        self._searched = 0  # bytes of the current head checked so far
        self._judged = False  # its request line is valid

    def empty_line(self, data: bytes, at: int) -> int:
        """End of the empty line at data[at:]; 0 if incomplete. Raises Refusal."""
        line = data[at : at + 2]
        if line == b"\r":
            return 0
        self.empty_lines += 1
        if line != b"\r\n":
            raise Refusal(400, "bare CR in the head")
        if self.empty_lines > MAX_EMPTY_LINES:
            raise Refusal(400, "empty lines before a request")
        return at + 2

    def read(self, data: bytes, at: int) -> Head | None:
        """Parse the head at data[at:]; None if incomplete. Raises Refusal."""
        if data.startswith(b"\n", at):  # also if a CR came before it in another read
            raise Refusal(400, "bare LF in the head")
        longest, largest = self._rules.max_line, self._rules.max_head
        line_end = data.find(b"\r\n", at, at + longest + 2)
        if line_end < 0:
            self._search(data, at, at + longest + 2, HttpRefused(414, "request line too long"))
            return None
        line = LINE_RE.fullmatch(data, at, line_end)
        if not self._judged:
            if line is None and (why := bad_byte(data, at, line_end + 1)):
                raise Refusal(400, why)
            check_line(line, data[at:line_end], pass_opaque=self._rules.pass_opaque)
            self._judged = True
        assert line is not None
        end = data.find(b"\r\n\r\n", line_end, at + largest) + 4
        if end < 4:
            self._search(data, at, at + largest, HttpRefused(431, "request head too large"))
            return None
        self._judged = False
        self._searched = self.empty_lines = 0
        fields = self._memo.read(data[line_end:end], *line.groups())
        return Head(end, line[1], fields, data[at:line_end] + fields.rewritten)

    def _search(self, data: bytes, at: int, limit: int, too_much: HttpRefused) -> None:
        """Raise Refusal for an incomplete head that is already invalid."""
        end = min(limit, len(data))
        why = bad_byte(data, at + self._searched, end)
        if why:
            raise Refusal(400, why)
        if len(data) >= limit:
            raise Refusal(*too_much)
        self._searched = max(0, end - at - 1)
