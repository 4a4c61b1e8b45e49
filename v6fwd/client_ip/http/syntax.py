"""Grammar of RFC 9112 as strict patterns, limits, and types that the HTTP readers share.

The patterns are unambiguous: no input makes them backtrack for long. (Possessive groups would
state that, but CPython before 3.11.5 resumes in the wrong place after one: gh-106052.)
"""

from __future__ import annotations

import enum
import re

from v6fwd.model import ClientIP, OnOpaque
from v6fwd.model.lean import NamedTuple

MAX_LINE = 8190
"""Bytes of a request line without CRLF: Apache's LimitRequestLine; nginx has 8 KiB."""

MAX_HEAD = 16 * 1024
"""Default for bytes of a request's head, including line and empty line; as HAProxy's buffer."""

MAX_FIELDS = 100
"""Fields in a head or in trailers: Apache's LimitRequestFields."""

MAX_RESPONSE_HEAD = 64 * 1024
"""Bytes of a response's head. Targets are trusted more, and send many cookies and policies."""

MAX_LENGTH = 2**63 - 1
"""The largest Content-Length: servers count in off_t."""

TOKEN = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]"
"""RFC 9110, 5.6.2: a byte of a method, field name or connection option."""

VALUE = rb"[\t\x20-\x7e\x80-\xff]"
"""RFC 9110, 5.5: a byte of a field value, including blanks around it."""

FIELD_LINES = rb"(?:" + TOKEN + rb"+:" + VALUE + rb"*\r\n)*"
"""Any number of field lines: no blank before the colon, no obs-fold, no bare CR or LF."""

FIELDS_RE = re.compile(FIELD_LINES + rb"\r\n")
LOOSE_FIELDS_RE = re.compile(
    rb"(?:" + TOKEN + rb"+[ \t]*:" + VALUE + rb"*(?:\r?\n[ \t]" + VALUE + rb"*)*\r?\n)*\r?\n"
)
"""The same with blanks before colons, folded fields and LF for CRLF."""
TOKEN_RE = re.compile(TOKEN + rb"+")
LENGTH_RE = re.compile(rb"0|[1-9][0-9]{0,18}")  # RFC 9110, 8.6; 19 digits hold MAX_LENGTH

BAD_BYTE_RE = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]|(?<!\r)\n|\r(?!\n|\Z)")
"""Never valid in a head, reported as soon as it arrives: a control byte or half a CRLF."""


BAD_BYTE_BUT_LF_RE = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]|\r(?!\n|\Z)")
"""The same where a bare LF ends a line."""


class Kind(enum.Enum):
    """The kind of a request, on which the framing of its response depends."""

    PLAIN = "plain"
    HEAD = "head"
    CONNECT = "connect"
    UPGRADE = "upgrade"


class HttpRefused(NamedTuple):
    """Why a message is refused: a status for the client, and a short text.

    The text is constant: it contains nothing that came over the network.
    """

    status: int
    why: str


class Refusal(Exception):  # noqa: N818 - not an error of ours
    """Raised while a head is parsed; carries an HttpRefused."""

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.verdict = HttpRefused(status, why)


class HttpRules:
    """The HTTP options of one forward; immutable."""

    __slots__ = ("forwarded", "keep_underscores", "max_head", "max_line", "pass_opaque")

    def __init__(
        self,
        mode: ClientIP,
        *,
        keep_underscores: bool = False,
        on_opaque: OnOpaque = OnOpaque.REFUSE,
        max_head: int = MAX_HEAD,
    ) -> None:
        """`max_head`: bytes of a request's head, MAX_HEAD or more.

        Raises ValueError for a mode that is not HTTP's.
        """
        if mode not in (ClientIP.X_FORWARDED_FOR, ClientIP.FORWARDED):
            raise ValueError(f"{mode} is not a mode of HTTP")
        self.forwarded = mode is ClientIP.FORWARDED
        self.keep_underscores = keep_underscores
        self.pass_opaque = on_opaque is OnOpaque.PASS
        self.max_head = max_head
        self.max_line = max(MAX_LINE, max_head // 2) if max_head > MAX_HEAD else MAX_LINE


def bad_byte(data: bytes, start: int, end: int) -> str:
    """Describe the first byte in data[start:end] that is invalid in a head; "" if there is none.

    A CR at the very end may still get its LF.
    """
    return name_bad_byte(BAD_BYTE_RE.search(data, start, end))


def name_bad_byte(match: re.Match[bytes] | None) -> str:
    """Describe a match of BAD_BYTE_RE or its kin; "" for None."""
    if match is None:
        return ""
    return {b"\n": "bare LF in the head", b"\r": "bare CR in the head"}.get(
        match[0], "control byte in the head"
    )
