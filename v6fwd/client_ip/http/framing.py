"""The fields of a request that frame it or belong to its connection: checked and rewritten.

The result depends on these fields and the version only, and few combinations recur, so results
are cached (`known_framing`).
"""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence

from v6fwd.client_ip.http.address import Values
from v6fwd.client_ip.http.syntax import LENGTH_RE, MAX_LENGTH, TOKEN, TOKEN_RE, Refusal
from v6fwd.model import is_ip
from v6fwd.model.lean import NamedTuple

CHUNKED = -1
"""In place of a length: the body is chunked."""
MEMO_SIZE = 2048
"""Largest field block whose framing is cached, in bytes; 1024 entries are 2 MiB at most."""

_OPTIONS = frozenset((b"close", b"keep-alive", b"upgrade", b"te"))  # options that name no field
_NO_OPTIONS: frozenset[bytes] = frozenset()

# RFC 6874, 2; many clients write "%" for "%25". Interface names as on Linux.
_ZONE = rb"%[0-9A-Za-z._~-]{1,17}"
# RFC 3986, 3.2.2, without percent-encoding, which not all servers decode, and without the comma,
# which joins two Hosts.
_HOST_RE = re.compile(
    rb"(?:(?:[0-9A-Za-z._~!$&'()*+;=-]+|\[([0-9A-Fa-f:.]{2,45})(" + _ZONE + rb")?\])"
    rb"(?::([0-9]{0,5}))?)?"
)
_LONGEST_HOST = 262  # a DNS name has 253 bytes at most, and a colon and five digits may follow
_PROTOCOL_RE = re.compile(TOKEN + rb"+(?:/" + TOKEN + rb"+)?")
_CODINGS_RE = re.compile(TOKEN + rb"+(?:[ \t]*,[ \t]*" + TOKEN + rb"+)*")


Told = tuple[tuple[bytes, bytes], ...]
"""Fields with lower-case names, in the order received."""


class Framing(NamedTuple):
    """The result for the framing fields of a request."""

    before: list[bytes]  # lines that stand before all others
    behind: list[bytes]  # and behind them
    named: frozenset[bytes]  # lower-case names of hop-by-hop fields that Connection lists
    length: int  # of the body, or CHUNKED
    host: bytes
    upgrade: bool  # the target is asked for another protocol
    closing: bool  # the connection ends with this request
    asked_upgrade: bool  # the client asked for one, let through or not


def framing(told: Told, minor: bytes) -> Framing:
    """Check the framing fields of an HTTP/1.`minor` request. Raises Refusal."""
    read: dict[bytes, list[bytes]] = {}
    for name, value in told:
        read.setdefault(name, []).append(value)
    host = _host(read.get(b"host", ()), minor)
    length = _length(read, minor)
    options = _options(read.get(b"connection", ()))
    protocols = _protocols(read, options, minor, length)
    behind = _expectation(read[b"expect"], minor) if b"expect" in read else []
    behind += _connection(read, options, protocols)
    if length == CHUNKED:
        behind.append(b"Transfer-Encoding: chunked")
    elif b"content-length" in read:
        behind.append(b"Content-Length: %d" % length)
    return Framing(
        [b"Host: " + host] if b"host" in read else [],
        behind,
        options - _OPTIONS,
        length,
        host,
        bool(protocols),
        b"close" in options or (minor == b"0" and b"keep-alive" not in options),
        b"upgrade" in options and any(read.get(b"upgrade", ())),
    )


known_framing = functools.lru_cache(maxsize=1024)(framing)
"""`framing` with a cache; only for blocks up to MEMO_SIZE."""


def _host(values: Sequence[bytes], minor: bytes) -> bytes:
    """The Host (RFC 9112, 3.2). An empty one is legal, and all servers read it alike."""
    if len(values) != 1:
        if values:
            raise Refusal(400, "more than one Host")
        if minor != b"0":
            raise Refusal(400, "no Host")
        return b""
    match = _HOST_RE.fullmatch(values[0])
    if match is None or len(values[0]) > _LONGEST_HOST or not _is_host(match):
        raise Refusal(400, "malformed Host")
    if match[2] is None:
        return values[0]
    # RFC 6874, 4: a zone has a meaning on its own host only
    return values[0][: match.start(2)] + values[0][match.end(2) :]


