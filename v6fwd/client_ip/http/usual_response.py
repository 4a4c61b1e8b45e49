"""Parses a usual response head in one step: a status with a body, one Content-Length, and nothing
else that frames the message or ends the connection.

The step is the native scanner's (_heads.c) where it was built, else one match of a pattern; both
take and refuse the same.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from v6fwd.client_ip.http.syntax import TOKEN, VALUE

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


def response_parts_by_pattern(data: bytes) -> tuple[int, int] | None:
    """Return where the head that `data` begins with ends, and the length of its body.

    None if it is not usual.
    """
    match = _USUAL_RE.match(data)
    return (match.end(), int(match[1])) if match is not None else None


def scanner() -> Callable[[bytes], tuple[int, int] | None]:
    """The fastest `response_parts` that there is here."""
    try:
        from v6fwd.client_ip.http._scan import response_parts
    except ImportError:  # it has not been built
        return response_parts_by_pattern
    return response_parts


response_parts = scanner()
