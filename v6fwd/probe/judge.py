"""What a server's answer says about the header in front of the question. Pure."""

from __future__ import annotations

import enum
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from v6fwd.model import ip_text
from v6fwd.probe.openings import DNS_ID, STUN_COOKIE

_SHOWN = 60
"""Characters of an answer that are shown."""


class Result(enum.StrEnum):
    """What became of a form."""

    ACCEPTED = "accepted"
    REFUSED = "refused"
    SILENT = "silent"  # nothing came in time: a datagram dropped, or a wait for more
    UNCLEAR = "unclear"


class End(enum.StrEnum):
    """How the connection stood when the probe stopped listening."""

    OPEN = "open"
    CLOSED = "closed"
    RESET = "reset"


@dataclass(frozen=True, slots=True)
class Heard:
    """All that came: a greeting, what answered the question, and the end."""

    data: bytes = b""
    greeting: bytes = b""
    end: End = End.OPEN


@dataclass(frozen=True, slots=True)
class Verdict:
    """What it means. `answer` is for people: printable, short."""

    result: Result
    answer: str


def judge(protocol: str, heard: Heard) -> Verdict:
    """What the answer means in that protocol."""
    if not heard.data and not heard.greeting:
        return _nothing(heard.end)
    return _JUDGES.get(protocol, _unknown)(heard)


def is_protocol(protocol: str, heard: Heard) -> bool:
    """Whether the answer is one of that protocol, be it a refusal."""
    return protocol in _RECOGNISED and bool(_RECOGNISED[protocol](heard.data))


def client_shown(heard: Heard, client: str, own: str, mark: str = "") -> bool | None:
    """Whether the answer names the client; False if it names us; None where it tells neither.

    A page that has `mark`, which was in a field of no meaning, shows whatever it gets.
    """
    text = (heard.greeting + heard.data).decode("latin-1")
    if mark and mark in text:
        return None
    if _names(text, client):
        return True
    return False if _names(text, own) else None


def legible(protocol: str, heard: Heard) -> Heard:
    """The same, with the client's address in clear behind it where it is coded: STUN."""
    if protocol != "stun" or not (address := _mapped_address(heard.data)):
        return heard
    return replace(heard, data=heard.data + b" " + address.encode())


def unless_passed_over(verdict: Verdict, seen: bool | None) -> Verdict:
    """Of a header that is a line: IRC servers pass over a command that they do not know."""
    if verdict.result is not Result.ACCEPTED or seen:
        return verdict
    result = Result.UNCLEAR if seen is None else Result.REFUSED
    return Verdict(result, "answered, as to a line that is passed over")


def mysql_packet(data: bytes) -> int:
    """The size of a MySQL greeting (packet 0: protocol 10, or an error); 0: it is none."""
    is_one = data[2:5] in (b"\0\0\n", b"\0\0\xff")
    return 4 + int.from_bytes(data[:3], "little") if is_one else 0


def printable(data: bytes) -> str:
    """The first line, without what a terminal would obey."""
    line = data.strip().split(b"\n", 1)[0].decode("latin-1").strip()
    clean = "".join(sign if " " <= sign <= "~" else "." for sign in line)
    return clean if len(clean) <= _SHOWN else clean[: _SHOWN - 3] + "..."


def _names(text: str, address: str) -> bool:
    """As a word of its own: 10.0.0.1 is not in 10.0.0.12."""
    pattern = rf"(?<![0-9A-Fa-f.:]){re.escape(address)}(?![0-9A-Fa-f:]|\.[0-9])"
    return bool(address) and re.search(pattern, text) is not None


def _nothing(end: End) -> Verdict:
    if end is End.OPEN:
        return Verdict(Result.SILENT, "no answer")
    return Verdict(Result.REFUSED, "closed" if end is End.CLOSED else "reset")


def _unknown(heard: Heard) -> Verdict:
    return Verdict(Result.UNCLEAR, printable(heard.greeting + heard.data))