def _is_host(match: re.Match[bytes]) -> bool:
    if int(match[3] or 0) > 0xFFFF:
        return False
    return match[1] is None or is_ip(match[1].decode("ascii"))


def _length(read: Values, minor: bytes) -> int:
    """How the body is framed (RFC 9112, 6). Refuses what servers disagree about."""
    lengths = read.get(b"content-length")
    codings = read.get(b"transfer-encoding")
    if codings is None:
        return 0 if lengths is None else _content_length(lengths)
    if lengths is not None:
        raise Refusal(400, "both Content-Length and Transfer-Encoding")
    if minor == b"0":
        raise Refusal(400, "Transfer-Encoding in HTTP/1.0")
    coding = codings[0].lower()
    if len(codings) == 1 and coding == b"chunked":
        return CHUNKED
    known = b"chunked" in coding or len(codings) > 1
    if known or _CODINGS_RE.fullmatch(coding) is None:
        raise Refusal(400, "malformed Transfer-Encoding")
    raise Refusal(501, "Transfer-Encoding other than chunked")


def _content_length(values: Sequence[bytes]) -> int:
    if len(values) > 1:
        raise Refusal(400, "more than one Content-Length")
    if LENGTH_RE.fullmatch(values[0]) is None or int(values[0]) > MAX_LENGTH:
        raise Refusal(400, "malformed Content-Length")
    return int(values[0])


def _elements(values: Sequence[bytes]) -> list[bytes]:
    """Elements of a comma-separated list (RFC 9110, 5.6.1), without empty ones."""
    stripped = [part.strip(b" \t") for part in b",".join(values).split(b",")]
    return [part for part in stripped if part]


def _options(values: Sequence[bytes]) -> frozenset[bytes]:
    """The connection options: RFC 9110, 7.6.1."""
    if not values:
        return _NO_OPTIONS
    options = _elements(values)
    if any(TOKEN_RE.fullmatch(option) is None for option in options):
        raise Refusal(400, "malformed Connection")
    return frozenset(option.lower() for option in options)


def _expectation(values: Sequence[bytes], minor: bytes) -> list[bytes]:
    """RFC 9110, 10.1.1: one expectation is defined, and HTTP/1.0 has none."""
    if [value.lower() for value in values] != [b"100-continue"]:
        raise Refusal(417, "Expect other than 100-continue")
    return [b"Expect: 100-continue"] if minor != b"0" else []


_HIDING = (b"h2", b"http", b"tls")
"""Protocols whose requests could not be read here: h2c, HTTP/2.0, TLS/1.2 (RFC 2817)."""


def _protocols(read: Values, options: frozenset[bytes], minor: bytes, length: int) -> list[bytes]:
    """Which protocols the target is offered: RFC 9110, 7.8.

    With a body only if it has a Content-Length (`docker exec` sends one): the other protocol
    starts behind it. Servers disagree about where it starts behind a chunked body.
    """
    if b"upgrade" not in read:
        return []
    protocols = _elements(read[b"upgrade"])
    if any(_PROTOCOL_RE.fullmatch(protocol) is None for protocol in protocols):
        raise Refusal(400, "malformed Upgrade")
    if b"upgrade" not in options or minor == b"0" or length == CHUNKED:
        return []
    return [name for name in protocols if not name.lower().startswith(_HIDING)]


def _connection(read: Values, options: frozenset[bytes], protocols: list[bytes]) -> list[bytes]:
    """Rewrite Connection and the fields that it has to name.

    Only options that apply to the target's connection remain, so a client cannot have a field
    dropped there by naming it. TE can only ask for trailers, which answers keep.
    """
    if not options:
        return []
    lines = []
    said = [b"close"] if b"close" in options else []
    if not said and b"keep-alive" in options:
        said.append(b"keep-alive")
    if protocols:
        said.append(b"upgrade")
        lines.append(b"Upgrade: " + b", ".join(protocols))
    trailers = [value.lower() for value in read.get(b"te", ())] == [b"trailers"]
    if trailers and b"te" in options:
        said.append(b"TE")
        lines.append(b"TE: trailers")
    if said:
        lines.append(b"Connection: " + b", ".join(said))
    return lines
