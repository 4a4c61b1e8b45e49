"""Which mode fits what a server accepts. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from v6fwd.model import ClientIP, UdpProxy
from v6fwd.probe.report import Choice, Tried

FIELD = "x-forwarded-for"
"""The form that is a field of an HTTP request."""
EVERY, FIRST = "every-datagram", "first-datagram"
"""The forms of two datagrams from one port: a header on both, or on the first alone."""

_REQUIRED = (
    "without a header nothing is answered: every client of this port has to come through v6fwd,"
    " IPv4 clients too"
)
_OPTIONAL = "without a header it answers as well: those clients are seen by their own addresses"
_SPLIT = "a header in two segments is not accepted: v6fwd sends it in one, other senders may not"
_CRC = "a wrong CRC32C is accepted: this server does not check it"
_NOT_USED = (
    "the header is accepted, but the answer names the sender of the header as the client: tell the"
    " server to trust the header's address"
)
_TRANSPARENT = "no header is understood, and transparent needs none: the socket has the client"
_FIELD_UNKNOWN = (
    "x-forwarded-for works without a header, if the server reads that field; its answers do not"
    " tell: ask with --path for a page that shows its client's address"
)
_FIELD_UNREAD = "X-Forwarded-For is not read: the page shows the address that the request came from"


def choose(tried: Mapping[str, Tried]) -> Choice:
    """The mode for what was tried over TCP."""
    header = _header(tried)
    if header is not None:
        return _with_header(tried, header)
    if not _accepts(tried, "none"):
        return Choice(None, _no_answer(tried), needs_attention=True)
    return _without_header(tried)


def choose_udp(tried: Mapping[str, Tried]) -> Choice:
    """The mode for what was tried over UDP, where v1 does not exist."""
    notes = _notes(tried)
    if _accepts(tried, EVERY):
        return Choice(ClientIP.PROXY_V2, "reads a header in every datagram", notes=notes)
    if _accepts(tried, FIRST) and not _accepts(tried, "none"):
        why = "reads a header in the first datagram of a session alone"
        return Choice(ClientIP.PROXY_V2, why, UdpProxy.FIRST, notes)
    if _accepts(tried, "none"):
        return Choice(ClientIP.TRANSPARENT, _TRANSPARENT)
    return Choice(None, _no_answer(tried), needs_attention=True)


def _accepts(tried: Mapping[str, Tried], name: str) -> bool:
    return name in tried and tried[name].is_accepted


def _header(tried: Mapping[str, Tried]) -> ClientIP | None:
    if _accepts(tried, "v2"):
        return ClientIP.PROXY_V2
    return ClientIP.PROXY_V1 if _accepts(tried, "v1") else None


def _with_header(tried: Mapping[str, Tried], mode: ClientIP) -> Choice:
    version = mode.removeprefix("proxy-")
    is_unused = tried[version].client_seen is False
    notes = _notes(tried) + ((_NOT_USED,) if is_unused else ())
    return Choice(
        mode, f"reads the PROXY header, {version}", notes=notes, needs_attention=is_unused
    )


def _without_header(tried: Mapping[str, Tried]) -> Choice:
    field = tried.get(FIELD)
    if field is None:
        return Choice(ClientIP.TRANSPARENT, _TRANSPARENT)
    if field.client_seen:
        return Choice(ClientIP.X_FORWARDED_FOR, "the answer shows what X-Forwarded-For says")
    note = _FIELD_UNKNOWN if field.client_seen is None else _FIELD_UNREAD
    return Choice(ClientIP.TRANSPARENT, _TRANSPARENT, notes=(note,))


def _notes(tried: Mapping[str, Tried]) -> tuple[str, ...]:
    notes = [_OPTIONAL if _accepts(tried, "none") else _REQUIRED]
    if "v2-split" in tried and not _accepts(tried, "v2-split"):
        notes.append(_SPLIT)
    if _accepts(tried, "v2-wrong-crc"):
        notes.append(_CRC)
    return tuple(notes)


def _no_answer(tried: Mapping[str, Tried]) -> str:
    """Nothing was accepted: what came instead."""
    answers = sorted({each.verdict.answer for each in tried.values()})
    return f"nothing that was sent was accepted ({', '.join(answers)})"
