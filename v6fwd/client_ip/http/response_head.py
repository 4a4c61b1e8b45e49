"""Parses the head of a strict response: status, length of the body, end of the connection."""

from __future__ import annotations

import re

from v6fwd.client_ip.http.framing import CHUNKED
from v6fwd.client_ip.http.syntax import (
    FIELDS_RE,
    LENGTH_RE,
    MAX_LENGTH,
    VALUE,
    name_bad_byte,
)

UNKNOWN = -2
"""In place of a length: the body ends with the connection."""

# RFC 9112, 4. Many omit the blank behind the status if no reason follows.
_STATUS_LINE = rb"HTTP/1\.([01]) ([1-9][0-9][0-9])(?: " + VALUE + rb"*)?\r\n"
_STATUS_RE = re.compile(_STATUS_LINE)
PAST_MENDING_RE = re.compile(rb"\0|\r(?!\n|\Z)")  # reported as soon as it arrives
_FRAMING_RE = re.compile(rb"\n((?i:content-length|transfer-encoding|connection)):[ \t]*([^\r]*)")


class BadResponseError(Exception):
    """The response cannot be passed on; the text says why."""


def read_head(data: bytes, at: int, end: int) -> tuple[int, int, bool]:
    """Return status, length of the body, and whether the connection ends behind it.

    Raises BadResponseError unless the head is strict.
    """
    line = _STATUS_RE.match(data, at, end)
    if line is None or FIELDS_RE.fullmatch(data, line.end(), end) is None:
        why = name_bad_byte(PAST_MENDING_RE.search(data, at, end))
        raise BadResponseError(why or "malformed response head")
    status = int(line[2])
    framing = _Framing(data[line.end() - 1 : end], line[1])
    # RFC 9110, 15.2: interim answers have no body. In all others the length must be valid.
    return status, framing.length() if status >= 200 else 0, framing.closing


class _Framing:
    """The fields that frame a response, or end the connection."""

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
                raise BadResponseError("both Content-Length and Transfer-Encoding")
            if self._minor == b"0" or [coding.lower() for coding in self._codings] != [b"chunked"]:
                raise BadResponseError("Transfer-Encoding that cannot be followed")
            return CHUNKED
        if not self._lengths:
            return UNKNOWN
        # RFC 9110, 8.6: the same length said twice is no contradiction
        value = self._lengths[0]
        if len(set(self._lengths)) > 1:
            raise BadResponseError("Content-Length that contradicts itself")
        if LENGTH_RE.fullmatch(value) is None or int(value) > MAX_LENGTH:
            raise BadResponseError("malformed Content-Length")
        return int(value)
