"""The fields of a request: what is refused, what is dropped, what the target gets instead.

A target must not be able to read a field in another way than it was read here. So a name that
a server could take for one that frames a message, belongs to the connection or tells an
address (`X_Forwarded_For`, `Content.Length`: CGI, WSGI and others turn every odd byte of a
name into the same one) is dropped unless it is spelt exactly; fields that frame a message
stand once, and are written anew.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from typing import NamedTuple

from v6fwd.client_ip.http_address import AddressFields, Values
from v6fwd.client_ip.http_syntax import (
    FIELDS_RE,
    LENGTH_RE,
    MAX_FIELDS,
    MAX_LENGTH,
    TOKEN,
    TOKEN_RE,
    Refusal,
    bad_byte,
)
from v6fwd.model import is_ip

CHUNKED = -1
"""In place of a length: the body comes in chunks."""

Pairs = list[tuple[bytes, bytes]]
"""Names and values of fields, without the blanks around, in the order they came."""


class Fields(NamedTuple):
    """What the fields of a request come to; depends on their bytes and the version alone."""

    rewritten: bytes  # for the target, from the CRLF of the request line to the empty line
    length: int  # of the body, or CHUNKED
    host: bytes
    upgrade: bool  # the target is asked for another protocol
    closing: bool  # the connection ends with this request
    asked_upgrade: bool  # the client asked for one, let through or not


# Names are compared with case folded and every byte but a letter or digit taken for "-".
_FOLDED = bytes(
    ord(char.lower()) if (char := chr(byte)).isalnum() and byte < 128 else ord("-")
    for byte in range(256)
)
_FORWARDING = (b"x-forwarded", b"forwarded", b"x-real-ip")
_READ = frozenset(b"host content-length transfer-encoding connection upgrade expect te".split(b" "))
# Meant for this hop alone (RFC 9110, 7.6.1 and 7.8; HTTP2-Settings would offer h2c); trailers
# are dropped, so they are not announced.
_DROPPED = frozenset(b"keep-alive proxy-connection http2-settings trailer".split(b" "))
_GUARDED = _READ | _DROPPED
_KEEP, _DROP = b"+", b"-"  # roles; no field that is read has such a name
_OPTIONS = frozenset((b"close", b"keep-alive", b"upgrade", b"te"))  # and no fields to be left out
_NO_OPTIONS: frozenset[bytes] = frozenset()

_PAIR_RE = re.compile(rb"([^:]+):[ \t]*([^\r]*)\r\n")  # in a block that FIELDS_RE matched

# RFC 3986, 3.2.2, without percent-encoding, which some servers decode and others do not, and
# without the comma, which makes one Host of two.
_HOST_RE = re.compile(
    rb"(?:(?:[0-9A-Za-z._~!$&'()*+;=-]+|\[([0-9A-Fa-f:.]{2,45})\])(?::([0-9]{0,5}))?)?"
)
_LONGEST_HOST = 262  # a DNS name has 253 bytes at most, and a colon and five digits may follow
_PROTOCOL_RE = re.compile(TOKEN + rb"+(?:/" + TOKEN + rb"+)?")
_CODINGS_RE = re.compile(TOKEN + rb"+(?:[ \t]*,[ \t]*" + TOKEN + rb"+)*")


class FieldReader:
    """Reads the field blocks of one connection."""

    __slots__ = ("_address", "_keep_underscores")

    def __init__(self, address: AddressFields, *, keep_underscores: bool) -> None:
        self._address = address
        self._keep_underscores = keep_underscores

    def read(self, block: bytes, minor: bytes) -> tuple[Fields, Pairs]:
        """The verdict on a block, which ends with its empty line, of an HTTP/1.`minor` request.

        And the fields in it, as they were read. Raises Refusal.
        """
        if FIELDS_RE.fullmatch(block) is None:
            raise Refusal(400, _what_is_wrong(block))
        pairs = [(name, value.rstrip(b" \t")) for name, value in _PAIR_RE.findall(block)]
        if len(pairs) > MAX_FIELDS:
            raise Refusal(431, "too many fields")
        kept, read = self._sorted(pairs)
        host = _host(read.get(b"host", ()), minor)
        length = _length(read, minor)
        options = _options(read.get(b"connection", ()))
        protocols = _protocols(read, options, minor, bodiless=not length)
        out = [b"", b"Host: " + host] if b"host" in read else [b""]
        out += self._without_named(kept, options)
        if b"expect" in read:
            out += _expectation(read[b"expect"], minor)
        out += _connection(read, options, protocols)
        if length == CHUNKED:
            out.append(b"Transfer-Encoding: chunked")
        elif b"content-length" in read:
            out.append(b"Content-Length: %d" % length)
        out += (self._address.for_request(read, host), b"")
        fields = Fields(
            b"\r\n".join(out),
            length,
            host,
            bool(protocols),
            b"close" in options or (minor == b"0" and b"keep-alive" not in options),
            b"upgrade" in options and any(read.get(b"upgrade", ())),
        )
        return fields, pairs

    def _sorted(self, pairs: Pairs) -> tuple[list[tuple[bytes, bytes]], Values]:
        """The fields that are passed on as they are, and the values of those read here."""
        kept = []
        read: dict[bytes, list[bytes]] = {}
        for field in pairs:
            name = field[0]
            role_of = _known_role if len(name) <= _USUAL_NAME else _role
            role = role_of(name, self._keep_underscores)
            if role == _KEEP:
                kept.append(field)
            elif role != _DROP:
                read.setdefault(role, []).append(field[1])
        return kept, read

    def _without_named(
        self, kept: list[tuple[bytes, bytes]], options: frozenset[bytes]
    ) -> list[bytes]:
        """The lines of fields that Connection does not name: RFC 9110, 7.6.1.

        All of them if a proxy named some: many pass on what their client put there, who could
        then have taken away what the proxy itself added.
        """
        if options <= _OPTIONS or self._address.trusted:
            return [b"%b: %b" % field for field in kept]
        return [b"%b: %b" % field for field in kept if field[0].lower() not in options]


def _role(name: bytes, keep_underscores: bool) -> bytes:
    """What is done with a field of this name: kept, dropped, or read under the name given."""
    folded = name.translate(_FOLDED)
    if folded in _GUARDED or folded.startswith(_FORWARDING):
        exact = name.lower() == folded and folded not in _DROPPED
        return folded if exact else _DROP
    return _DROP if b"_" in name and not keep_underscores else _KEEP


_USUAL_NAME = 40  # bytes; what is longer is not remembered, so that nobody fills the memory
_known_role = functools.lru_cache(maxsize=1024)(_role)  # the same few names come again and again


def _what_is_wrong(block: bytes) -> str:
    """Why a block is malformed; of its bytes first, as those are told before it is whole."""
    why = bad_byte(block, 0, len(block))
    if why:
        return why
    for line in block.split(b"\r\n")[:-2]:
        name, colon, _ = line.partition(b":")
        if line.startswith((b" ", b"\t")):
            return "folded field"
        if not colon:
            return "field without a colon"
        if name.endswith((b" ", b"\t")):
            return "blank before a colon"
        if TOKEN_RE.fullmatch(name) is None:
            break
    return "malformed field name"


def _host(values: Sequence[bytes], minor: bytes) -> bytes:
    """The Host: RFC 9112, 3.2. An empty one is legal there, and every server reads it alike."""
    if len(values) != 1:
        if values:
            raise Refusal(400, "more than one Host")
        if minor != b"0":
            raise Refusal(400, "no Host")
        return b""
    if len(values[0]) > _LONGEST_HOST or not _is_host(values[0]):
        raise Refusal(400, "malformed Host")
    return values[0]


@functools.lru_cache(maxsize=256)  # an IPv6 address costs 8 us to judge
def _is_host(value: bytes) -> bool:
    match = _HOST_RE.fullmatch(value)
    if match is None or int(match[2] or 0) > 0xFFFF:
        return False
    return match[1] is None or is_ip(match[1].decode("ascii"))


def _length(read: Values, minor: bytes) -> int:
    """How the body is framed: RFC 9112, 6. What servers read in more than one way is refused."""
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
    """The elements of a comma-separated list: RFC 9110, 5.6.1; empty ones are left out."""
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
    """RFC 9110, 10.1.1: there is one expectation, and HTTP/1.0 has none."""
    if [value.lower() for value in values] != [b"100-continue"]:
        raise Refusal(417, "Expect other than 100-continue")
    return [b"Expect: 100-continue"] if minor != b"0" else []


def _protocols(
    read: Values, options: frozenset[bytes], minor: bytes, *, bodiless: bool
) -> list[bytes]:
    """Which protocols the target is offered: RFC 9110, 7.8.

    None with a body: where it ends and the other protocol starts is more than one reading.
    Never h2c: what follows its 101 could carry requests that nobody reads here.
    """
    if b"upgrade" not in read:
        return []
    protocols = _elements(read[b"upgrade"])
    if any(_PROTOCOL_RE.fullmatch(protocol) is None for protocol in protocols):
        raise Refusal(400, "malformed Upgrade")
    if b"upgrade" not in options or minor == b"0" or not bodiless:
        return []
    return [name for name in protocols if not name.lower().startswith((b"h2", b"http"))]


def _connection(read: Values, options: frozenset[bytes], protocols: list[bytes]) -> list[bytes]:
    """Connection written anew, with the fields that it has to name.

    Only options that mean something on the way to the target are in it, so nobody can have a
    field dropped there by naming it. TE can only ask for trailers, which responses keep.
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
