"""What a request tells its target about the client: the fields that are added to every head.

`X-Forwarded-*` and `X-Real-IP` as servers have read them for twenty years, or `Forwarded`
(RFC 7239). A client that is trusted is itself a proxy: the list that it sent is kept and its
own address appended, so that the last entry is always the one that was seen here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from v6fwd.client_ip.http_syntax import TOKEN, Refusal
from v6fwd.model import Address, is_ip

Values = Mapping[bytes, list[bytes]]
"""The values of the fields of a block by their names in lower case, in the order they came."""

KEPT = {
    False: (b"x-forwarded-for", b"x-forwarded-proto", b"x-forwarded-port", b"x-real-ip"),
    True: (b"forwarded",),
}
"""What is read from a trusted client, by whether the mode is `forwarded`; what it sent for the
other mode is dropped: a second list, which ends before this hop, would contradict the first."""

# A list in which no entry can swallow the one that is appended, whatever reads it: addresses
# with or without brackets and ports, names, "unknown".
_XFF_RE = re.compile(rb"[0-9A-Za-z.:_%\[\]-]*+(?:[ \t]*+,[ \t]*+[0-9A-Za-z.:_%\[\]-]*+)*+")
_PLAIN_RE = re.compile(rb"[\t -~]*+")
_PAIR = TOKEN + rb"++=(?:" + TOKEN + rb'++|"(?:[\t !#-\[\]-~]|\\[\t -~])*+")'
_ELEMENT = rb"(?:" + _PAIR + rb")?+(?:[ \t]*+;[ \t]*+(?:" + _PAIR + rb")?+)*+"
# RFC 7239, 4, with blanks around semicolons, which some senders put there. A quote that is
# left open would swallow what is appended.
_FORWARDED_RE = re.compile(_ELEMENT + rb"(?:[ \t]*+,[ \t]*+" + _ELEMENT + rb")*+")
_HOST_TOKEN_RE = re.compile(TOKEN + rb"++")


class AddressFields:
    """The fields for one client connection, made once for it."""

    __slots__ = ("_element", "_host", "_port", "plain", "trusted")

    def __init__(
        self, client: Address, destination: Address, *, forwarded: bool, trusted: bool
    ) -> None:
        self._host = client.host.encode("ascii")
        self._port = b"%d" % destination.port
        self._element = b'for="%b";proto=http' % str(client).encode("ascii")
        self.trusted = KEPT[forwarded] if trusted else ()
        """The fields, in lower case, that are read from this client."""
        self.plain = b"" if forwarded else self._x_fields({})
        """What is added where it is always the same; b"" where it depends on the request."""

    def for_request(self, sent: Values, host: bytes) -> bytes:
        """The lines for one request. `sent` is what a trusted client told, `host` the Host.

        Raises Refusal where the list that it told cannot be appended to.
        """
        if self.plain:
            return self._x_fields(sent) if sent else self.plain
        return self._forwarded(sent, host)

    def _x_fields(self, sent: Values) -> bytes:
        told = _joined(sent, b"x-forwarded-for", _XFF_RE)
        before = told + b", " if told else b""
        lines = [b"X-Forwarded-For: %b%b\r\n" % (before, self._host)]
        for name, title, default in (
            (b"x-forwarded-proto", b"X-Forwarded-Proto", b"http"),
            (b"x-forwarded-port", b"X-Forwarded-Port", self._port),
            (b"x-real-ip", b"X-Real-IP", self._real_ip(told)),
        ):
            values = [_plain(value) for value in sent.get(name, (default,))]
            lines += [b"%b: %b\r\n" % (title, value) for value in values]
        return b"".join(lines)

    def _real_ip(self, told: bytes) -> bytes:
        """Whom the proxy in front saw: the last of its list, or else itself."""
        last = told.rpartition(b",")[2].strip(b" \t").decode("ascii")
        return last.encode("ascii") if is_ip(last) and "%" not in last else self._host

    def _forwarded(self, sent: Values, host: bytes) -> bytes:
        told = _joined(sent, b"forwarded", _FORWARDED_RE)
        before = told + b", " if told else b""
        # RFC 7239, 4: a colon or bracket needs quotes; Host has nothing that quotes cannot hold
        if host and _HOST_TOKEN_RE.fullmatch(host) is None:
            host = b'"%b"' % host
        after = b";host=" + host if host else b""
        return b"Forwarded: %b%b%b\r\n" % (before, self._element, after)


def _joined(sent: Values, name: bytes, list_re: re.Pattern[bytes]) -> bytes:
    """All lines of a list in their order, as RFC 9110, 5.3 joins them."""
    told = b", ".join(value for value in sent.get(name, ()) if value)
    if list_re.fullmatch(told) is None:
        raise Refusal(400, "malformed list of forwarded addresses")
    return told


def _plain(value: bytes) -> bytes:
    if _PLAIN_RE.fullmatch(value) is None:
        raise Refusal(400, "malformed field of a forwarding proxy")
    return value
