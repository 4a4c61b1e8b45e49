"""Rewrites heads of answers that violate RFC 9112 into strict ones.

A page that works without v6fwd must work with it, and the target is trusted. So what HAProxy,
nginx and curl all accept is accepted, and what RFC 9112 tells proxies to repair: blanks before
a colon (5.1) and folded fields (5.2). Everything else is refused.

If another parser could find a different end of the message, the connection ends behind it, so
that nothing follows an ambiguous end.
"""

from __future__ import annotations

import re

from v6fwd.client_ip.http.syntax import LENGTH_RE, MAX_LENGTH, TOKEN_RE
from v6fwd.model.lean import NamedTuple

# All three accept several blanks, a tab before the reason, and HTTP/2.0 as HTTP/1.1; curl needs a
# blank behind the version.
_STATUS_RE = re.compile(rb"HTTP/(1\.[01]|2\.0) +([1-9][0-9][0-9])(?:[ \t]+([^\r]*))?")
_LINE_END_RE = re.compile(rb"\r?\n")
_CONTROL_RE = re.compile(rb"[\x01-\x08\x0b\x0c\x0e-\x1f\x7f]")
_LENGTH, _CODING, _CONNECTION = b"content-length", b"transfer-encoding", b"connection"
_BLANKS = b" \t"


class Straight(NamedTuple):
    """A strict head, and whether the connection must end behind its message."""

    head: bytes
    ends: bool


class _CannotError(Exception):
    """The head cannot be repaired."""


def straighten(head: bytes) -> Straight | None:
    """Rewrite a head, given with its empty line; None if it cannot be repaired."""
    try:
        return _Head(head).straight()
    except _CannotError:
        return None


class _Head:
    """A head that is repaired line by line."""

    __slots__ = ("_doubtful", "_framing", "_plain", "_reason", "_status", "_version")

    def __init__(self, head: bytes) -> None:
        first, *lines = _LINE_END_RE.split(head)[:-2]
        status = _STATUS_RE.fullmatch(first)
        if status is None or b"\0" in head:
            raise _CannotError
        self._version, self._status = status[1], status[2]
        self._reason = _clean(status[3] or b"")
        self._plain: list[bytes] = []
        self._framing: dict[bytes, list[bytes]] = {_LENGTH: [], _CODING: [], _CONNECTION: []}
        # With mixed line ends a stricter parser finds other fields.
        mixed = 0 < head.count(b"\r\n") < head.count(b"\n")
        self._doubtful = mixed or self._version == b"2.0"
        for line in _unfolded(lines):
            self._take(line)

    def _take(self, line: bytes) -> None:
        told, colon, value = line.partition(b":")
        name = told.rstrip(_BLANKS)
        if not colon or b"\r" in value or TOKEN_RE.fullmatch(name) is None:
            raise _CannotError
        framing = self._framing.get(name.lower())
        if framing is None:
            self._plain.append(b"%b: %b" % (name, _clean(value)))
        elif _CONTROL_RE.search(value):
            raise _CannotError
        else:
            self._doubtful = self._doubtful or name != told
            framing.append(value.strip(_BLANKS))

    def straight(self) -> Straight:
        """The strict head."""
        framed = self._framed()
        connection = self._framing[_CONNECTION]
        ends = self._doubtful and not self._status.startswith(b"1")  # interim answers have no body
        if ends:
            connection = [*filter(_stays, _elements(connection)), b"close"]
        if connection:
            framed.append(b"Connection: " + b", ".join(connection))
        version = b"1.0" if self._version == b"1.0" else b"1.1"
        first = b"HTTP/%b %b %b" % (version, self._status, self._reason)
        return Straight(b"\r\n".join([first, *self._plain, *framed, b"", b""]), ends)

    def _framed(self) -> list[bytes]:
        """The line with the length of the body: RFC 9112, 6.3."""
        lengths, told = self._framing[_LENGTH], self._framing[_CODING]
        codings = [coding.lower() for coding in _elements(told)]
        if codings not in ([], [b"chunked"]):
            raise _CannotError
        if told and (lengths or not codings or self._version == b"1.0"):
            self._doubtful = True  # RFC 9112, 6.1: parsers differ then
        if codings:
            self._version = b"1.1"
            return [b"Transfer-Encoding: chunked"]
        return [b"Content-Length: %d" % self._length(lengths)] if lengths else []

    def _length(self, values: list[bytes]) -> int:
        """RFC 9110, 8.6: a length that is repeated, in lines or a list, is accepted."""
        said = [value.strip(_BLANKS) for value in b",".join(values).split(b",")]
        bare = {value.lstrip(b"0") or b"0" for value in said if value}
        if b"" in said or len(bare) != 1 or not LENGTH_RE.fullmatch(length := bare.pop()):
            raise _CannotError
        if any(value.startswith(b"0") and value != b"0" for value in said):
            self._doubtful = True  # some parsers read leading zeros as octal
        if int(length) > MAX_LENGTH:
            raise _CannotError
        return int(length)


def _unfolded(lines: list[bytes]) -> list[bytes]:
    """Join folded lines: RFC 9112, 5.2."""
    joined: list[bytes] = []
    for line in lines:
        if not line.startswith((b" ", b"\t")):
            joined.append(line)
        elif not joined or _frames(joined[-1]):  # HAProxy and curl differ about those
            raise _CannotError
        else:
            joined[-1] += b" " + line.strip(_BLANKS)
    return joined


def _frames(line: bytes) -> bool:
    name = line.partition(b":")[0].rstrip(_BLANKS).lower()
    return name in (_LENGTH, _CODING, _CONNECTION)


def _elements(values: list[bytes]) -> list[bytes]:
    """Elements of a list (RFC 9110, 5.6.1), without empty ones."""
    stripped = (element.strip(_BLANKS) for element in b",".join(values).split(b","))
    return [element for element in stripped if element]


def _stays(option: bytes) -> bool:
    return option.lower() not in (b"close", b"keep-alive")


def _clean(value: bytes) -> bytes:
    """Replace control bytes by blanks: RFC 9110, 5.5."""
    return _CONTROL_RE.sub(b" ", value).strip(_BLANKS)
