"""The fields of a request: which are refused, dropped, kept or rewritten.

A target must not read a field differently than v6fwd does. CGI, WSGI and others map every
special byte of a name to the same one (`X_Forwarded_For`, `Content.Length`). So a name that
resembles one of framing, of the connection or of forwarding is dropped unless it is spelt
exactly. Framing fields may occur once, and are rewritten.
"""

from __future__ import annotations

import functools
import re

from v6fwd.client_ip.http.address import AddressFields
from v6fwd.client_ip.http.framing import MEMO_SIZE, Told, framing, known_framing
from v6fwd.client_ip.http.syntax import FIELDS_RE, MAX_FIELDS, TOKEN_RE, Refusal, bad_byte
from v6fwd.model.lean import NamedTuple

Pairs = list[tuple[bytes, bytes]]
"""Names and stripped values, in the order received."""


class Fields(NamedTuple):
    """The result for a field block; it depends on the block and the version only."""

    rewritten: bytes  # for the target, from the CRLF of the request line to the empty line
    length: int  # of the body, or CHUNKED
    host: bytes
    upgrade: bool  # the target is asked for another protocol
    closing: bool  # the connection ends with this request
    asked_upgrade: bool  # the client asked for one, let through or not


class Reading(NamedTuple):
    """Fields, and what `crosscheck` needs to know of the block."""

    fields: Fields
    lines: list[bytes]
    """The lines of the block; `pairs_of` splits them."""
    shape: tuple[Told, tuple[bytes, ...], tuple[bytes, ...], bytes]
    """What llhttp's reading depends on: the framing fields, names that parsers could treat
    specially, the lines of fields that llhttp reads although we drop them, and the version."""


# Names are compared in lower case, with every byte but letters and digits mapped to "-".
_FOLDED = bytes(
    byte if char == "\n" else ord(char.lower()) if char.isalnum() and byte < 128 else ord("-")
    for byte, char in enumerate(map(chr, range(256)))
)
_HARMLESS = bytes(byte for byte in range(128) if chr(byte).isalnum()) + b"-\n"
_FORWARDING = (b"x-forwarded", b"forwarded", b"x-real-ip")
_READ = frozenset(b"host content-length transfer-encoding connection upgrade expect te".split(b" "))
# Hop-by-hop fields (RFC 9110, 7.6.1 and 7.8; HTTP2-Settings would offer h2c). Trailers are
# dropped, so `Trailer` is, too.
_DROPPED = frozenset(b"keep-alive proxy-connection http2-settings trailer".split(b" "))
_GUARDED = _READ | _DROPPED
_READ_BY_LLHTTP = b"proxy-connection"  # as Connection, and the only one of _DROPPED
_KEEP, _DROP = b"+", b"-"  # roles; no field that is read has such a name

_NAME_RE = re.compile(rb"([^:]+):[^\r]*\r\n")  # in a block that FIELDS_RE matched


class FieldReader:
    """Parses the field blocks of one connection."""

    __slots__ = ("_keep_underscores", "address")

    def __init__(self, address: AddressFields, *, keep_underscores: bool) -> None:
        self.address = address
        self._keep_underscores = keep_underscores

    def read(self, block: bytes, minor: bytes) -> Reading:
        """Parse the block of an HTTP/1.`minor` request; it ends with its empty line.

        Raises Refusal.
        """
        if FIELDS_RE.fullmatch(block) is None:
            raise Refusal(400, _what_is_wrong(block))
        lines = block.split(b"\r\n")  # and behind them the empty line, and what follows it
        if len(lines) > MAX_FIELDS + 2:
            raise Refusal(431, "too many fields")
        names = tuple(_NAME_RE.findall(block))
        plan, frame = _UNKNOWN if len(block) > MEMO_SIZE else _KNOWN
        roles = plan(names, self._keep_underscores)
        framed = tuple([(role, _value(lines[at])) for at, role in roles.framed])
        found = frame(framed, minor)
        address = self.address
        kept = lines[:-2]
        for at in roles.left_out:
            del kept[at]
        if b" \r\n" in block or b"\t\r\n" in block:  # not every server strips it
            kept = [line.rstrip(b" \t") for line in kept]
        if found.named and not address.trusted:
            kept = _without(found.named, kept)
        told: dict[bytes, list[bytes]] = {}
        for at, role in roles.told:
            told.setdefault(role, []).append(_value(lines[at]))
        added = address.for_request(told, found.host)
        told_llhttp = tuple([lines[at] for at in roles.told_llhttp])
        out = b"\r\n".join([b"", *found.before, *kept, *found.behind, added, b""])
        return Reading(Fields(out, *found[3:]), lines, (framed, roles.odd, told_llhttp, minor))


