"""The fields that tell the target who the client is; they are added to every request.

Either `X-Forwarded-*` with `X-Real-IP`, or `Forwarded` (RFC 7239). A trusted client is itself a
proxy: its list is kept and its own address appended, so the last entry is always the peer of
this connection. Fields of the other mode are dropped: their list would end one hop earlier and
contradict.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from v6fwd.client_ip.http.syntax import TOKEN, TOKEN_RE, Refusal
from v6fwd.model import Address, is_ip

Values = Mapping[bytes, list[bytes]]
"""Values by lower-case field name, in the order received."""

_X_NAMES = (b"x-forwarded-", b"x-real-ip")
_X_FIELDS = (
    b"X-Forwarded-For: %b\r\nX-Forwarded-Proto: %b\r\nX-Forwarded-Port: %b\r\nX-Real-IP: %b\r\n"
)

_PLAIN_RE = re.compile(rb"[\t -~]*")

# Lists that cannot absorb the entry appended to them, whatever parser reads them. X-Forwarded-For:
# addresses with or without brackets and ports, names, "unknown". Forwarded: RFC 7239, 4, plus
# blanks around semicolons, which some senders write, and no unterminated quote.
_XFF_RE = re.compile(rb"[0-9A-Za-z.:_%\[\], \t-]*")
_PAIR = TOKEN + rb"+=(?:" + TOKEN + rb'+|"(?:[\t !#-\[\]-~]|\\[\t -~])*")'
_FORWARDED_RE = re.compile(
    rb"[,; \t]*(?:" + _PAIR + rb"(?:[ \t]*[,;][,; \t]*" + _PAIR + rb")*[,; \t]*)?"
)


class AddressFields:
    """Makes the fields of one client connection."""

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
        """The lines for one request. `read` are the client's own fields, `host` is its Host.

        Raises Refusal if the list of a trusted client is malformed.
        """
        if self._forwarded:
            return self._forwarded_field(read.get(b"forwarded", ()), host)
        if not self.trusted:
            return self._plain
        told = {name: read[name] for name in read if name.startswith(_X_NAMES)}
        return self._x_fields(told) if told else self._plain

    def _x_fields(self, told: dict[bytes, list[bytes]]) -> bytes:
        """The fields of a proxy with the address appended; missing ones are added."""
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
        """The client that the proxy saw: the last of its list, or else the proxy itself."""
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
    """Join the lines of a list (RFC 9110, 5.3), with a comma at the end."""
    joined = b", ".join(value for value in told if value)
    if list_re.fullmatch(joined) is None:
        raise Refusal(400, "malformed list of forwarded addresses")
    return joined + b", " if joined else b""


def _plain(value: bytes) -> bytes:
    if _PLAIN_RE.fullmatch(value) is None:
        raise Refusal(400, "malformed field of a forwarding proxy")
    return value
