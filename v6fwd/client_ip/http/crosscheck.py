"""Parses a head a second time, with llhttp through httptools.

Independent parsers seldom share a bug. A head passes only if both read the same method, target,
fields, end of the connection, request for another protocol, and presence of a body.

Whether they agree depends on the framing fields, on Proxy-Connection, on names that either treats
specially or that have other bytes than letters, digits and hyphens, and on whether the method is
CONNECT: any other field is a name and visible bytes to both. So a combination on which they agreed
is not checked again (`_agreed`).

llhttp is strict unless lenient flags are set; httptools sets none (there is a test for that).
"""

from __future__ import annotations

import httptools

from v6fwd.client_ip.http.fields import Fields, Pairs, Reading, pairs_of
from v6fwd.client_ip.http.framing import MEMO_SIZE
from v6fwd.client_ip.http.syntax import Refusal

_KNOWN = frozenset(b"GET HEAD POST PUT PATCH DELETE OPTIONS TRACE CONNECT".split(b" "))
"""Methods that llhttp gets unchanged. It refuses unknown ones, which are valid tokens and do not
change how a message is framed, so it gets POST in their place."""


_MOST_AGREED = 1024
_agreed: set[object] = set()


class _Reading:
    """What llhttp reports about one head."""

    __slots__ = ("bodiless", "fields", "keeps_alive", "parser", "target", "whole")

    def __init__(self) -> None:
        self.parser: httptools.HttpRequestParser | None = httptools.HttpRequestParser(self)
        self.target = b""
        self.fields: list[tuple[bytes, bytes]] = []
        self.whole = False
        self.keeps_alive = False
        self.bodiless = False

    def on_url(self, url: bytes) -> None:
        self.target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self.fields.append((name, value.strip(b" \t")))

    def on_headers_complete(self) -> None:
        self.whole = True
        assert self.parser is not None
        self.keeps_alive = self.parser.should_keep_alive()  # llhttp resets it soon after

    def on_message_complete(self) -> None:
        self.bodiless = True


def check(line: tuple[bytes, bytes, bytes], block: bytes, reading: Reading) -> None:
    """Raise Refusal unless llhttp agrees about a head.

    `line` is method, target and minor version; `block` starts with the CRLF of the request line.
    """
    if reading.shape in _agreed and line[0] != b"CONNECT":
        return
    compare(line, block, reading.fields, pairs_of(reading.lines))
    if len(block) <= MEMO_SIZE:
        if len(_agreed) >= _MOST_AGREED:
            _agreed.clear()
        _agreed.add(reading.shape)


def compare(line: tuple[bytes, bytes, bytes], block: bytes, fields: Fields, pairs: Pairs) -> None:
    """Raise Refusal unless llhttp reads these fields in the head."""
    method, target, minor = line
    shown = method if method in _KNOWN else b"POST"
    switches = method == b"CONNECT" or fields.asked_upgrade
    reading = _Reading()
    parser = reading.parser
    assert parser is not None
    try:
        parser.feed_data(b"%b %b HTTP/1.%b%b" % (shown, target, minor, block))
    except httptools.HttpParserUpgrade:
        pass
    except httptools.HttpParserError:
        raise Refusal(400, "head refused by the second reading") from None
    finally:
        reading.parser = None  # break the reference cycle
    if (
        not reading.whole
        or parser.get_method() != shown
        or reading.target != target
        or reading.fields != pairs
        or parser.should_upgrade() != switches
        or reading.keeps_alive == fields.closing
        or (not switches and reading.bodiless != (fields.length == 0))
    ):
        raise Refusal(400, "head read in two ways")