def pairs_of(lines: list[bytes]) -> Pairs:
    """The fields of a Reading."""
    return [(line.partition(b":")[0], _value(line)) for line in lines[:-2]]


def _value(line: bytes) -> bytes:
    return line.partition(b":")[2].strip(b" \t")


class _Roles(NamedTuple):
    """What is done with the fields of a block, by their index."""

    odd: tuple[bytes, ...]
    """Names that parsers could treat specially."""
    left_out: list[int]
    """Those that are not passed on as they are, the last one first."""
    framed: list[tuple[int, bytes]]
    told: list[tuple[int, bytes]]
    told_llhttp: list[int]
    """Those that llhttp reads and that are dropped here."""


def _plan(names: tuple[bytes, ...], keep_underscores: bool) -> _Roles:
    """Decide which lines are passed on, which are framing, and which tell addresses."""
    joined = b"\n".join(names)
    suspects = sorted(_suspects(names, joined))
    has_odd_bytes = joined.translate(None, _HARMLESS)
    odd = names if has_odd_bytes else tuple(names[at] for at in suspects)
    roles = _Roles(odd, [], [], [], [])
    for at in suspects:
        role = _role(names[at], keep_underscores)
        if role == _KEEP:
            continue
        roles.left_out.append(at)
        if role in _READ:
            roles.framed.append((at, role))
        elif role != _DROP:
            roles.told.append((at, role))
        elif names[at].lower() == _READ_BY_LLHTTP:
            roles.told_llhttp.append(at)
    roles.left_out.reverse()
    return roles


def _suspects(names: tuple[bytes, ...], joined: bytes) -> set[int]:
    """Indexes of names that need a closer look.

    Most names are harmless, so no step is taken for each of them in Python.
    """
    together = joined.translate(_FOLDED)
    folded = together.split(b"\n")
    guarded = _GUARDED.intersection(folded)
    found = {at for name in guarded for at in _indexes(folded, name)}
    if any(name in together for name in _FORWARDING):
        found.update(at for at, name in enumerate(folded) if name.startswith(_FORWARDING))
    if b"_" in joined:
        found.update(at for at, name in enumerate(names) if b"_" in name)
    return found


def _indexes(folded: list[bytes], name: bytes) -> list[int]:
    at = -1
    return [at := folded.index(name, at + 1) for _ in range(folded.count(name))]


# Few combinations of names and framing recur. Large ones are not cached: clients choose them.
_KNOWN = functools.lru_cache(maxsize=1024)(_plan), known_framing
_UNKNOWN = _plan, framing


def _without(named: frozenset[bytes], kept: list[bytes]) -> list[bytes]:
    """Remove fields that Connection names: RFC 9110, 7.6.1.

    Not for a trusted proxy: many pass their client's Connection on, and the client could then
    remove what the proxy added.
    """
    return [line for line in kept if line.partition(b":")[0].lower() not in named]


def _role(name: bytes, keep_underscores: bool) -> bytes:
    """Whether a field is kept, dropped, or read (its name is returned then)."""
    folded = name.translate(_FOLDED)
    if folded in _GUARDED or folded.startswith(_FORWARDING):
        exact = name.lower() == folded and folded not in _DROPPED
        return folded if exact else _DROP
    return _DROP if b"_" in name and not keep_underscores else _KEEP


def _what_is_wrong(block: bytes) -> str:
    """Why a block is malformed. Bad bytes come first: they are reported before it is complete."""
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
