"""The first bytes of the protocols that a probe can speak: nothing that a client would not send.

Each is a question that changes nothing: HTTP GET, SMTP EHLO, IMAP and POP3 CAPABILITY, FTP FEAT,
SSH's version line, a TLS ClientHello, PostgreSQL's SSLRequest, DNS for the root's servers without
recursion, so that a resolver asks nobody else, a STUN Binding Request, an XMPP stream without a
login, IRC's PING before a registration, a MySQL login of a user that nobody has.
"""

from __future__ import annotations

import html
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from v6fwd.model import Protocol, bracketed

DNS_ID = b"v6"
MARK = "v6fwd-probe-mark"
"""A field's value that nobody reads: a page that shows it shows every field."""


@dataclass(frozen=True, slots=True)
class Opening:
    """What to send, and what to say at the end.

    `server_first`: the server greets, and `send` goes when its greeting has come.
    """

    name: str
    send: bytes
    shown: str
    server_first: bool = False
    bye: bytes = b""
    forwarded: Callable[[str], bytes] | None = field(default=None, compare=False)
    """For HTTP: the same with X-Forwarded-For naming an address."""


HINTS: Mapping[int, str] = {
    21: "ftp", 22: "ssh", 25: "smtp", 53: "dns", 80: "http", 110: "pop3", 143: "imap",
    443: "tls", 465: "tls", 587: "smtp", 853: "tls", 990: "tls", 993: "tls", 995: "tls",
    2525: "smtp", 3306: "mysql", 3478: "stun", 5222: "xmpp", 5223: "tls", 5349: "tls",
    5432: "postgresql", 6667: "irc", 6697: "tls", 8443: "tls",
}  # fmt: skip
"""What most often speaks on a port: tried first."""
GUESSES = ("http", "tls", "dns")
"""Where the client speaks first and no port tells: tried in this order."""
CLIENT_FIRST = frozenset(("http", "tls", "dns", "postgresql", "stun", "xmpp", "irc"))
"""Where the server says nothing before the client has."""
NAMES = ("http", "tls", "dns", "postgresql", "smtp", "imap", "pop3", "ftp", "ssh", "mysql", "irc",
         "xmpp", "stun")  # fmt: skip
STUN_COOKIE = b"\x21\x12\xa4\x42"
"""RFC 8489, 5: in all messages."""


def opening(name: str, host: str, port: int, path: str = "/") -> Opening:
    """The opening of a protocol; `host` is what HTTP and TLS ask for."""
    if name == "http":
        return _http(host, port, path)
    if name == "tls":
        return Opening("tls", _client_hello(host), f"TLS ClientHello for {host}")
    if name == "xmpp":
        domain = "v6fwd.invalid" if ":" in host or host[-1:].isdigit() else host
        return Opening("xmpp", _stream(domain), f"XMPP stream to {domain}")
    return _FIXED[name]


def dns_query(protocol: Protocol) -> Opening:
    """DNS over UDP or TCP."""
    return DNS_UDP if protocol is Protocol.UDP else _FIXED["dns"]


def guesses(port: int) -> list[str]:
    """Protocols in which the client speaks first, the likeliest first."""
    hint = HINTS.get(port)
    first = [hint] if hint in CLIENT_FIRST else []
    return first + [name for name in GUESSES if name not in first]


def greeting_of(data: bytes, port: int) -> str | None:
    """The protocol whose server greets like this; None where nobody known does."""
    if data.startswith(b"220"):
        return "ftp" if port == 21 or b"FTP" in data.upper() else "smtp"
    if data[2:5] in (b"\0\0\n", b"\0\0\xff"):  # packet 0: protocol 10, or an error
        return "mysql"
    for start, name in _GREETINGS.items():
        if data.startswith(start):
            return name
    return "irc" if b" NOTICE " in data.split(b"\n", 1)[0] else None


_GREETINGS = {b"* OK": "imap", b"* PREAUTH": "imap", b"+OK": "pop3", b"SSH-": "ssh"}


def _http(host: str, port: int, path: str) -> Opening:
    named = bracketed(host) if port == 80 else f"{bracketed(host)}:{port}"

    def request(*fields: str) -> bytes:
        lines = [f"GET {path} HTTP/1.1", f"Host: {named}", *fields, "User-Agent: v6fwd-probe"]
        return "\r\n".join([*lines, "Connection: close", "", ""]).encode("latin-1", "replace")

    def forwarded(client: str) -> bytes:
        return request(f"X-Forwarded-For: {client}", f"X-V6fwd-Probe: {MARK}")

    return Opening("http", request(), f"GET {path} HTTP/1.1, Host: {named}", forwarded=forwarded)


def _client_hello(host: str) -> bytes:
    """What OpenSSL would send first; nothing of the answer is looked at but its kind."""
    import ssl  # 2 MB that only TLS needs

    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    outgoing = ssl.MemoryBIO()
    connection = context.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname=host)
    try:
        connection.do_handshake()
    except ssl.SSLWantReadError:
        pass
    return outgoing.read()


def _stream(host: str) -> bytes:
    """The beginning of a client's stream (RFC 6120, 4.7)."""
    return (
        f"<?xml version='1.0'?><stream:stream to='{html.escape(host)}' version='1.0'"
        " xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams'>"
    ).encode()


def _login() -> bytes:
    """MySQL's HandshakeResponse41 as packet 1: flags, size, charset, zeros, user, no password."""
    flags = 0x8201  # PROTOCOL_41, SECURE_CONNECTION, LONG_PASSWORD
    payload = struct.pack("<IIB23x", flags, 1 << 24, 33) + b"v6fwd-probe\0\0"
    return len(payload).to_bytes(3, "little") + b"\1" + payload


# header: id, flags 0 (a query, no recursion), one question; question: the root, NS, IN
_QUERY = DNS_ID + b"\0\0\0\1\0\0\0\0\0\0" + b"\0\0\2\0\1"
_QUERY_SHOWN = "DNS query: the root's NS, no recursion"
DNS_UDP = Opening("dns", _QUERY, _QUERY_SHOWN)
_GREET = "{} when the greeting has come"

_FIXED = {
    each.name: each
    for each in (
        Opening("dns", len(_QUERY).to_bytes(2, "big") + _QUERY, _QUERY_SHOWN),
        # length 8, code 80877103: "may I speak TLS?"
        Opening("postgresql", b"\0\0\0\x08\x04\xd2\x16\x2f", "SSLRequest"),
        Opening("smtp", b"EHLO v6fwd.invalid\r\n", _GREET.format("EHLO"), True, b"QUIT\r\n"),
        Opening("imap", b"v6 CAPABILITY\r\n", _GREET.format("CAPABILITY"), True, b"v7 LOGOUT\r\n"),
        Opening("pop3", b"CAPA\r\n", _GREET.format("CAPA"), True, b"QUIT\r\n"),
        Opening("ftp", b"FEAT\r\n", _GREET.format("FEAT"), True, b"QUIT\r\n"),
        Opening("ssh", b"SSH-2.0-v6fwd_probe\r\n", _GREET.format("version line"), True),
        Opening("mysql", _login(), _GREET.format("login of v6fwd-probe"), True),
        # Not QUIT alone: the v2 signature has that line, and plain servers obey it.
        Opening("irc", b"PING v6fwd\r\nQUIT\r\n", "PING, QUIT"),
        # type: Binding Request; length 0; an id
        Opening("stun", b"\0\1\0\0" + STUN_COOKIE + b"v6fwd-probe.", "STUN Binding Request"),
    )
}
