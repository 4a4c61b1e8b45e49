"""What a request tells its target about the client: the fields that are added to every head.

`X-Forwarded-*` and `X-Real-IP` as servers have read them for twenty years, or `Forwarded`
(RFC 7239). A client that is trusted is itself a proxy: the list that it sent is kept and its
own address appended, so that the last entry is always the one that was seen here. What it sent
for the other mode is dropped: a second list, which ends before this hop, would contradict.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from v6fwd.client_ip.http.syntax import TOKEN, TOKEN_RE, Refusal
from v6fwd.model import Address, is_ip

Values = Mapping[bytes, list[bytes]]
"""The values of the fields of a block by their names in lower case, in the order they came."""

_X_NAMES = (b"x-forwarded-", b"x-real-ip")
_X_FIELDS = (
    b"X-Forwarded-For: %b\r\nX-Forwarded-Proto: %b\r\nX-Forwarded-Port: %b\r\nX-Real-IP: %b\r\n"
)

_PLAIN_RE = re.compile(rb"[\t -~]*")

# Lists in which no entry can swallow the one that is appended, whatever reads them: addresses
# with or without brackets and ports, names, "unknown"; and RFC 7239, 4, with blanks around
# semicolons, which some senders put there, but without a quote that is left open.
_XFF_RE = re.compile(rb"[0-9A-Za-z.:_%\[\], \t-]*")
_PAIR = TOKEN + rb"+=(?:" + TOKEN + rb'+|"(?:[\t !#-\[\]-~]|\\[\t -~])*")'
_FORWARDED_RE = re.compile(
    rb"[,; \t]*(?:" + _PAIR + rb"(?:[ \t]*[,;][,; \t]*" + _PAIR + rb")*[,; \t]*)?"
)


class AddressFields:
    """The fields for one client connection, made once for it."""

    __slots__ = ("_element", "_forwarded", "_host", "_plain", "_port", "_scheme", "trusted")

    def __init__(
        self,
        client: Address,
        destination: Address,
        *,
        forwarded: bool,
        trusted: bool,
        secure: bool = False,
    ) -> None:
        host = client.host.encode("ascii")
        self._host = host
        self._port = b"%d" % destination.port
        self._scheme = b"https" if secure else b"http"
        self._element = b'for="%b";proto=%b' % (str(client).encode("ascii"), self._scheme)
        self._forwarded = forwarded
        self.trusted = trusted
        self._plain = b"" if forwarded else _X_FIELDS % (host, self._scheme, self._port, host)

    def for_request(self, read: Values, host: bytes) -> bytes:
        """The lines for one request. `read` is what the client sent, `host` its Host.

        Raises Refusal where the list that a trusted client told cannot be appended to.
        """
        if self._forwarded:
            return self._forwarded_field(read.get(b"forwarded", ()), host)
        if not self.trusted:
            return self._plain
        told = {name: read[name] for name in read if name.startswith(_X_NAMES)}
        return self._x_fields(told) if told else self._plain

    def _x_fields(self, told: dict[bytes, list[bytes]]) -> bytes:
        """All that a proxy told, with the address appended, and what it did not tell added."""
        before = _joined(told.pop(b"x-forwarded-for", ()), _XFF_RE)
        told.setdefault(b"x-forwarded-proto", [self._scheme])
        told.setdefault(b"x-forwarded-port", [self._port])
        real_ip = told.pop(b"x-real-ip", [self._real_ip(before)])
        if len(real_ip) > 1:
            raise Refusal(400, "more than one X-Real-IP")
        lines = [b"X-Forwarded-For: %b%b\r\n" % (before, self._host)]
        for name, values in told.items():
            lines += [b"%b: %b\r\n" % (name.title(), _plain(value)) for value in values]
        lines.append(b"X-Real-IP: %b\r\n" % _plain(real_ip[0]))
        return b"".join(lines)

    def _real_ip(self, before: bytes) -> bytes:
        """Whom the proxy in front saw: the last of its list, or else itself."""
        last = before.removesuffix(b", ").rpartition(b",")[2].strip(b" \t").decode("ascii")
        return last.encode("ascii") if is_ip(last) and "%" not in last else self._host

    def _forwarded_field(self, told: Sequence[bytes], host: bytes) -> bytes:
        before = _joined(told if self.trusted else (), _FORWARDED_RE)
        # RFC 7239, 4: a colon or bracket needs quotes; Host has nothing that quotes cannot hold
        if host and TOKEN_RE.fullmatch(host) is None:
            host = b'"%b"' % host
        after = b";host=" + host if host else b""
        return b"Forwarded: %b%b%b\r\n" % (before, self._element, after)


def _joined(told: Sequence[bytes], list_re: re.Pattern[bytes]) -> bytes:
    """All lines of a list in their order, as RFC 9110, 5.3 joins them, and the comma behind."""
    joined = b", ".join(value for value in told if value)
    if list_re.fullmatch(joined) is None:
        raise Refusal(400, "malformed list of forwarded addresses")
    return joined + b", " if joined else b""


def _plain(value: bytes) -> bytes:
    if _PLAIN_RE.fullmatch(value) is None:
        raise Refusal(400, "malformed field of a forwarding proxy")
    return value
