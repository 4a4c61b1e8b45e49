"""Parses a usual head of HTTP/1.1 in one step, in a quarter of the time of the two readers.

Usual is a whitelist: names of letters, digits and hyphens that no reader treats specially, values
of visible bytes that do not end in a blank, one Host, and at most Connection besides. No parser
can read such fields in two ways. Only the values of Host and Connection are judged, by `framing`
and by llhttp, once for each pair of them. Everything else is left to FieldReader and `check`,
which give the same result for a usual head.

The step is the native scanner's (_heads.c) where it was built, else one match of a pattern; both
take and refuse the same.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable

from v6fwd.client_ip.http import crosscheck
from v6fwd.client_ip.http.address import AddressFields
from v6fwd.client_ip.http.fields import Fields
from v6fwd.client_ip.http.framing import framing
from v6fwd.client_ip.http.request_line import USUAL_LINE
from v6fwd.client_ip.http.syntax import MAX_FIELDS, Refusal

# Names that fields.py reads, drops or takes for an address, and some more that begin alike. Each
# branch begins with a set, which is compared without a call.
_SPECIAL = (
    rb"[Hh](?i:ost|ttp2-settings)|[Cc](?i:ontent-length|onnection)"
    rb"|[Tt](?i:ransfer-encoding|railer|e:)|[Uu](?i:pgrade:)|[Ee](?i:xpect)|[Kk](?i:eep-alive)"
    rb"|[Pp](?i:roxy-connection)|[Ff](?i:orwarded)|[Xx](?i:-forwarded|-real-ip)"
)
_OTHERS = rb"((?:(?!" + _SPECIAL + rb")[0-9A-Za-z-]++:[ -~\x80-\xff]*+\r\n)*)"
_CONNECTION = rb"(?:Connection: ([Kk]eep-[Aa]live)\r\n" + _OTHERS + rb")?"
_BLOCK = (
    rb"\r\n"
    + _OTHERS
    + _CONNECTION
    + rb"Host: ([!-~]{1,262})\r\n"
    + _OTHERS
    + _CONNECTION
    + rb"\r\n"
)
_BLOCK_RE = re.compile(_BLOCK)
_HEAD_RE = re.compile(rb"(" + USUAL_LINE + rb")" + _BLOCK)

Parts = tuple[bytes, bytes, bytes, bytes, tuple[bytes, ...]]
"""Of a head: its line, b"HEAD" if that is the method, else b""; Host, Connection, other lines."""

Frame = tuple[bytes, bytes, bytes, bytes]
"""Host and Connection, and what the target gets before and behind the other fields for them."""

UsualHead = tuple[bytes, bytes, bytes, bytes]
"""A request line, its block, the block rewritten; and b"HEAD" if that is the method, else b""."""

_NOTHING: dict[bytes, list[bytes]] = {}  # that the client said of addresses


def head_parts_by_pattern(head: bytes) -> Parts | None:
    """Return the parts of a head; None if it is not usual."""
    match = _HEAD_RE.fullmatch(head)
    if match is None or _is_odd(head):
        return None
    line, is_head, *groups = match.groups(b"")
    one, connection, two, host, three, other, four = groups
    if connection and other:
        return None
    return line, is_head, host, connection or other, (one, two, three, four)


def block_parts_by_pattern(block: bytes) -> Parts | None:
    """Return the parts of what follows a request line, from its CRLF on; None if not usual."""
    match = _BLOCK_RE.fullmatch(block)
    if match is None or _is_odd(block):
        return None
    one, connection, two, host, three, other, four = match.groups(b"")
    if connection and other:
        return None
    return b"", b"", host, connection or other, (one, two, three, four)


def _is_odd(head: bytes) -> bool:
    """Whether a value ends in a blank, which not every server strips, or fields are too many."""
    return b" \r\n" in head or head.count(b"\r\n") > MAX_FIELDS + 2


PartsOf = Callable[[bytes], Parts | None]


def scanner() -> tuple[PartsOf, PartsOf]:
    """The fastest way here to the parts of heads, and of blocks."""
    try:
        from v6fwd.client_ip.http import _scan
    except ImportError:  # it has not been built
        return head_parts_by_pattern, block_parts_by_pattern
    return _scan.head_parts, _scan.block_parts


head_parts, block_parts = scanner()


class UsualReader:
    """Parses and rewrites the usual heads of one connection."""

    __slots__ = ("_address", "_host_passed", "frame")

    def __init__(self, address: AddressFields) -> None:
        self._address = address
        self._host_passed = b""
        self.frame: Frame = b"", b"", b"", b""
        """Of the last head."""

    def head(self, head: bytes) -> UsualHead | None:
        """Parse a head; None if it is not usual."""
        parts = head_parts(head)
        if parts is None:
            return None
        line, is_head, *_ = parts
        rewritten = self._rewrite(parts)
        return (line, head[len(line) :], rewritten, is_head) if rewritten else None

    def block(self, block: bytes) -> Fields | None:
        """Parse what follows a request line, from its CRLF on; None if it is not usual."""
        parts = block_parts(block)
        rewritten = self._rewrite(parts) if parts is not None else b""
        return Fields(rewritten, 0, self._host_passed, False, False, False) if rewritten else None

    def _rewrite(self, parts: Parts) -> bytes:
        """Rewrite a block of these parts; b"" if it is not usual."""
        _, _, host, connection, others = parts
        frame = self.frame
        if host != frame[0] or connection != frame[1]:
            found = self._frame(host, connection)
            if found is None:
                return b""
            self.frame = frame = found
        return b"".join((frame[2], *others, frame[3]))

    def _frame(self, host: bytes, connection: bytes) -> Frame | None:
        """What the target gets around the other fields; None if it gets nothing."""
        frame = _frame(host, connection)
        if frame is None:
            return None
        self._host_passed, before, behind = frame
        added = self._address.for_request(_NOTHING, self._host_passed)
        return host, connection, b"\r\n" + before, behind + added + b"\r\n"


@functools.lru_cache(maxsize=1024)  # an entry has 1 KiB at most
def _frame(host: bytes, connection: bytes) -> tuple[bytes, bytes, bytes] | None:
    """Return the Host that is passed on, the lines before all others and those behind them.

    None unless both readers accept the values, and read a request without a body that neither ends
    the connection nor changes its protocol.
    """
    told = [(b"Host", host)]
    if connection:
        told.append((b"Connection", connection))
    try:
        found = framing(tuple((name.lower(), value) for name, value in told), b"1")
        block = b"".join(b"\r\n%b: %b" % pair for pair in told) + b"\r\n\r\n"
        fields = Fields(b"", *found[3:])
        crosscheck.compare((b"GET", b"/", b"1"), block, fields, told)
    except Refusal:
        return None
    if found.named or found.length or found.upgrade or found.closing or found.asked_upgrade:
        return None
    before, behind = (b"".join(line + b"\r\n" for line in lines) for lines in found[:2])
    return found.host, before, behind