def _by(is_good: bool, data: bytes) -> Verdict:
    return Verdict(Result.ACCEPTED if is_good else Result.REFUSED, printable(data))


_HTTP_RE = re.compile(rb"HTTP/1\.[01] ([0-9]{3})")
_NOT_UNDERSTOOD = (b"400", b"501", b"505")
"""Status codes that no server has for a plain GET: it read the header as the request."""


def _http(heard: Heard) -> Verdict:
    match = _HTTP_RE.match(heard.data)
    if match is None:
        return _unknown(heard)
    return _by(match[1] not in _NOT_UNDERSTOOD, heard.data)


def _tls(heard: Heard) -> Verdict:
    if heard.data[:2] == b"\x16\x03":
        return Verdict(Result.ACCEPTED, "TLS ServerHello")
    if heard.data[:2] == b"\x15\x03":
        number = heard.data[6] if len(heard.data) > 6 else 0
        return Verdict(Result.REFUSED, f"TLS alert {number}")
    return _http(heard) if _HTTP_RE.match(heard.data) else _unknown(heard)


def _dns(heard: Heard) -> Verdict:
    message = _dns_message(heard.data)
    if len(message) < 12 or not message[2] & 0x80:
        return _unknown(heard)
    if not message.startswith(DNS_ID):  # it took the header for a query
        return Verdict(Result.REFUSED, "DNS answer to the header itself")
    code = message[3] & 0xF
    return Verdict(Result.ACCEPTED, f"DNS answer, {_RCODES.get(code, code)}")


_RCODES = {0: "NOERROR", 2: "SERVFAIL", 3: "NXDOMAIN", 4: "NOTIMP", 5: "REFUSED"}


def _dns_message(data: bytes) -> bytes:
    """Without the length that TCP has in front."""
    is_framed = len(data) > 2 and int.from_bytes(data[:2], "big") == len(data) - 2
    return data[2:] if is_framed else data


def _postgresql(heard: Heard) -> Verdict:
    return Verdict(*((Result.ACCEPTED, "SSLRequest answered") if heard.data in (b"S", b"N")
                     else (Result.REFUSED, printable(heard.data))))  # fmt: skip


def _numbered(heard: Heard) -> Verdict:
    """SMTP and FTP: a good greeting, and the first reply behind it is for our command."""
    if not heard.greeting.startswith(b"220"):
        return _by(False, heard.greeting)
    if not heard.data:
        return _after_greeting(heard)
    return _by(heard.data[:1] == b"2" and heard.data[:3] != b"221", heard.data)


def _imap(heard: Heard) -> Verdict:
    if not heard.data:
        return _after_greeting(heard)
    first = heard.data.split(b"\r\n", 1)[0].upper()
    return _by(first.startswith((b"* CAPABILITY", b"V6 OK")), heard.data)


def _pop3(heard: Heard) -> Verdict:
    if not heard.data:
        return _after_greeting(heard)
    return _by(heard.data.startswith(b"+OK"), heard.data)


_MYSQL_UNDERSTOOD = frozenset((1044, 1045, 1130, 1251, 1698, 3159))
"""Errors that a login may meet: access denied, from that host, without a password, without TLS."""
_MYSQL_UNREAD = b"Proxy header"
"""MariaDB of a sender that it does not trust, under the number of a host that is not allowed."""


def _mysql(heard: Heard) -> Verdict:
    """ERR is FF, a number, `#` and five signs, a text; OK and AuthSwitchRequest begin 00, FE."""
    packet = heard.data or heard.greeting
    if packet[4:5] != b"\xff":
        if not heard.data:
            return _after_greeting(replace(heard, greeting=b"MySQL's greeting"))
        return _by(packet[4:5] in (b"\0", b"\xfe"), b"login answered")
    number, text = int.from_bytes(packet[5:7], "little"), packet[7:]
    text = text[6:] if text.startswith(b"#") else text
    is_known = number in _MYSQL_UNDERSTOOD and not text.startswith(_MYSQL_UNREAD)
    return _by(is_known, text)


