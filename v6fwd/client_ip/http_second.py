"""A second, independent reading of a head: llhttp's, through httptools.

Two parsers that were written apart seldom have the same gap. A head is let through only if
both read the same in it: method, target, every field, the end of the connection, the wish for
another protocol, and whether a body follows.

llhttp is strict unless its leniencies are switched on; httptools leaves all of them off (a test
holds it to that).
"""

from __future__ import annotations

import httptools

from v6fwd.client_ip.http_fields import Fields
from v6fwd.client_ip.http_syntax import Refusal

_KNOWN = frozenset(b"GET HEAD POST PUT PATCH DELETE OPTIONS TRACE CONNECT".split(b" "))
"""Methods that are shown to llhttp as they are; it knows a list of them and refuses all others,
which are tokens all the same, and none of which changes how a message is framed."""


class _Reading:
    """What llhttp tells about one head."""

    __slots__ = ("bodiless", "fields", "target", "whole")

    def __init__(self) -> None:
        self.target = b""
        self.fields: list[tuple[bytes, bytes]] = []
        self.whole = False
        self.bodiless = False

    def on_url(self, url: bytes) -> None:
        self.target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self.fields.append((name, value.strip(b" \t")))

    def on_headers_complete(self) -> None:
        self.whole = True

    def on_message_complete(self) -> None:
        self.bodiless = True


def check(method: bytes, target: bytes, minor: bytes, block: bytes, fields: Fields) -> None:
    """Raise Refusal unless llhttp reads what was read of these parts of a head."""
    shown = method if method in _KNOWN else b"POST"
    reading = _Reading()
    parser = httptools.HttpRequestParser(reading)
    switches = method == b"CONNECT" or fields.asked_upgrade
    try:
        parser.feed_data(b"%b %b HTTP/1.%b\r\n%b" % (shown, target, minor, block))
    except httptools.HttpParserUpgrade:
        pass
    except httptools.HttpParserError:
        raise Refusal(400, "head refused by the second reading") from None
    if (
        not reading.whole
        or parser.get_method() != shown
        or reading.target != target
        or reading.fields != _pairs(block)
        or parser.should_upgrade() != switches
        or parser.should_keep_alive() == fields.closing
        or (not switches and reading.bodiless != (fields.length == 0))
    ):
        raise Refusal(400, "head read in two ways")


def _pairs(block: bytes) -> list[tuple[bytes, bytes]]:
    """Names and values in their order."""
    lines = (line.partition(b":") for line in block.split(b"\r\n")[:-2])
    return [(name, value.strip(b" \t")) for name, _, value in lines]
