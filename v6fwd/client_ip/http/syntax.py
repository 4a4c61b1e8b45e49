"""What the readers of HTTP/1 share: the grammar of RFC 9112 as strict patterns, and limits.

No two parts of a pattern can split the same bytes in two ways, so giving up takes no longer than
matching, and no input makes them slow. (Possessive groups would say so, but CPython before
3.11.5 goes on from the wrong place when one gives up: gh-106052.)
"""

from __future__ import annotations

import enum
import re
from typing import NamedTuple

from v6fwd.model import ClientIP, OnOpaque

MAX_LINE = 8190
"""Bytes of a request line without its CRLF: Apache's LimitRequestLine; nginx has 8 KiB."""

MAX_HEAD = 16 * 1024
"""Bytes of a request's head, its line and last CRLF included: HAProxy's buffer is as large."""

MAX_FIELDS = 100
"""Fields in a head or behind the chunks: Apache's LimitRequestFields."""

MAX_RESPONSE_HEAD = 64 * 1024
"""Bytes of a response's head. Targets are trusted more than clients: cookies, policies."""

MAX_LENGTH = 2**63 - 1
"""The largest Content-Length: what fits an off_t, in which servers count."""

TOKEN = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]"
"""RFC 9110, 5.6.2: a byte of a method, a field's name, a connection option."""

VALUE = rb"[\t\x20-\x7e\x80-\xff]"
"""RFC 9110, 5.5: a byte of a field's value, blanks around it included."""

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
"""What no head may hold anywhere, told as soon as it comes: a control byte, half a CRLF."""


BAD_BYTE_BUT_LF_RE = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]|\r(?!\n|\Z)")
"""The same where a bare LF ends a line."""


class Kind(enum.Enum):
    """What the reader of responses must know of a request."""

    PLAIN = "plain"
    HEAD = "head"
    CONNECT = "connect"
    UPGRADE = "upgrade"


class HttpRefused(NamedTuple):
    """Why a message is not let through: a status for the client, and a short text.

    The text is fixed: nothing that came over the network is in it.
    """

    status: int
    why: str


class Refusal(Exception):  # noqa: N818 - not an error of ours
    """Carries an HttpRefused out of the reading of a head."""

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.verdict = HttpRefused(status, why)


class HttpRules:
    """What one forward wants of HTTP; made once, never changed."""

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
    """What is wrong with the first byte in data[start:end] that no head may hold; "" if none is.

    A CR at the very end is not judged yet: its LF may be still to come.
    """
    return name_bad_byte(BAD_BYTE_RE.search(data, start, end))


def name_bad_byte(match: re.Match[bytes] | None) -> str:
    """What to say of a bad byte that was found; "" if none was."""
    if match is None:
        return ""
    return {b"\n": "bare LF in the head", b"\r": "bare CR in the head"}.get(
        match[0], "control byte in the head"
    )