_IRC_ANSWER_RE = re.compile(rb" PONG | 451 \S+ PING")


def _irc(heard: Heard) -> Verdict:
    """PING is answered by PONG, or by 451: not registered. v2's signature has the line QUIT."""
    lines = heard.data.split(b"\n")
    answers = [line for line in lines if _IRC_ANSWER_RE.search(line)]
    return _by(bool(answers), (answers or lines)[0])


_XMPP_ERROR_RE = re.compile(rb"<stream:error[^>]*>\s*<([a-z-]+)")
_XMPP_UNREAD = (b"bad-format", b"invalid-xml", b"not-well-formed", b"restricted-xml")


def _xmpp(heard: Heard) -> Verdict:
    """Stream features, or an error that is about the stream itself (RFC 6120, 4.9.3)."""
    if (error := _XMPP_ERROR_RE.search(heard.data)) is not None:
        return _by(not error[1].startswith(_XMPP_UNREAD), b"XMPP: " + error[1])
    if b"<stream:features" in heard.data:
        return Verdict(Result.ACCEPTED, "XMPP: stream features")
    return _unknown(heard)


def _stun(heard: Heard) -> Verdict:
    """A success or error response to a Binding Request (RFC 8489, 5)."""
    if heard.data[:2] not in (b"\x01\x01", b"\x01\x11") or heard.data[4:8] != STUN_COOKIE:
        return _unknown(heard)
    address = _mapped_address(heard.data)
    return Verdict(Result.ACCEPTED, f"STUN: you are {address}" if address else "STUN response")


def _mapped_address(message: bytes) -> str:
    """XOR-MAPPED-ADDRESS (RFC 8489, 14.2), "" if it is not there."""
    rest = message[20:]
    while len(rest) >= 4:
        kind, size = rest[:2], int.from_bytes(rest[2:4], "big")
        if kind == b"\0\x20":
            coded = rest[8 : 4 + size]
            if len(coded) == size - 4 and len(coded) in (4, 16):
                return ip_text(bytes(a ^ b for a, b in zip(coded, message[4:20], strict=False)))
        rest = rest[4 + (size + 3 & ~3) :]
    return ""


def _ssh(heard: Heard) -> Verdict:
    """SSH_MSG_KEXINIT (RFC 4253, 7.1) is the sixth byte of the first packet."""
    if not heard.data:
        return _after_greeting(heard)
    if heard.data[5:6] == b"\x14":
        return Verdict(Result.ACCEPTED, "key exchange begun")
    return _by(False, heard.data)


def _after_greeting(heard: Heard) -> Verdict:
    """It greeted, and then had no answer to the command."""
    if heard.end is End.OPEN:
        return Verdict(Result.UNCLEAR, printable(heard.greeting))
    return Verdict(Result.REFUSED, f"greeting, then {heard.end}")


_JUDGES: Mapping[str, Callable[[Heard], Verdict]] = {
    "http": _http,
    "tls": _tls,
    "dns": _dns,
    "postgresql": _postgresql,
    "smtp": _numbered,
    "ftp": _numbered,
    "imap": _imap,
    "pop3": _pop3,
    "ssh": _ssh,
    "mysql": _mysql,
    "irc": _irc,
    "xmpp": _xmpp,
    "stun": _stun,
}

_RECOGNISED: Mapping[str, Callable[[bytes], object]] = {
    "http": _HTTP_RE.match,
    "tls": lambda data: data[:2] in (b"\x16\x03", b"\x15\x03"),
    "dns": lambda data: len(_dns_message(data)) >= 12 and _dns_message(data)[2] & 0x80,
    "postgresql": lambda data: data in (b"S", b"N"),
    "irc": lambda data: data.startswith((b":", b"ERROR :")),
    "xmpp": lambda data: b"<stream:" in data,
    "stun": lambda data: data[4:8] == STUN_COOKIE,
}
