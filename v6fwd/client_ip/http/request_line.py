"""The request line (RFC 9112, 3), and detection of other protocols at the start of a connection.

The request target passes unchanged: servers interpret paths differently, so nothing is decoded,
merged or resolved here.
"""

from __future__ import annotations

import re

from v6fwd.client_ip.http.syntax import TOKEN, Refusal

H2_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"  # RFC 9113, 3.4
TLS_HANDSHAKE = b"\x16"  # RFC 8446, 5.1: type of the first record; no method starts with it

# RFC 3986: no blank, control byte or byte above 126; "#" starts a fragment, which is not sent.
TARGET = rb'[!"$-~]'
LINE_RE = re.compile(rb"(" + TOKEN + rb"+) (" + TARGET + rb"+) HTTP/1\.([01])")

USUAL_LINE = rb"(?:(HEAD)|(?!CONNECT )[A-Z-]{1,32}) /" + TARGET + rb"{0,7000} HTTP/1\.1"
"""A line that is valid with any Host: origin-form, HTTP/1.1, not CONNECT. Group 1 is set for
HEAD. With 7,000 bytes, line and a block of USUAL_BLOCK stay below MAX_HEAD."""
USUAL_RE = re.compile(USUAL_LINE)

_VERSION_RE = re.compile(rb"(" + TOKEN + rb"+) (" + TARGET + rb"+) HTTP/[0-9]\.[0-9]")
_AUTHORITY_RE = re.compile(rb"[0-9A-Za-z._~!$&'()*+;=:\[\]-]+")
_ABSOLUTE_RE = re.compile(
    rb"(?i:http)://(" + _AUTHORITY_RE.pattern + rb")(?:[/?]" + TARGET + rb"*)?"
)
_DEFAULT_PORT_RE = re.compile(rb":(?:80)?\Z")


def check_line(line: re.Match[bytes] | None, raw: bytes, *, pass_opaque: bool) -> None:
    """Raise Refusal if the request line `raw` is invalid; `line` is LINE_RE's match of it.

    `check_authority` checks what depends on Host.
    """
    if line is None:
        if _VERSION_RE.fullmatch(raw) is not None:
            raise Refusal(505, "version other than HTTP/1.0 and HTTP/1.1")
        raise Refusal(400, "malformed request line")
    method, target = line[1], line[2]
    if method == b"CONNECT":
        if not pass_opaque:
            raise Refusal(405, "CONNECT is not served here")
        if _AUTHORITY_RE.fullmatch(target) is None or line[3] == b"0":
            raise Refusal(400, "malformed request target")
    elif method.upper() in (b"CONNECT", b"HEAD") and method != b"HEAD":
        # A server that ignores case would frame its answer differently.
        raise Refusal(400, "method in lower case")
    elif not target.startswith(b"/") and target != b"*":
        if _ABSOLUTE_RE.fullmatch(target) is None:
            raise Refusal(400, "malformed request target")
    elif target == b"*" and method != b"OPTIONS":
        raise Refusal(400, "malformed request target")


def check_authority(method: bytes, target: bytes, host: bytes) -> None:
    """Raise Refusal if the authority in a request target differs from Host.

    RFC 9112, 3.2.2: one of them has to be ignored, and servers differ about which.
    """
    if method == b"CONNECT":
        # RFC 9112, 3.2.3: the port is mandatory
        if not re.search(rb":[0-9]+\Z", target) or target.lower() != host.lower():
            raise Refusal(400, "request target and Host differ")
        return
    absolute = _ABSOLUTE_RE.fullmatch(target)
    if absolute is not None and (not host or _canonical(absolute[1]) != _canonical(host)):
        raise Refusal(400, "request target and Host differ")


def _canonical(authority: bytes) -> bytes:
    """Normalise an authority: RFC 9110, 4.2.3."""
    return _DEFAULT_PORT_RE.sub(b"", authority.lower())


def begins_opaque(data: bytes) -> bool:
    """Whether a connection starts with TLS, or with (a part of) the HTTP/2 preface."""
    return data.startswith((TLS_HANDSHAKE, H2_PREFACE)) or H2_PREFACE.startswith(data)
